"""The search for capacity, and curves over rates."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import InputError
from contract.run import read_summary
from loadtest.reference import Behaviour, serving
from loadtest.runner import LoadPlan
from loadtest.search import Outcome, Search, Step, bracket, capacity_of, confirm, easy_rate, judge
from loadtest.sweep import StepProgress, run_sweep
from tables.labelled import from_rows
from tests.loadtest.tables import summary_of, table

TEXTS = from_rows([(f"l{i % 3} {i}", f"l{i % 3}") for i in range(30)])
SUMMARY = summary_of(table([1.0] * 10))


def _server(capacity: float, tried: list[float]) -> Callable[[float], Step]:
    def climb(rate: float) -> Step:
        tried.append(rate)
        outcome: Outcome = "held" if rate <= capacity else "missed"
        return Step(rate, outcome, "", SUMMARY)

    return climb


@given(capacity=st.floats(1, 4000), start=st.floats(0.6, 4000), resolution=st.floats(0.02, 0.5))
def test_the_search_closes_in_on_any_capacity(capacity: float, start: float, resolution: float) -> None:
    """From any first rate the bracket holds the capacity, as tight as asked."""
    held, lost = bracket(_server(capacity, []), Search(resolution=resolution, max_steps=40), start)
    assert held is not None
    assert held.rate_per_s <= capacity
    assert lost is not None
    assert capacity < lost.rate_per_s <= held.rate_per_s * (1 + resolution) * (1 + 1e-9)


def test_the_search_stays_within_its_bounds() -> None:
    """A server faster than the highest rate, or slower than the lowest, ends the search there."""
    tried: list[float] = []
    held, lost = bracket(_server(1e9, tried), Search(high_per_s=100), 30)
    assert (held.rate_per_s if held else None, lost, max(tried)) == (100, None, 100)
    held, lost = bracket(_server(0, tried := []), Search(low_per_s=5), 30)
    assert (held, lost.rate_per_s if lost else None, min(tried)) == (None, 5, 5)
    bracket(_server(50, tried := []), Search(max_steps=3), 1)
    assert len(tried) == 3


@given(border=st.floats(60, 900), start=st.floats(400, 900))
def test_a_generator_that_is_late_bounds_the_search(border: float, start: float) -> None:
    """Above what the generator can send the search is bounded, not halved below what a probe showed easy."""
    tried: list[float] = []

    def climb(rate: float) -> Step:
        tried.append(rate)
        return Step(rate, "void" if rate > border else "held", "", SUMMARY)

    held, lost = bracket(climb, Search(easy_per_s=50, resolution=0.1, max_steps=12), start)
    assert held is not None
    assert min(tried) >= 50
    assert held.rate_per_s <= border
    assert lost is None or lost.outcome == "void"
    assert lost is None or lost.rate_per_s <= held.rate_per_s * 1.1 * (1 + 1e-9)


def test_no_rate_is_tried_below_one_that_is_easy() -> None:
    """When every rate is void the search and the longer runs end at the easy rate."""
    tried: list[float] = []

    def void(rate: float) -> Step:
        tried.append(rate)
        return Step(rate, "void", "", SUMMARY)

    held, _ = bracket(void, Search(easy_per_s=10, max_steps=12), 300)
    assert held is None
    assert min(tried) >= 10
    assert confirm(void, Search(easy_per_s=10, step_downs=50), 12, None)[0] == ()
    assert min(tried) >= 10


def test_a_capacity_that_the_generator_limits_is_a_lower_bound() -> None:
    """Without a rate that the server did not hold there is no interval, and the method says why."""
    summary = summary_of(table([10.0] * 1000))
    held, void = Step(100, "held", "", summary), Step(110, "void", "", summary)
    found = capacity_of("m", 50.0, (held,), True, void, (held, void))
    assert (found.limited_by, found.interval_per_s, found.usd_interval) == ("generator", None, None)
    assert "lower bound" in found.method
    missed = Step(110, "missed", "", summary)
    assert capacity_of("m", 50.0, (held,), True, missed, (held, missed)).interval_per_s == (100, 110)


def test_a_probe_shows_what_is_easy() -> None:
    """The rate of a probe is easy when all was answered within half of the objective."""
    assert easy_rate(summary_of(table([10.0] * 10)), 20.0) == 100
    assert easy_rate(summary_of(table([11.0] * 10)), 20.0) is None
    assert easy_rate(summary_of(table([1.0] * 10, status=[200] * 9 + [500])), 20.0) is None


def test_a_rate_counts_only_when_all_longer_runs_hold_it() -> None:
    """A rate that fails one of its longer runs is lowered until none fails."""
    bounds = Search(confirm=3, resolution=0.1)
    runs, lost = confirm(_server(100, []), bounds, 110, None)
    assert [run.rate_per_s for run in runs] == [pytest.approx(100.0)] * 3
    assert lost is not None
    assert lost.rate_per_s == 110
    runs, lost = confirm(_server(1, []), bounds, 110, None)
    assert runs == ()
    assert lost is not None


@pytest.mark.parametrize(
    ("outcome", "reason", "summary"),
    [
        ("held", "within", summary_of(table([10.0] * 1000))),
        ("missed", "p99", summary_of(table([10.0] * 980 + [60.0] * 20))),
        ("missed", "failed", summary_of(table([10.0] * 1000, status=[200] * 998 + [500] * 2))),
        ("held", "within", summary_of(table([10.0] * 1000, status=[200] * 999 + [500]))),
        ("missed", "more than 1%", summary_of(table([10.0] * 100), early=True)),
        ("void", "send lag", summary_of(table([10.0] * 100, lag_ms=5.0))),
        ("void", "send lag", summary_of(table([10.0] * 100, lag_ms=5.0), early=True)),
        ("void", "no request", summary_of(table([1.0]).slice(0, 0))),
    ],
)
def test_a_rate_is_held_missed_or_void(outcome: str, reason: str, summary: object) -> None:
    """Held: p99 within the objective, under 0.1% errors; a generator that was late voids either verdict."""
    found, why = judge(summary)  # type: ignore[arg-type]
    assert (found, reason in why) == (outcome, True)


@pytest.mark.timing
def test_a_queue_of_known_speed_is_found(tmp_path: Path) -> None:
    """One worker with 25 ms of service cannot hold more than 40 per second, and holds a good part of it."""
    seen: list[StepProgress] = []
    with serving(Behaviour(service_ms=25)) as server:
        plan = LoadPlan(server.url, TEXTS, 1, 1.0, slo_ms=300, warmup_s=0.2)
        search = Search(start_per_s=25, resolution=0.6, max_steps=3, min_requests=0, confirm=1, confirm_s=1.0)
        sweep = run_sweep(plan, search=search, out=tmp_path, progress=seen.append)
    capacity = sweep.capacity
    assert capacity is not None
    assert 12 <= (capacity.rate_per_s or 0) <= 52
    assert capacity.confirmed
    assert capacity.interval_per_s is None or capacity.interval_per_s[0] <= capacity.interval_per_s[1]
    assert capacity.usd_per_1k == pytest.approx(read_summary(capacity.runs[0]).usd_per_1k)
    written = json.loads((tmp_path / "sweep.json").read_text())
    assert written["capacity"]["rate_per_s"] == capacity.rate_per_s
    for step in written["steps"]:
        assert read_summary(tmp_path / step["run"]).p99_ms == step["p99_ms"]
    assert {p.title for p in seen}


@pytest.mark.timing
def test_a_curve_drives_each_rate_once_lowest_first(tmp_path: Path) -> None:
    """Given rates are run in order and to their end, and written as runs."""
    with serving(Behaviour(delay_ms=10)) as server:
        plan = LoadPlan(server.url, TEXTS, 1, 0.5, slo_ms=100, warmup_s=0.0)
        sweep = run_sweep(plan, rates=[60, 20], out=tmp_path)
    assert [step.rate_per_s for step in sweep.steps] == [20, 60]
    assert [step.summary.n for step in sweep.steps] == [10, 30]
    assert sweep.capacity is None
    assert json.loads((tmp_path / "sweep.json").read_text())["capacity"] is None


def test_a_capacity_needs_an_objective() -> None:
    """Without an objective the search refuses by name."""
    with pytest.raises(InputError, match="objective"):
        run_sweep(LoadPlan("http://127.0.0.1:1", TEXTS, 1, 1))
