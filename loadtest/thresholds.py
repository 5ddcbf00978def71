"""A running gateway at several thresholds in turn, and its variants alone, under the same traffic."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from contract.errors import InputError
from contract.files import write_json
from loadtest.estimates import accuracy_difference
from loadtest.generator import Generator
from loadtest.operating_point import Advice, Point, Wanted, advise, knee
from loadtest.pooling import pooled_requests, pooled_setting, pooled_use
from loadtest.runner import LoadPlan, LoadResult, default_economy, drive, labelled
from loadtest.summary import answers_in, summarise
from loadtest.sweep import Watch, telling
from loadtest.waits import answered

Turn = Callable[[float], None]
"""Puts a threshold in force on the gateway, and returns once every replica has it."""


@dataclass(frozen=True)
class Arm:
    """One way to serve: the cascade at a threshold, or one variant alone (threshold None)."""

    name: str
    model: str
    threshold: float | None


@dataclass(frozen=True)
class ThresholdSweep:
    """What was measured.

    Attributes:
        points: the cascade by threshold, lowest first, then variants alone.
        reference: name of the point that accuracy is held against.
        knee: where more escalation begins to bring little.
        advice: for the limits given.
    """

    url: str
    rate_per_s: float
    slo_ms: float
    repeats: int
    points: tuple[Point, ...]
    reference: str
    knee: Point | None
    advice: Advice

    def dump(self) -> dict[str, Any]:
        """Return the JSON form (`thresholds.json`)."""
        best = self.advice.point
        return {
            "schema": 1, "url": self.url, "rate_per_s": self.rate_per_s, "slo_ms": self.slo_ms,
            "repeats": self.repeats, "reference": self.reference,
            "knee": None if self.knee is None else self.knee.name,
            "recommended": None if best is None else best.name,
            "do_not_route": best is not None and best.alone,
            "advice": self.advice.words, "misses": self.advice.misses,
            "points": [_dumped(point) for point in self.points],
        }  # fmt: skip


def sweep_thresholds(
    template: LoadPlan,
    arms: Sequence[Arm],
    reference: str,
    turn: Turn,
    *,
    repeats: int = 3,
    wanted: Wanted,
    out: Path | None = None,
    progress: Watch | None = None,
    abort: threading.Event | None = None,
) -> ThresholdSweep:
    """Drive every arm `repeats` times at the template's rate, in another order each time, and pool the runs.

    Interleaving spreads what changes on the machine over all arms alike. Texts are the same in each arm of a
    repeat.

    Args:
        template: what to ask, how fast and for how long; its model and `out` are not used.
        arms: at least one with a threshold.
        reference: name of the arm that accuracy is held against.
        turn: called before each run of the cascade.
        wanted: limits of the advice.
        out: folder for the runs (`NAME/0`, `NAME/1`, ...) and `thresholds.json`.

    Raises:
        InputError: names that are not distinct, no such reference, or nothing answers.
    """
    names = [arm.name for arm in arms]
    if len(set(names)) != len(names) or reference not in names:
        raise InputError(f"arms must have names of their own, {reference!r} among them: {names}")
    template = replace(template, data=labelled(template))
    rng = np.random.default_rng([template.seed, 4])
    found: dict[str, list[LoadResult]] = {name: [] for name in names}
    total = repeats * len(arms)
    with Generator() as generator:
        for repeat in range(repeats):
            for index in rng.permutation(len(arms)).tolist():
                arm = arms[index]
                if arm.threshold is not None:
                    turn(arm.threshold)
                plan = replace(
                    template,
                    model=arm.model,
                    seed=template.seed + repeat,
                    out=out / "runs" / arm.name / str(repeat) if out else None,
                )
                done = sum(map(len, found.values())) + 1
                tell = telling(progress, f"{arm.name}, {repeat + 1} of {repeats}", done, total)
                found[arm.name].append(drive(plan, generator=generator, progress=tell, abort=abort))
    points = _points(template, arms, found, reference)
    sweep = ThresholdSweep(
        template.url, template.rate_per_s, wanted.slo_ms, repeats, points, reference, knee(points),
        advise(points, wanted),
    )  # fmt: skip
    if out is not None:
        write_json(out / "thresholds.json", sweep.dump())
    return sweep


def _points(
    template: LoadPlan, arms: Sequence[Arm], found: dict[str, list[LoadResult]], reference: str
) -> tuple[Point, ...]:
    pooled = {
        name: pooled_requests([r.requests for r in results], [r.setting for r in results])
        for name, results in found.items()
    }
    answers = {name: answers_in(requests, answered(requests)) for name, requests in pooled.items()}
    points = []
    for arm in arms:
        results = found[arm.name]
        machine = results[0].summary.machine
        summary = summarise(
            pooled[arm.name],
            pooled_setting([result.setting for result in results]),
            use=pooled_use([result.use for result in results]),
            economy=template.economy or default_economy(machine),
            machine=machine,
        )
        gap = accuracy_difference(answers[arm.name], answers[reference], seed=template.seed)
        points.append(Point(arm.name, arm.model, arm.threshold, summary, gap))
    return tuple(sorted(points, key=lambda p: (p.alone, p.threshold or 0.0)))


def _dumped(point: Point) -> dict[str, Any]:
    s, gap = point.summary, point.gap
    return {
        "name": point.name, "model": point.model, "threshold": point.threshold, "n": s.n, "errors": s.errors,
        "escalation_rate": s.escalation_rate,
        "accuracy": s.accuracy, "accuracy_interval": s.accuracy_interval,
        "accuracy_gap": None if gap is None else gap.value,
        "accuracy_gap_interval": None if gap is None else gap.interval,
        "p50_ms": s.p50_ms, "p99_ms": s.p99_ms, "p99_interval_ms": s.p99_interval_ms,
        "goodput_per_s": s.goodput_per_s, "goodput_interval_per_s": s.goodput_interval_per_s,
        "usd_per_1k": point.usd_per_1k, "energy_wh_per_1k": s.energy_wh_per_1k,
        "energy_provenance": s.energy_provenance, "gco2e_per_1k": s.gco2e_per_1k,
        "valid": s.valid, "void_reason": s.void_reason,
    }  # fmt: skip
