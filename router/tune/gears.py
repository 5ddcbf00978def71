"""Gears: the ladder of policies that certification proves at once, from an idle gateway's to overload's.

Of the candidates that keep the targets the safest is for an idle gateway and the cheapest for a busy one. For
overload a second fixed sequence is tested at a looser epsilon, on the same rows; both share delta (a union
bound), so that all promises of the ladder hold together with probability 1 - delta.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from contract.errors import InputError
from contract.policy import BUSY, Gear
from router.decide.scores import IntArray
from router.tune.certify import Tested, fixed_sequence, sequence_of
from router.tune.policies import Evidence, expected_of, stages_of
from router.tune.search import Estimate, Search, make_search
from router.tune.settings import TuneSettings
from router.tune.targets import Targets

IDLE = "idle"
OVERLOAD = "overload"
OVERLOAD_SHARE = 0.25
"""Of delta, for the second sequence: its epsilon leaves more room, so that it needs less of the level."""
OVERLOAD_RUNGS = 3
CHEAPER = 0.98
"""A rung of overload costs at most this share of the busy gear: one that spares nothing is no help."""


@dataclass(frozen=True, eq=False)
class Rung:
    """A gear before it is written: the candidate, and what was tested of it at which level."""

    name: str
    estimate: Estimate
    epsilon: float
    delta: float
    p_value: float | None


def check_gears(targets: Targets, settings: TuneSettings) -> None:
    """Raise InputError where gears cannot be: uncertified, or without a drop to promise."""
    overload, drop = settings.overload_drop, targets.max_accuracy_drop
    if not settings.gears:
        if overload is not None:
            raise InputError("an overload drop is that of the overload gears", hint="add --gears")
        return
    if not settings.certified:
        raise InputError("gears are certified: an uncertified policy has none", hint="without --uncertified")
    if drop is None or targets.objective != "cheapest":
        raise InputError(
            "gears keep a drop in accuracy at the least cost",
            hint="--gears with --max-accuracy-drop 0.01, and with the objective cheapest",
        )
    if overload is not None and not drop < overload < 1.0:
        raise InputError(
            f"the drop under overload, {overload:g}, must be above that of --max-accuracy-drop, {drop:g}, "
            "and under 1",
            hint="--overload-drop 0.04",
        )


def overload_share(settings: TuneSettings) -> float:
    """Return the share of delta that the overload gears are tested at, 0 without any."""
    return OVERLOAD_SHARE if settings.gears and settings.overload_drop is not None else 0.0


def overload_tested(
    evidence: Evidence,
    settings: TuneSettings,
    candidates: Callable[[Search, Targets], Sequence[Estimate]],
    trivial: Estimate | None,
    order: IntArray,
) -> list[Tested]:
    """Test a second sequence at the overload drop, safest first, each at its share of delta.

    Its order is fixed by the tune part alone: where it starts does not depend on what passed before.

    Args:
        evidence: of the tuning run, with rows to certify with.
        settings: say the drop under overload.
        candidates: searches the tune part for a search and its targets.
        trivial: the reference alone where its drop is zero for certain.
        order: [N] the fixed shuffle of the rows to certify with.
    """
    sample = evidence.certify
    if sample is None or settings.overload_drop is None:
        return []
    targets = replace(evidence.targets, max_accuracy_drop=settings.overload_drop)
    search = _loosened(evidence, settings.overload_drop)
    delta = evidence.delta - evidence.level
    sequence = sequence_of(search, len(sample), trivial, candidates(search, targets), delta)
    return fixed_sequence(search, sequence, sample, order, delta)


def gears_of(
    evidence: Evidence,
    settings: TuneSettings,
    busy: Estimate,
    tested: Sequence[Tested],
    overload: Sequence[Tested],
) -> tuple[Gear, ...]:
    """Return the ladder, from idle to the cheapest of overload; empty where it would be one rung.

    Args:
        evidence: of the tuning run.
        settings: of it.
        busy: the candidate that the policy itself is.
        tested: of the targets as asked.
        overload: of the looser ones.
    """
    drop = evidence.targets.max_accuracy_drop
    if drop is None:
        return ()
    level = evidence.level
    found = {t.estimate: t.p_value for t in tested if t.passed}
    rungs = [Rung(BUSY, busy, drop, level, found.get(busy))]
    dearer = [e for e in found if e is not busy and e.usd_per_1k > busy.usd_per_1k]
    if dearer:
        safest = max(dearer, key=lambda e: e.margin)
        rungs.insert(0, Rung(IDLE, safest, drop, level, found[safest]))
    if settings.overload_drop is not None:
        at = evidence.delta - level
        rungs += [
            Rung(f"{OVERLOAD}-{number}", t.estimate, settings.overload_drop, at, t.p_value)
            for number, t in enumerate(_spread(busy, overload), 1)
        ]
    return tuple(_gear(evidence, rung) for rung in rungs) if len(rungs) > 1 else ()


def _spread(busy: Estimate, overload: Sequence[Tested]) -> list[Tested]:
    """Return the cheapest that passed and some between it and the busy gear, evenly in cost."""
    passed = [t for t in overload if t.passed and t.estimate.usd_per_1k <= CHEAPER * busy.usd_per_1k]
    if not passed:
        return []
    usd = np.array([t.estimate.usd_per_1k for t in passed])
    wanted = np.linspace(busy.usd_per_1k, usd.min(), OVERLOAD_RUNGS + 1)[1:]
    nearest = dict.fromkeys(int(np.abs(usd - value).argmin()) for value in wanted)
    return sorted((passed[index] for index in nearest), key=lambda t: -t.estimate.usd_per_1k)


def _gear(evidence: Evidence, rung: Rung) -> Gear:
    candidate = rung.estimate.candidate
    return Gear(
        name=rung.name,
        stages=stages_of(evidence, candidate),
        epsilon=rung.epsilon,
        delta=round(rung.delta, 12),
        p_value=rung.p_value,
        expected=expected_of(evidence, candidate),
    )


def _loosened(evidence: Evidence, drop: float) -> Search:
    """Return the search with another limit on the drop in accuracy, its first target; the rest as asked."""
    search = evidence.search
    first, *others = search.constraints
    constraints = (replace(first, epsilon=drop), *others)
    return make_search(
        search.sample, search.model, constraints, evidence.costs, search.budgets, search.reference
    )


def explained(gears: Sequence[Gear], delta: float) -> list[str]:
    """Return the ladder in plain words."""
    if not gears:
        return ["No gears: beside the policy itself nothing passed that would spare or spend more."]
    levels = dict.fromkeys((gear.epsilon, gear.delta) for gear in gears)
    split = " and ".join(
        f"{epsilon * 100:.4g} points at {level:.4g}" for epsilon, level in levels if level is not None
    )
    lines = [
        f"Gears, which load alone moves the policy along; all promises hold together with "
        f"{1 - delta:.0%} confidence ({split}):"
    ]
    for gear in gears:
        told = gear.expected
        parts = [f"drop under {gear.epsilon * 100:.4g} points"]
        if told.accuracy_drop is not None:
            parts.append(f"{told.accuracy_drop * 100:.2f} on the rows held back")
        if told.escalation_rate is not None:
            parts.append(f"escalates {told.escalation_rate:.1%}")
        if told.usd_per_1k is not None:
            parts.append(f"{told.usd_per_1k:.4g} USD per 1,000")
        lines.append(f"  {gear.name}: {', '.join(parts)}")
    busy = next(gear for gear in gears if gear.name == BUSY).expected.usd_per_1k
    last = gears[-1].expected.usd_per_1k
    if busy and last and last < busy:
        lines.append(
            f"  As far as price tells work, {gears[-1].name} carries {busy / last:.1f} times as much."
        )
    return lines
