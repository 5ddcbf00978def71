"""Money, carbon and the recommendation, on accounts computed by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contract.errors import InputError, RunError
from report.analysis.decide import decide, decide_runs, decision_table, lead
from report.analysis.economics import Business, Option, account, read_business
from report.analysis.options import options_from_comparison, options_from_runs

TEACHER = Option("teacher", 0.96, (0.94, 0.97), 0.002, (0.0018, 0.0022), 0.04, "estimated-load", 90.0)
CASCADE = Option("cascade", 0.955, (0.935, 0.965), 0.0005, (0.0004, 0.0006), 0.01, "estimated-load", 15.0)
BUSINESS = Business(
    requests_per_month=10_000_000,
    usd_per_error=0.001,
    utilisation=0.5,
    usd_per_kwh=0.25,
    usd_per_tonne_co2e=100,
    pue=1.2,
    grid_g_per_kwh=400,
)


def test_account_by_hand() -> None:
    """0.002 USD/1k x 10,000 / 0.5 = 40; 4% wrong x 0.001 = 400; 0.4 kWh x 1.2; 0.192 kg."""
    found = account(TEACHER, BUSINESS)
    assert found.compute_usd == pytest.approx(40)
    assert found.errors == pytest.approx(400_000)
    assert found.error_usd == pytest.approx(400)
    assert found.energy_kwh == pytest.approx(0.48)
    assert found.energy_usd == pytest.approx(0.12)
    assert found.kg_co2e == pytest.approx(0.192)
    assert found.carbon_usd == pytest.approx(0.0192)
    assert found.total_usd == pytest.approx(440.1392)
    low, high = found.total_interval or (0, 0)
    assert low == pytest.approx(440.1392 - 4 - 100)
    assert high == pytest.approx(440.1392 + 4 + 200)


def test_a_priced_part_that_was_not_measured_leaves_the_total_unknown() -> None:
    """Energy that costs money but was not measured is not counted as nothing."""
    blind = replace(TEACHER, energy_wh_per_1k=None)
    assert account(blind, BUSINESS).total_usd is None
    assert account(blind, Business()).total_usd == pytest.approx(2.0)
    decision = decide([blind], BUSINESS)
    assert decision.chosen is None


def test_errors_decide_when_they_cost_and_machines_when_they_do_not() -> None:
    """The same two options, two businesses, two winners."""
    costly = decide([TEACHER, CASCADE], Business(requests_per_month=1e7, usd_per_error=0.01))
    free = decide([TEACHER, CASCADE], Business(requests_per_month=1e7))
    assert costly.chosen == "teacher"
    assert free.chosen == "cascade"
    assert any("priced at nothing" in reason for reason in free.reasons)


def test_pairing_makes_a_decision_sure_that_separate_intervals_leave_open() -> None:
    """Compared text by text the cascade loses 0.4 to 0.6 points, and that decides."""
    business = Business(requests_per_month=1e7, usd_per_error=0.01)
    paired = replace(CASCADE, baseline="teacher", drop_interval=(0.004, 0.006))
    assert not decide([TEACHER, CASCADE], business).sure
    assert decide([TEACHER, paired], business).sure
    low, high = lead(TEACHER, paired, business) or (0, 0)
    assert low == pytest.approx(0.004 * 1e5 - 15 - 3)
    assert high == pytest.approx(0.006 * 1e5 - 15 + 3)
    back = lead(paired, TEACHER, business) or (0, 0)
    assert back == pytest.approx((-high, -low))


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ({"max_p99_ms": 50}, "p99 90.0 ms is over"),
        ({"min_accuracy": 0.958}, "accuracy 95.5% is under"),
        ({"max_accuracy_drop": 0.004}, "accuracy drop +0.5 points is over"),
    ],
)
def test_options_beyond_a_limit_are_refused_with_the_reason(limit: dict[str, float], reason: str) -> None:
    """Each limit puts one option out and says why."""
    decision = decide([TEACHER, CASCADE], Business.model_validate(limit))
    refused = [judged for judged in decision.judged if judged.refused]
    assert len(refused) == 1
    assert reason in refused[0].refused
    assert decision.chosen not in {None, refused[0].option.name}


def test_no_option_left_is_a_result() -> None:
    """Impossible limits choose nothing and say so."""
    decision = decide([TEACHER, CASCADE], Business(max_p99_ms=1))
    assert decision.chosen is None
    assert "no option keeps the limits" in decision.reasons[0]
    assert decide([], Business()).chosen is None


def test_decision_is_json_and_a_table(comparison: dict[str, Any]) -> None:
    """It dumps without NaN, and the table marks the recommendation."""
    decision = decide(options_from_comparison(comparison), Business(requests_per_month=1e6))
    text = json.dumps(decision.dump(), allow_nan=False)
    assert json.loads(text)["chosen"] == decision.chosen == "cascade"
    strong = [row for row in decision_table(decision).rows if row.emphasis == "strong"]
    assert [row.cells[0] for row in strong] == ["cascade"]


def test_runs_of_one_model_are_one_option(make_run: Any) -> None:
    """Accuracy is pooled, p99 is of the calm run, price and energy of the busy one."""
    calm = make_run("calm", rate=20.0, seconds=20, seed=1)
    busy = make_run("busy", rate=100.0, seconds=20, seed=2)
    void = make_run("lost", valid=False, void_reason="late", rate=500.0, seconds=2)
    other = make_run("other", "teacher", seconds=5)
    options = {option.name: option for option in options_from_runs([calm, busy, void, other])}
    assert set(options) == {"cascade", "teacher"}
    from contract.run import read_summary

    assert options["cascade"].p99_ms == read_summary(calm).p99_ms
    assert options["cascade"].usd_per_1k == read_summary(busy).usd_per_1k
    assert options["cascade"].n == 2400
    assert decide_runs([calm, other], Business()).chosen is not None


def test_only_void_runs_are_refused_with_their_reasons(make_run: Any) -> None:
    """There is nothing to decide on, and the message says why."""
    void = make_run("late", valid=False, void_reason="the generator was late", seconds=2)
    with pytest.raises(RunError, match="late: the generator was late"):
        options_from_runs([void])
    with pytest.raises(RunError, match="no runs were given"):
        options_from_runs([])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("usd_per_eror: 1", "usd_per_eror"),
        ("requests_per_month: 0", "requests_per_month"),
        ("grid: atlantis", "atlantis"),
        ("- 1", "mapping"),
        ("a: [", "YAML"),
    ],
)
def test_business_files_are_refused_by_name(tmp_path: Path, text: str, problem: str) -> None:
    """A misspelt key, a wrong value or an unknown place is named."""
    path = tmp_path / "business.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=problem):
        read_business(path)


def test_business_defaults_and_files(tmp_path: Path) -> None:
    """No file is the defaults; an empty file too; a place has its own intensity."""
    path = tmp_path / "business.yaml"
    path.write_text("")
    assert read_business(None) == read_business(path) == Business()
    path.write_text("grid: fra\nusd_per_error: 0.1")
    assert read_business(path).intensity() == 44
    with pytest.raises(InputError, match="no such file"):
        read_business(tmp_path / "absent.yaml")
