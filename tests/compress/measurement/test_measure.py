"""Measuring a variant: the figures are consistent, and no call is lost."""

from __future__ import annotations

import pytest

from compress.measurement.measure import TimingPlan, measure_variant
from contract.prices import load_prices
from runtime.api import LoadedVariant
from runtime.energy import EnergyMeter, EnergyReading
from runtime.fake import FakeEncoder, FakeModel, FakeRuntime

LABELS = ("a", "b", "c")


def fake(**behaviour: float) -> LoadedVariant:
    """A fake variant."""
    model = FakeModel.model_validate({"labels": LABELS, **behaviour})
    return LoadedVariant("fake", "0" * 64, LABELS, 1.0, FakeEncoder(), FakeRuntime(model))


def test_every_setting_is_timed() -> None:
    """Batch and concurrency are crossed, each with all its calls, never faster than the variant can be."""
    found = measure_variant(
        fake(delay_ms=0.5), ["xx", "yyyy"], TimingPlan(calls=20, budget_s=30.0), threads=2
    )
    assert [(m.batch, m.concurrency) for m in found.latency] == [(1, 1), (8, 1), (1, 4), (8, 4)]
    for timed in found.latency:
        assert timed.n == 20
        assert timed.threads == 2
        assert 0.5 * timed.batch <= timed.p50_ms <= timed.p99_ms
        assert timed.p99_interval_ms is None
        assert timed.mean_tokens is not None
        assert 2 <= timed.mean_tokens <= 4


def test_p99_has_an_interval_where_there_are_calls_enough() -> None:
    """With 400 calls the interval holds the p99."""
    found = measure_variant(
        fake(), ["x"], TimingPlan(batches=(1,), concurrency=(1,), calls=400, budget_s=60.0)
    )
    (timed,) = found.latency
    assert timed.p99_interval_ms is not None
    assert timed.p99_interval_ms[0] <= timed.p99_ms <= timed.p99_interval_ms[1]


def test_time_that_runs_out_leaves_a_few_calls() -> None:
    """A budget of nothing still gives five calls per setting."""
    found = measure_variant(fake(), ["x"], TimingPlan(calls=50, budget_s=0.0))
    assert {timed.n for timed in found.latency} == {5}


def test_energy_and_money_follow_cpu_time() -> None:
    """Both are CPU-seconds times a price, and energy without a meter is unknown, not 0."""
    prices = load_prices().model_copy(update={"usd_per_core_hour": 3600.0})
    with EnergyMeter(watts_per_core=3600.0) as meter:
        found = measure_variant(fake(), ["x"], TimingPlan(calls=50), meter=meter, prices=prices)
    assert found.cpu_seconds_per_1k > 0
    assert found.usd_per_1k == pytest.approx(found.cpu_seconds_per_1k)
    assert found.energy_wh_per_1k == pytest.approx(found.cpu_seconds_per_1k)
    assert found.energy_provenance == "user-constant"
    without = measure_variant(fake(), ["x"], TimingPlan(calls=5))
    assert (without.energy_wh_per_1k, without.energy_provenance) == (None, "none")


class Ticking(EnergyMeter):
    """A meter of two readings: a dear CPU-second before the timing, a cheap one while it lasts."""

    def __init__(self, wall_s: float) -> None:
        super().__init__(watts_per_core=1.0)
        self._readings = [reading(1000.0, 10.0, 100.0), reading(1040.0, 20.0, 100.0 + wall_s)]

    def read(self) -> EnergyReading:
        """Return the next reading."""
        return self._readings.pop(0)


def reading(dynamic_joules: float, cpu_seconds: float, wall_s: float) -> EnergyReading:
    """A reading of the processor's own counters."""
    return EnergyReading(dynamic_joules, dynamic_joules, cpu_seconds, wall_s, "measured-rapl")


@pytest.mark.parametrize(("wall_s", "joules"), [(10.0, 40 / 10), (0.5, 1040 / 20)])
def test_energy_is_that_of_the_time_that_was_timed(wall_s: float, joules: float) -> None:
    """A CPU-second costs what it cost while the variant ran; in too short a time, what it cost so far."""
    found = measure_variant(fake(), ["x"], TimingPlan(calls=5), meter=Ticking(wall_s))
    assert found.energy_wh_per_1k == pytest.approx(joules * found.cpu_seconds_per_1k / 3600)
    assert found.energy_provenance == "measured-rapl"


def test_an_error_of_the_variant_comes_through() -> None:
    """A variant that fails under concurrency fails the measurement."""
    with pytest.raises(RuntimeError, match="fake error"):
        measure_variant(fake(error_rate=1.0), ["x"], TimingPlan(concurrency=(4,), calls=5))
