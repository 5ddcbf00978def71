"""What rate a server holds within an objective, and how it behaves at other rates.

A step that is surely lost ends early, so that no backlog is left for the next one. A short step can hold a
rate that a long one does not, so the rate found is tried again, longer, and lowered until it holds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from contract.errors import InputError
from contract.files import write_json
from contract.run import Summary
from loadtest.generator import Generator
from loadtest.history import SWEEP
from loadtest.runner import METERED_WARMUP_S, LoadPlan, LoadProgress, drive, labelled
from loadtest.search import (
    Capacity,
    Search,
    Step,
    bracket,
    capacity_of,
    confirm,
    easy_rate,
    first_rate,
    judge,
)
from loadtest.traffic import UNIFORM

PROBE_RATE_PER_S = 10.0
PROBE_S = 1.5


@dataclass(frozen=True)
class StepProgress:
    """What a series of runs does now: which step, how many in all (None: unknown), and how far it is."""

    title: str
    step: int
    steps: int | None
    load: LoadProgress


@dataclass(frozen=True)
class Sweep:
    """The result of a sweep: a capacity, or a curve over given rates."""

    model: str
    url: str
    protocol: str
    slo_ms: float
    seed: int
    capacity: Capacity | None
    steps: tuple[Step, ...]

    def dump(self, base: Path | None = None) -> dict[str, Any]:
        """Return the JSON form (`sweep.json`)."""
        return {
            "schema": 1, "model": self.model, "url": self.url, "protocol": self.protocol,
            "slo_ms": self.slo_ms, "seed": self.seed,
            "capacity": self.capacity.dump() if self.capacity else None,
            "steps": [step.dump(base) for step in self.steps],
        }  # fmt: skip


Watch = Callable[[StepProgress], None]
Tell = Callable[[LoadProgress], None]


def run_sweep(
    template: LoadPlan,
    *,
    rates: Sequence[float] | None = None,
    search: Search | None = None,
    out: Path | None = None,
    progress: Watch | None = None,
    abort: threading.Event | None = None,
) -> Sweep:
    """Search the capacity of one model, or drive it at the given rates; write runs and `sweep.json` to `out`.

    Args:
        template: what to ask and for how long a step is measured; its rate and `out` are not used.
        rates: the rates of a curve; None searches the capacity.

    Raises:
        InputError: the template has no objective, a rate is not positive, or nothing answers.
    """
    slo_ms = _objective(template)
    template = replace(template, data=labelled(template))
    capacity: Capacity | None = None
    if rates is None:
        capacity = find_capacity(template, search=search, out=out, progress=progress, abort=abort)
        steps = tuple(sorted(capacity.steps, key=lambda step: step.rate_per_s))
    else:
        steps = rate_curve(template, rates, out=out, progress=progress, abort=abort)
    sweep = Sweep(template.model, template.url, template.protocol, slo_ms, template.seed, capacity, steps)
    if out is not None:
        write_json(out / SWEEP, sweep.dump(out))
    return sweep


def rate_curve(
    template: LoadPlan,
    rates: Sequence[float],
    *,
    out: Path | None = None,
    progress: Watch | None = None,
    abort: threading.Event | None = None,
) -> tuple[Step, ...]:
    """Drive each rate once, lowest first, every run to its end."""
    _objective(template)
    with Generator() as own:
        ladder = _Ladder(template, own, out, progress, abort, len(rates))
        return tuple(ladder.climb(rate) for rate in sorted(rates))


def find_capacity(
    template: LoadPlan,
    *,
    search: Search | None = None,
    generator: Generator | None = None,
    out: Path | None = None,
    progress: Watch | None = None,
    abort: threading.Event | None = None,
) -> Capacity:
    """Search the highest rate that is held within `template.slo_ms`."""
    if generator is None:
        with Generator() as own:
            return find_capacity(
                template, search=search, generator=own, out=out, progress=progress, abort=abort
            )
    bounds = search or Search()
    slo_ms = _objective(template)
    template = replace(template, data=labelled(template), stop_when_lost=True)
    ladder = _Ladder(template, generator, out, progress, abort, None, bounds.min_requests)
    rate = bounds.start_per_s
    if rate is None:
        probe = _probe(template, generator, abort)
        rate = first_rate(probe)
        bounds = replace(bounds, easy_per_s=easy_rate(probe, slo_ms))
    held, lost = bracket(ladder.climb, bounds, rate)
    runs: tuple[Step, ...] = (held,) if held else ()
    confirmed = False
    if held and bounds.confirm:
        runs, lost = confirm(lambda at: ladder.climb(at, bounds.confirm_s), bounds, held.rate_per_s, lost)
        confirmed = bool(runs)
    return capacity_of(template.model, slo_ms, runs, confirmed, lost, tuple(ladder.steps))


class _Ladder:
    """Runs steps and keeps them."""

    def __init__(
        self,
        template: LoadPlan,
        generator: Generator,
        out: Path | None,
        progress: Watch | None,
        abort: threading.Event | None,
        total: int | None,
        min_requests: int = 0,
    ) -> None:
        self.template = template
        self.generator = generator
        self.out = out
        self.progress = progress
        self.abort = abort
        self.total = total
        self.min_requests = min_requests
        self.steps: list[Step] = []

    def climb(self, rate: float, duration_s: float | None = None) -> Step:
        """Drive one rate and judge it; when the run is void, once more."""
        step = self._try(rate, duration_s)
        return self._try(rate, duration_s) if step.outcome == "void" else step

    def _try(self, rate: float, duration_s: float | None) -> Step:
        number = len(self.steps)
        base = duration_s or self.template.duration_s
        metered = self.template.meter and duration_s is not None
        run = self.out / "runs" / f"{number:02d}-{rate:.4g}" if self.out else None
        plan = replace(
            self.template,
            rate_per_s=rate,
            duration_s=min(2 * base, max(base, self.min_requests / rate)),
            warmup_s=max(self.template.warmup_s, METERED_WARMUP_S) if metered else self.template.warmup_s,
            meter=metered,
            out=run,
            seed=self.template.seed + number,
        )
        result = drive(
            plan,
            generator=self.generator,
            progress=self._tell(f"{plan.model} at {rate:.4g} per second"),
            abort=self.abort,
        )
        outcome, reason = judge(result.summary)
        step = Step(rate, outcome, reason, result.summary, run)
        self.steps.append(step)
        return step

    def _tell(self, title: str) -> Tell | None:
        return telling(self.progress, title, len(self.steps) + 1, self.total)


def telling(watch: Watch | None, title: str, step: int, steps: int | None) -> Tell | None:
    """Return what tells a watch of the load of one step; None where nobody watches."""
    return None if watch is None else lambda load: watch(StepProgress(title, step, steps, load))


def _objective(template: LoadPlan) -> float:
    if template.slo_ms is None:
        raise InputError("a capacity needs an objective", where="--slo-ms", hint="--slo-ms 100")
    return template.slo_ms


def _probe(template: LoadPlan, generator: Generator, abort: threading.Event | None) -> Summary:
    probe = replace(
        template, rate_per_s=PROBE_RATE_PER_S, duration_s=PROBE_S, warmup_s=0.5, traffic=UNIFORM,
        stop_when_lost=False, out=None,
    )  # fmt: skip
    return drive(probe, generator=generator, abort=abort).summary
