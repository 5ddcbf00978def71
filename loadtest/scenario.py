"""The same traffic for several arms of one gateway: at one equal rate, and at each one's capacity.

Arms take turns, so that what the machine does meanwhile falls on all alike; each repeat asks every arm the
same texts at the same times, so that differences are paired. Pooled figures are drawn from the run folders
by whoever reports them.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from contract.errors import InputError
from contract.files import write_json
from contract.metrics import LATENCY_BUCKETS_S
from contract.run import Summary
from loadtest.comparison import FULL, ArmRuns, Comparison, Effort
from loadtest.generator import Generator
from loadtest.runner import METERED_WARMUP_S, LoadPlan, drive, labelled, measure_idle_watts
from loadtest.search import Capacity, easy_rate, first_rate, judge
from loadtest.sweep import StepProgress, Tell, Watch, find_capacity, telling
from loadtest.traffic import UNIFORM

SLO_FACTOR = 6.0
RETRIES = 2


def compare(
    template: LoadPlan,
    models: Mapping[str, str],
    out: Path,
    *,
    equal_rate_per_s: float | None = None,
    headroom: float = 0.7,
    effort: Effort = FULL,
    progress: Watch | None = None,
    abort: threading.Event | None = None,
) -> Comparison:
    """Drive every arm at one equal rate and at its own capacity; write runs and `comparison.json` to `out`.

    Args:
        template: url, data, protocol, key, seed and objective; its model, rate and times are not used.
            Without an objective, it is six times the slowest arm's unloaded latency, at a bucket edge.
        models: arm name to model asked; the first is the reference.
        out: folder for `NAME/equal-K`, `NAME/capacity/runs/...` and `comparison.json`.
        equal_rate_per_s: None takes `headroom` of the lowest capacity, lowered while an arm does not hold it;
            for an arm that held no rate, its lowest rate tried stands for its capacity.

    Raises:
        InputError: no arms, or an arm that does not answer.
    """
    if not models:
        raise InputError("there are no arms to compare")
    stages = _Stages(progress, 2 * len(models) + 1)
    template = replace(template, data=labelled(template), warmup_s=effort.warmup_s, stop_when_lost=False)
    with Generator() as generator:
        probes = {
            name: _probe(
                generator, replace(template, model=model), effort, stages.next(f"{name}: first look"), abort
            )
            for name, model in models.items()
        }
        slo_ms = template.slo_ms or objective_for(list(probes.values()))
        idle_watts = measure_idle_watts(template.url, effort.idle_s, api_key=template.api_key)
        template = replace(template, slo_ms=slo_ms, idle_watts=idle_watts)
        capacities = {
            name: find_capacity(
                replace(template, model=model, duration_s=effort.step_s),
                generator=generator,
                search=replace(
                    effort.search,
                    start_per_s=first_rate(probes[name]),
                    easy_per_s=easy_rate(probes[name], slo_ms),
                ),
                out=out / name / "capacity",
                progress=stages.series(f"{name}: capacity"),
                abort=abort,
            )
            for name, model in models.items()
        }
        rate = equal_rate_per_s or _equal_rate(capacities, headroom)
        plan = replace(template, warmup_s=max(template.warmup_s, METERED_WARMUP_S))
        watch = stages.series("equal rate")
        for tries_left in range(0 if equal_rate_per_s else RETRIES, -1, -1):
            at_rate = replace(plan, rate_per_s=rate, duration_s=effort.equal_s_at(rate))
            repeats = effort.repeats
            found, all_hold = _rounds(
                generator, at_rate, models, repeats, out, watch, abort, give_up=tries_left > 0
            )
            if all_hold:
                break
            rate = _rounded(0.75 * rate) if tries_left else rate
    arms = tuple(
        ArmRuns(
            name,
            model,
            tuple(summary for summary, _ in found[name]),
            tuple(folder for _, folder in found[name]),
            capacities[name],
        )
        for name, model in models.items()
    )
    comparison = Comparison(slo_ms, rate, all_hold, idle_watts, next(iter(models)), arms)
    write_json(out / "comparison.json", comparison.dump(out))
    return comparison


def objective_for(probes: Sequence[Summary]) -> float:
    """Return an objective in ms: six times the slowest median, up to the next bucket edge of the metrics.

    An edge, so that the gateway's own histogram answers the same question exactly.
    """
    slowest = max(summary.service_p50_ms or 0.0 for summary in probes)
    edges = [edge * 1000.0 for edge in LATENCY_BUCKETS_S]
    return next((edge for edge in edges if edge >= max(20.0, SLO_FACTOR * slowest)), edges[-1])


def _probe(
    generator: Generator,
    plan: LoadPlan,
    effort: Effort,
    tell: Tell | None,
    abort: threading.Event | None,
) -> Summary:
    light = replace(
        plan,
        rate_per_s=10.0,
        duration_s=effort.probe_s,
        traffic=UNIFORM,
        slo_ms=None,
        out=None,
        meter=False,
    )
    summary = drive(light, generator=generator, progress=tell, abort=abort).summary
    if summary.errors == summary.n:
        raise InputError(
            f"the model {plan.model!r} answered none of {summary.n} requests", where=plan.url,
            hint="ask it once with curl to see the error",
        )  # fmt: skip
    return summary


def _equal_rate(capacities: Mapping[str, Capacity], headroom: float) -> float:
    held = [c.rate_per_s or min(step.rate_per_s for step in c.steps) for c in capacities.values()]
    return _rounded(headroom * min(held))


def _rounded(rate: float) -> float:
    """Round down to two digits, for people."""
    unit: float = 10.0 ** (math.floor(math.log10(rate)) - 1)
    return max(unit, math.floor(rate / unit) * unit)


def _rounds(
    generator: Generator,
    plan: LoadPlan,
    models: Mapping[str, str],
    repeats: int,
    out: Path,
    watch: Watch | None,
    abort: threading.Event | None,
    *,
    give_up: bool,
) -> tuple[dict[str, list[tuple[Summary, Path]]], bool]:
    """Drive all arms in turn, another one first in each repeat; a void run is tried once more.

    Return the runs by arm and whether all held; with `give_up`, stop after the repeat in which one did not.
    """
    names = list(models)
    found: dict[str, list[tuple[Summary, Path]]] = {name: [] for name in names}
    for repeat in range(repeats):
        turn = repeat % len(names)
        for name in names[turn:] + names[:turn]:
            folder = out / name / f"equal-{repeat}"
            one = replace(plan, model=models[name], out=folder, seed=plan.seed + repeat)
            title = f"{name} at {plan.rate_per_s:g} per second, {repeat + 1} of {repeats}"
            tell = telling(watch, title, 1, None)
            summary = drive(one, generator=generator, progress=tell, abort=abort).summary
            if not summary.valid:
                summary = drive(one, generator=generator, progress=tell, abort=abort).summary
            found[name].append((summary, folder))
        if give_up and not _all_hold(found):
            break
    return found, _all_hold(found)


def _all_hold(found: Mapping[str, Sequence[tuple[Summary, Path]]]) -> bool:
    return all(judge(summary)[0] == "held" for runs in found.values() for summary, _ in runs)


class _Stages:
    """Numbers the stages of a comparison for the progress shown."""

    def __init__(self, watch: Watch | None, total: int) -> None:
        self._watch = watch
        self._total = total
        self._done = 0

    def next(self, title: str) -> Tell | None:
        """Begin a stage of one run."""
        return telling(self.series(title), title, 1, None)

    def series(self, title: str) -> Watch | None:
        """Begin a stage of several runs."""
        self._done += 1
        watch, step, total = self._watch, self._done, self._total
        if watch is None:
            return None
        return lambda p: watch(
            StepProgress(p.title if p.title == title else f"{title}: {p.title}", step, total, p.load)
        )
