"""What a variant costs on this machine: latency at real lengths, CPU time, energy and money."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from contract.family import Latency
from contract.formulas import exact_quantile, quantile_interval, usd_per_1k_from_seconds
from contract.machine import EnergyProvenance, Provider
from contract.prices import Prices, load_prices
from runtime.api import LoadedVariant
from runtime.energy import EnergyMeter, EnergyReading

_LEAST_CALLS = 5
_FIRST_SHARE = 0.4
_WARM_UP_SHARE = 0.1
_WARM_UP_S = 0.3
_LEAST_WINDOW_S = 3.0


@dataclass(frozen=True)
class TimingPlan:
    """How calls are timed.

    Attributes:
        batches, concurrency: settings; the first of each is the one that CPU time is read from.
        calls: timed calls per setting, fewer where time runs out (never below five).
        budget_s: time for all settings, of which the first gets two fifths.
        seed: of the draw of texts.
    """

    batches: tuple[int, ...] = (1, 8)
    concurrency: tuple[int, ...] = (1, 4)
    calls: int = 1000
    budget_s: float = 4.0
    seed: int = 0

    @property
    def settings(self) -> list[tuple[int, int]]:
        """Pairs of batch size and callers, in the order of timing."""
        return [(batch, callers) for callers in self.concurrency for batch in self.batches]


@dataclass(frozen=True)
class Measurement:
    """What was measured of one variant; the names are those of the manifest's `Variant`."""

    latency: tuple[Latency, ...]
    cpu_seconds_per_1k: float
    usd_per_1k: float
    energy_wh_per_1k: float | None
    energy_provenance: EnergyProvenance


def measure_variant(
    loaded: LoadedVariant,
    texts: Sequence[str],
    plan: TimingPlan,
    *,
    threads: int = 1,
    provider: Provider = "cpu",
    meter: EnergyMeter | None = None,
    prices: Prices | None = None,
) -> Measurement:
    """Time a variant at every batch size and concurrency, encoding included.

    Each caller sends its next call when the last one is answered. Texts are drawn with
    replacement, so lengths have the mix of `texts`. p99 comes with the distribution-free interval by order
    statistics where there are calls enough for one.

    Args:
        loaded: the variant, loaded with `threads` and `provider`.
        texts: a sample of real traffic.
        plan: what is timed, and for how long.
        threads, provider: as loaded, for the record.
        meter: a running meter; energy is its dynamic energy per CPU-second, while the variant was timed,
            times this variant's CPU time.
        prices: of a core; by default those shipped.
    """
    rng = np.random.default_rng(plan.seed)
    settings = plan.settings
    _warm_up(loaded, texts, max(plan.batches), plan.budget_s * _WARM_UP_SHARE)
    found: list[Latency] = []
    cpu_seconds_per_1k = 0.0
    untimed = None if meter is None else meter.read()
    for number, (batch, callers) in enumerate(settings):
        rest = max(len(settings) - 1, 1)
        share = _FIRST_SHARE if number == 0 else (1 - _FIRST_SHARE - _WARM_UP_SHARE) / rest
        samples = _draw(texts, batch, plan.calls, rng)
        before = time.process_time()
        timed = _timed(loaded, samples, callers, plan.budget_s * share)
        if number == 0:
            cpu_seconds_per_1k = (time.process_time() - before) / (len(timed) * batch) * 1000
        found.append(
            Latency(
                batch=batch,
                concurrency=callers,
                threads=threads,
                provider=provider,
                n=len(timed),
                p50_ms=exact_quantile(timed, 0.5),
                p99_ms=exact_quantile(timed, 0.99),
                p99_interval_ms=quantile_interval(timed, 0.99),
                mean_tokens=_mean_length(loaded, samples),
            )
        )
    timed_all = None if meter is None else meter.read()
    per_cpu_second = _joules_per_cpu_second(untimed, timed_all)
    return Measurement(
        latency=tuple(found),
        cpu_seconds_per_1k=cpu_seconds_per_1k,
        usd_per_1k=usd_per_1k_from_seconds(cpu_seconds_per_1k, (prices or load_prices()).usd_per_core_hour),
        energy_wh_per_1k=None if per_cpu_second is None else per_cpu_second * cpu_seconds_per_1k / 3600,
        energy_provenance=("none" if per_cpu_second is None or timed_all is None else timed_all.provenance),
    )


def _joules_per_cpu_second(before: EnergyReading | None, after: EnergyReading | None) -> float | None:
    """Return what a busy CPU-second cost between two readings, or since the meter's start if they are close.

    A graphics processor or another clock rate makes a CPU-second of training dearer than one of serving; but
    a meter's totals may be a second old, which a short window cannot bear.
    """
    if before is None or after is None:
        return None
    window = after.since(before)
    return (window if window.wall_s >= _LEAST_WINDOW_S else after).dynamic_joules_per_cpu_second


def _draw(texts: Sequence[str], batch: int, calls: int, rng: np.random.Generator) -> list[list[str]]:
    rows = rng.integers(0, len(texts), size=(calls, batch))
    return [[texts[i] for i in row] for row in rows]


def _mean_length(loaded: LoadedVariant, samples: list[list[str]]) -> float:
    some = [text for sample in samples[:100] for text in sample[:8]]
    return float(loaded.encoder.encode(some).lengths.mean())


def _warm_up(loaded: LoadedVariant, texts: Sequence[str], batch: int, budget_s: float) -> None:
    """Run the longest texts first: memory grows and caches fill before the clock starts."""
    longest = sorted(texts, key=len, reverse=True)[:batch]
    end = time.perf_counter() + min(budget_s, _WARM_UP_S)
    loaded.logits(longest)
    loaded.logits(longest[:1])
    while time.perf_counter() < end:
        loaded.logits(longest[-1:])


def _timed(loaded: LoadedVariant, samples: list[list[str]], callers: int, budget_s: float) -> list[float]:
    """Return the latency of each call in ms, until the samples or the time are used up."""
    end = time.perf_counter() + budget_s
    todo = iter(enumerate(samples))
    lock = threading.Lock()
    found: list[float] = []
    problems: list[BaseException] = []

    def call() -> None:
        try:
            while not problems:
                with lock:
                    number, sample = next(todo, (-1, []))
                if number < 0 or (number >= _LEAST_CALLS and time.perf_counter() > end):
                    return
                start = time.perf_counter()
                loaded.logits(sample)
                found.append((time.perf_counter() - start) * 1000)
        except BaseException as problem:  # noqa: BLE001 (handed to the caller's thread)
            problems.append(problem)

    _together(call, callers)
    if problems:
        raise problems[0]
    return found


def _together(work: Callable[[], None], callers: int) -> None:
    if callers == 1:
        work()
        return
    threads = [threading.Thread(target=work, name=f"caller-{i}") for i in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
