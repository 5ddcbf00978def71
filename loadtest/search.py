"""The search for the highest rate that is held: what a step is, where to go next, and what was found. Pure.

A rate is held when p99 is within the objective, fewer than 0.1% of requests fail, and the generator can be
believed. Rates are searched by doubling or halving and then by bisection (in ratio).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from contract.formulas import Interval, usd_per_1k
from contract.run import Summary
from loadtest.summary import generator_faults

ERROR_SHARE = 0.001

Outcome = Literal["held", "missed", "void"]
Limit = Literal["server", "generator", "search"]


@dataclass(frozen=True)
class Step:
    """One rate that was tried. `run` is its folder, if runs are kept."""

    rate_per_s: float
    outcome: Outcome
    reason: str
    summary: Summary
    run: Path | None = None

    def dump(self, base: Path | None = None) -> dict[str, Any]:
        """Return the JSON form; the run folder relative to `base`."""
        s = self.summary
        run = self.run.relative_to(base).as_posix() if self.run and base else None
        return {
            "rate_per_s": self.rate_per_s, "outcome": self.outcome, "reason": self.reason, "run": run,
            "n": s.n, "errors": s.errors, "p50_ms": s.p50_ms, "p99_ms": s.p99_ms,
            "p99_interval_ms": s.p99_interval_ms, "goodput_per_s": s.goodput_per_s, "accuracy": s.accuracy,
            "escalation_rate": s.escalation_rate, "usd_per_1k": s.usd_per_1k, "valid": s.valid,
            "energy_wh_per_1k": s.energy_wh_per_1k, "cpu_seconds_per_1k": s.cpu_seconds_per_1k,
        }  # fmt: skip


@dataclass(frozen=True)
class Capacity:
    """The highest rate held, and what bounds it.

    Attributes:
        rate_per_s: highest rate held; None when none was.
        confirmed: whether that rate held in every longer run.
        runs: folders of those longer runs, if runs are kept.
        goodput_per_s: answers within the objective per second at that rate, mean of the longer runs.
        interval_per_s: from that rate's goodput to the lowest rate that was not held; None unless the server
            set the limit, since all else gives a lower bound alone.
        usd_per_1k, usd_interval: price of 1,000 answers at capacity; None when cores are unknown.
        limited_by: what stopped the search: the server, the generator, or the search's own bounds.
    """

    model: str
    slo_ms: float
    rate_per_s: float | None
    confirmed: bool
    runs: tuple[Path, ...]
    goodput_per_s: float | None
    interval_per_s: Interval | None
    usd_per_1k: float | None
    usd_interval: Interval | None
    limited_by: Limit
    method: str
    steps: tuple[Step, ...]

    def dump(self) -> dict[str, Any]:
        """Return the JSON form, without the steps."""
        return {
            "model": self.model, "slo_ms": self.slo_ms, "rate_per_s": self.rate_per_s,
            "confirmed": self.confirmed,
            "goodput_per_s": self.goodput_per_s, "interval_per_s": self.interval_per_s,
            "usd_per_1k": self.usd_per_1k, "usd_interval": self.usd_interval,
            "limited_by": self.limited_by, "method": self.method,
        }  # fmt: skip


@dataclass(frozen=True)
class Search:
    """Bounds of a capacity search.

    Attributes:
        start_per_s: first rate; None: estimated from a short probe.
        resolution: stop when the lowest rate not held is at most this much above the highest held.
        max_steps: most rates to try.
        min_requests: steps last longer than the template's duration, up to twice as long, to send these.
        confirm: longer runs that must all hold at the rate found; 0 leaves it at the short steps.
        confirm_s: how long each is measured.
        step_downs: how often the rate may be lowered (by `resolution`) until they hold.
        low_per_s, high_per_s: never try rates outside.
        easy_per_s: a rate that a probe has shown to be held with ease; nothing below it is tried.
    """

    start_per_s: float | None = None
    resolution: float = 0.08
    max_steps: int = 12
    min_requests: int = 300
    confirm: int = 2
    confirm_s: float = 6.0
    step_downs: int = 4
    low_per_s: float = 0.5
    high_per_s: float = 5000.0
    easy_per_s: float | None = None

    @property
    def lowest_per_s(self) -> float:
        """The lowest rate worth trying."""
        return max(self.low_per_s, self.easy_per_s or 0.0)


Climb = Callable[[float], Step]


def bracket(climb: Climb, bounds: Search, rate: float) -> tuple[Step | None, Step | None]:
    """Return the highest rate held and the lowest that was not, as close as the bounds ask.

    A rate at which the generator could not be believed bounds the search as one that was missed does.
    """
    held: Step | None = None
    lost: Step | None = None
    for _ in range(bounds.max_steps):
        rate = min(max(rate, bounds.lowest_per_s), bounds.high_per_s)
        step = climb(rate)
        if step.outcome == "held":
            held = step
        else:
            lost = step
        if held and lost:
            if lost.rate_per_s <= held.rate_per_s * (1 + bounds.resolution):
                break
            rate = math.sqrt(held.rate_per_s * lost.rate_per_s)
        elif held:
            if rate >= bounds.high_per_s:
                break
            rate *= 2
        else:
            if rate <= bounds.lowest_per_s:
                break
            known = bounds.easy_per_s is not None and step.outcome == "void"
            rate = math.sqrt(bounds.lowest_per_s * rate) if known else rate / 2
    return held, lost


def confirm(
    climb: Climb, bounds: Search, rate: float, lost: Step | None
) -> tuple[tuple[Step, ...], Step | None]:
    """Return the longer runs at the highest rate up to `rate` where all hold, and the lowest not held."""
    for _ in range(bounds.step_downs + 1):
        runs: list[Step] = []
        while len(runs) < bounds.confirm:
            runs.append(climb(rate))
            if runs[-1].outcome != "held":
                break
        else:
            return tuple(runs), lost
        lost = runs[-1]
        if rate <= bounds.lowest_per_s:
            break
        rate = max(rate / (1 + bounds.resolution), bounds.lowest_per_s)
    return (), lost


def judge(summary: Summary) -> tuple[Outcome, str]:
    """Return whether a run held its objective, and why not."""
    faults = generator_faults(summary)
    if faults:
        return "void", "; ".join(faults)
    slo_ms = summary.slo_ms or math.inf
    if summary.stopped_early:
        return "missed", f"more than 1% of answers took longer than {slo_ms:g} ms, or failed"
    if summary.errors > ERROR_SHARE * summary.n:
        return "missed", f"{summary.errors} of {summary.n} requests failed (limit 0.1%)"
    if summary.p99_ms is None or summary.p99_ms > slo_ms:
        return "missed", f"p99 {summary.p99_ms or math.inf:.1f} ms is over {slo_ms:g} ms"
    return "held", f"p99 {summary.p99_ms:.1f} ms is within {slo_ms:g} ms"


def first_rate(probe: Summary) -> float:
    """Half of what the CPU time of a request allows on its machine, or of what one at a time does."""
    if probe.cpu_seconds_per_1k:
        cores = probe.machine.cores if probe.machine else 1.0
        return 0.5 * cores * 1000.0 / probe.cpu_seconds_per_1k
    return 500.0 / max(probe.service_p50_ms or 100.0, 1.0)


def easy_rate(probe: Summary, slo_ms: float) -> float | None:
    """Return the rate of a light probe if all its answers came within half of the objective."""
    held = not probe.errors and probe.p99_ms is not None and probe.p99_ms <= slo_ms / 2
    return probe.rate_asked_per_s if held else None


def capacity_of(
    model: str,
    slo_ms: float,
    runs: tuple[Step, ...],
    confirmed: bool,
    lost: Step | None,
    steps: tuple[Step, ...],
) -> Capacity:
    """Return the capacity that runs at the highest rate held and the lowest rate not held give."""
    goodputs = [run.summary.goodput_per_s for run in runs if run.summary.goodput_per_s]
    goodput = sum(goodputs) / len(goodputs) if goodputs else None
    limited_by: Limit = "search" if lost is None else "generator" if lost.outcome == "void" else "server"
    interval = (
        (goodput, max(goodput, lost.rate_per_s)) if goodput and lost and limited_by == "server" else None
    )
    price = _usd(runs[0].summary, goodput) if goodput else None
    kept = tuple(run.run for run in runs if run.run)
    return Capacity(
        model=model,
        slo_ms=slo_ms,
        rate_per_s=runs[0].rate_per_s if runs else None,
        confirmed=confirmed,
        runs=kept,
        goodput_per_s=goodput,
        interval_per_s=interval,
        usd_per_1k=price,
        usd_interval=(price * goodput / interval[1], price) if price and goodput and interval else None,
        limited_by=limited_by,
        method=f"highest of {len(steps)} rates tried with p99 within {slo_ms:g} ms and under 0.1% errors, "
        f"{f'held in {len(runs)} longer runs' if confirmed else 'in a short step only'}; "
        + (
            "interval: from its goodput to the lowest rate that was not held"
            if limited_by == "server"
            else f"a lower bound: the {limited_by}, not the server, set the limit"
        ),
        steps=steps,
    )


def _usd(summary: Summary, goodput: float) -> float | None:
    """Return the price at a goodput, from the price that the run has at its own."""
    if summary.usd_per_1k is None or not summary.goodput_per_s:
        return None
    charged = summary.charged_usd_per_1k or 0.0
    hourly = (summary.usd_per_1k - charged) * summary.goodput_per_s * 3.6
    return usd_per_1k(hourly, 1.0, goodput) + charged
