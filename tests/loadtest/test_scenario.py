"""Arms of one gateway compared, on servers of known speed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from contract.errors import InputError
from contract.run import read_summary
from loadtest.comparison import FULL, Effort
from loadtest.reference import Behaviour, serving
from loadtest.runner import LoadPlan
from loadtest.scenario import compare, objective_for
from loadtest.search import Search
from loadtest.sweep import StepProgress
from tables.labelled import from_rows
from tests.loadtest.tables import summary_of, table

TEXTS = from_rows([(f"l{i % 3} {i}", f"l{i % 3}") for i in range(30)])
TINY = Effort(
    equal_s=0.6, repeats=2, step_s=0.6, warmup_s=0.1, probe_s=0.4, idle_s=0.2,
    search=Search(resolution=1.5, max_steps=2, min_requests=0, confirm=0),
)  # fmt: skip


@pytest.mark.timing
def test_arms_are_compared_at_one_rate_and_at_their_own(tmp_path: Path) -> None:
    """The fast arm has the higher capacity; at the equal rate both were asked the same texts in turns."""
    models = {"large": Behaviour(service_ms=40, variant="t"), "small": Behaviour(service_ms=4, variant="s")}
    seen: list[StepProgress] = []
    with serving(Behaviour(idle_watts=10), models) as server:
        plan = LoadPlan(server.url, TEXTS, 1, 1, slo_ms=500)
        found = compare(
            plan, {"teacher": "large", "single": "small"}, tmp_path, effort=TINY, progress=seen.append
        )
    teacher, single = found.arms
    assert (found.reference, found.arm("single")) == ("teacher", single)
    assert (teacher.capacity.rate_per_s or 0) < (single.capacity.rate_per_s or 0)
    assert found.equal_rate_per_s <= 0.7 * (teacher.capacity.rate_per_s or 0)
    assert found.idle_watts == pytest.approx(10, rel=0.1)
    for arm, variant in ((teacher, "t"), (single, "s")):
        assert [s.rate_asked_per_s for s in arm.equal] == [found.equal_rate_per_s] * 2
        assert [read_summary(run) for run in arm.equal_runs] == list(arm.equal)
        assert variant in arm.equal[0].by_variant
        assert arm.equal[0].energy_wh_per_1k is not None
    assert [s.seed for s in teacher.equal] == [s.seed for s in single.equal]
    written = json.loads((tmp_path / "comparison.json").read_text())
    assert [arm["name"] for arm in written["arms"]] == ["teacher", "single"]
    assert (tmp_path / written["arms"][0]["equal_runs"][0] / "summary.json").exists()
    assert seen[-1].step == seen[-1].steps


def test_runs_at_the_equal_rate_are_long_enough_for_an_interval_of_p99() -> None:
    """Where the rate is low the runs grow until their repeats hold 368 answers, up to a limit."""
    assert FULL.equal_s_at(1000) == FULL.equal_s
    for rate in (15.0, 20.0, 32.0):
        assert FULL.equal_s_at(rate) * FULL.repeats * rate >= 368
    assert FULL.equal_s_at(0.1) == FULL.longest_equal_s


def test_an_objective_is_a_bucket_edge_above_the_slowest_arm() -> None:
    """Six times the slowest median, at least 20 ms, rounded up to an edge of the gateway's histogram."""
    slow, fast = summary_of(table([11.0] * 10)), summary_of(table([1.0] * 10))
    assert objective_for([fast, slow]) == 75.0
    assert objective_for([fast]) == 20.0


def test_arms_that_do_not_answer_are_named(tmp_path: Path) -> None:
    """No arms, or an arm that only fails, is an input error."""
    with serving(Behaviour(error_every=1)) as server:
        plan = LoadPlan(server.url, TEXTS, 1, 1)
        with pytest.raises(InputError, match="no arms"):
            compare(plan, {}, tmp_path, effort=TINY)
        with pytest.raises(InputError, match="'m' answered none"):
            compare(plan, {"arm": "m"}, tmp_path, effort=TINY)
