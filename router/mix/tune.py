"""Tuning with cells: a policy of one variant before the reference that holds while the mix moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from contract.costs import Cost
from contract.errors import InputError
from contract.mix import Mix
from contract.policy import Certificate, CertifiedTarget, ClassRule, Expected, Policy, Stage
from contract.predictions import Predictions
from router.decide.simulate import simulate
from router.mix.cells import certify_cells, chosen_by
from router.mix.explain import explain_mix
from router.mix.pairs import Pairs, pairs_of
from router.mix.shares import Growing, certify_share
from router.tune.record import recorded
from router.tune.settings import TuneSettings, data_hash
from router.tune.targets import Targets
from router.tune.tune import TuneResult

By = Literal["class", "score", "auto"]
_SHOWN = (
    "accuracy", "accuracy_interval", "accuracy_drop", "escalation_rate", "usd_per_1k", "latency_ms",
    "energy_wh_per_1k",
)  # fmt: skip


@dataclass(frozen=True)
class _Found:
    mix: Mix
    stage: Stage
    p_value: float | None


def tune_mix(
    predictions: Predictions,
    costs: Mapping[str, Cost],
    targets: Targets,
    settings: TuneSettings,
    by: By | None,
    growing: Growing | None = None,
) -> TuneResult:
    """Choose the cheapest pair and thresholds that keep the one target under every mix of its cells.

    Args:
        by: cells by predicted class, by score, or what fits the data; None with `growing`.
        growing: in their place, a label or slice whose share of the traffic may grow.

    Raises:
        InputError, PredictionsError: see `pairs_of`, and `part_of` of the part that grows.
    """
    if (by is None) == (growing is None):
        raise InputError("cells and a share that grows are two different promises", hint="ask for one")
    pairs = pairs_of(predictions, costs, targets, settings)
    found = [_certified(pairs, place, by, growing) for place in range(len(pairs.pairs))]
    policies = [_policy(predictions, costs, settings, pairs, one) for one in found]
    alone = costs[pairs.reference].usd_per_1k
    saving = [p for p in policies if p.status == "certified" and (p.expected.usd_per_1k or 0.0) < alone]
    if saving:
        policy = min(saving, key=lambda p: p.expected.usd_per_1k or 0.0)
    else:
        policy = _nothing_safe(costs, pairs, found[0].mix)
    if policy.certificate is not None:
        mix = {"by": by, "growing": None if growing is None else asdict(growing)}
        certificate = policy.certificate.model_copy(update={"tuning": recorded(targets, settings, mix=mix)})
        policy = policy.model_copy(update={"certificate": certificate, "version": ""}).sealed()
    return TuneResult(policy, explain_mix(pairs, policy, costs), (), ())


def _certified(pairs: Pairs, place: int, by: By | None, growing: Growing | None) -> _Found:
    pair = pairs.pairs[place]
    if growing is not None:
        grown = certify_share(pairs, pair, growing)
        return _Found(grown.mix, Stage(variant=pair.variant, threshold=grown.threshold), grown.p_value)
    cells = certify_cells(pairs, pair, chosen_by(pairs, by or "auto"))
    rules = {label: ClassRule(threshold=value) for label, value in cells.per_class.items()}
    stage = Stage(variant=pair.variant, threshold=cells.threshold, per_class=rules)
    return _Found(cells.mix, stage, None if cells.p_value is None else cells.p_value * pairs.level)


def _policy(
    predictions: Predictions, costs: Mapping[str, Cost], settings: TuneSettings, pairs: Pairs, found: _Found
) -> Policy:
    asked, delta = pairs.asked, 1.0 - settings.confidence
    method = (
        f"any share of {found.mix.cells[0].name!r} up to {found.mix.most:g}"
        if found.mix.by == "label"
        else f"every mix of cells by {found.mix.by}"
    )
    used = sorted({found.stage.variant, pairs.reference})
    known = settings.artifact_sha256
    policy = Policy(
        status="certified" if any(cell.accepted for cell in found.mix.cells) else "no_safe_threshold",
        reference=pairs.reference,
        stages=(found.stage, Stage(variant=pairs.reference)),
        certificate=Certificate(
            method=f"fixed-sequence testing, exact p-value, {method}",
            metric=asked.metric,
            epsilon=asked.epsilon,
            delta=round(delta, 12),
            n_tune=0,
            n_certify=len(pairs.rows),
            seed=settings.seed,
            data_sha256=data_hash(predictions),
            variants={name: known[name] for name in used if name in known},
            created_at=settings.created_at,
            p_value=None if found.p_value is None else min(1.0, found.p_value * len(pairs.pairs)),
            targets=(CertifiedTarget(metric=asked.metric, epsilon=asked.epsilon, method="exact"),),
            stands_for=settings.stands_for if pairs.reference == settings.teacher else None,
            machine=settings.machine,
        ),
        mix=found.mix,
    )
    figures = simulate(pairs.rows, costs, policy.sealed()).figures
    expected = Expected(**{name: figures[name] for name in _SHOWN})
    return policy.model_copy(update={"expected": expected}).sealed()


def _nothing_safe(costs: Mapping[str, Cost], pairs: Pairs, mix: Mix) -> Policy:
    """Return the policy that sends everything to the reference, with what its cells would have needed."""
    policy = Policy(
        status="no_safe_threshold", reference=pairs.reference, stages=(Stage(variant=pairs.reference),)
    )
    figures = simulate(pairs.rows, costs, policy.sealed()).figures
    expected = Expected(**{name: figures[name] for name in _SHOWN})
    return policy.model_copy(update={"expected": expected, "needed_n": needed_rows(pairs, mix)}).sealed()


def needed_rows(pairs: Pairs, mix: Mix) -> int | None:
    """Return about how many rows would do if the surest tenth of the texts lost nothing; None: these did.

    Of cells by label the part that may grow decides: its bound, times its share, has to fit into half of
    epsilon.
    """
    epsilon, n = pairs.asked.epsilon, len(pairs.rows)
    if mix.by == "label" and mix.most is not None:
        part = mix.cells[0]
        room = min(1.0 - 1e-9, epsilon / 2 / mix.most)
        needed = np.log(pairs.level / 2) / np.log1p(-room) * n / part.n
    else:
        needed = 10 * np.log(pairs.level / 2) / np.log1p(-epsilon)
    return int(np.ceil(needed)) if needed > n else None
