"""The comparison of arms: paired where it can be, with an interval or the reason why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.errors import RunError
from report.analysis.arms import Arm, Searched, compare
from report.format.tables import to_markdown
from report.sections.run_tables import arms_table, runs_table, shares_table

Make = Any


def test_every_figure_has_an_interval_or_says_why_not(comparison: dict[str, Any]) -> None:
    """A figure without an interval names the reason; intervals hold their value."""
    seen = 0
    for arm in comparison["arms"]:
        for part in (arm["equal"], arm["capacity"]):
            for figure in part.values():
                if isinstance(figure, dict):
                    seen += 1
                    assert figure["method"]
                    if figure["interval"] is not None:
                        low, high = figure["interval"]
                        assert low <= figure["value"] <= high
    assert seen > 20


def test_comparison_is_json(comparison: dict[str, Any]) -> None:
    """It is written as it is, without NaN or infinity."""
    again = json.loads(json.dumps(comparison, allow_nan=False))
    assert [arm["name"] for arm in again["arms"]] == [arm["name"] for arm in comparison["arms"]]


def test_paired_drop_is_tighter_than_two_intervals(comparison: dict[str, Any]) -> None:
    """The drop's interval is narrower than the two accuracies' intervals together."""
    first, _, last = (arm["equal"] for arm in comparison["arms"])
    low, high = last["accuracy_drop"]["interval"]
    widths = [np.diff(part["accuracy"]["interval"])[0] for part in (first, last)]
    assert high - low < sum(widths)
    expected = first["accuracy"]["value"] - last["accuracy"]["value"]
    assert last["accuracy_drop"]["value"] == pytest.approx(expected, abs=0.01)


def test_texts_asked_again_do_not_narrow_the_interval(make_run: Make) -> None:
    """Accuracy over the same 300 texts asked more often keeps the interval of 300 texts."""
    short = make_run("short", seconds=10)
    long = make_run("long", seconds=40)
    widths = []
    for run in (short, long):
        low, high = compare([Arm("a", "cascade", (run,))])["arms"][0]["equal"]["accuracy"]["interval"]
        widths.append(high - low)
    assert widths[1] == pytest.approx(widths[0], rel=0.1)


def test_one_run_gets_a_block_bootstrap_of_its_tail(make_run: Make) -> None:
    """p99 of a single run has an interval around it, and says how."""
    figure = compare([Arm("a", "cascade", (make_run("one", seconds=20),))])["arms"][0]["equal"]["p99_ms"]
    assert "block bootstrap" in figure["method"]
    assert figure["interval"][0] < figure["interval"][1]


def test_repeats_are_pooled_for_the_tail(make_run: Make) -> None:
    """p99 of three short runs is that of all answers, with an interval by rank and not over three numbers."""
    runs = tuple(make_run(f"pool-{i}", seconds=12, service_ms=5 if i else 15, seed=i) for i in range(3))
    figure = compare([Arm("a", "cascade", runs)])["arms"][0]["equal"]["p99_ms"]
    low, high = figure["interval"]
    assert "order statistics, 1,440 answers" in figure["method"]
    assert 0 < low < figure["value"] < high
    few = compare([Arm("a", "cascade", (make_run("few", seconds=5),))])["arms"][0]["equal"]["p99_ms"]
    assert few["interval"] is None
    assert "200 answers are too few" in few["method"]


def test_arms_that_answer_alike_are_not_surely_alike(make_run: Make) -> None:
    """No text answered differently gives a drop of 0 with an interval that has a width."""
    runs = [make_run(f"alike-{i}", seconds=10, seed=5) for i in range(2)]
    drop = compare([Arm(str(run), "cascade", (run,)) for run in runs])["arms"][1]["equal"]["accuracy_drop"]
    assert drop["value"] == 0
    assert drop["interval"][0] < -0.005
    assert drop["interval"][1] > 0.005


def _at_capacity(make_run: Make, search: Searched, **facts: Any) -> dict[str, Any]:
    runs = tuple(make_run(f"held-{i}", seconds=12, goodput_per_s=40.0, usd_per_1k=6e-4) for i in range(3))
    found: dict[str, Any] = compare([Arm("a", "cascade", runs, runs, search)])
    return found


def test_capacity_is_as_uncertain_as_its_search(make_run: Make) -> None:
    """Three runs of one count still leave the way to the lowest rate not held; price turns it over."""
    found = _at_capacity(make_run, Searched(41.0, "server", True, (40.0, 44.0)))
    capacity = found["arms"][0]["capacity"]
    assert capacity["goodput_per_s"]["interval"] == (40.0, 44.0)
    assert capacity["usd_per_1k"]["interval"] == pytest.approx((6e-4 * 40 / 44, 6e-4))
    assert "lowest not held" in capacity["goodput_per_s"]["method"]


def test_a_generators_limit_is_not_shown_as_the_servers(make_run: Make) -> None:
    """Where the generator was the limit capacity is a lower bound and price an upper one, and said so."""
    found = _at_capacity(make_run, Searched(41.0, "generator", True, None))
    capacity = found["arms"][0]["capacity"]
    assert (capacity["goodput_per_s"]["bound"], capacity["goodput_per_s"]["interval"]) == ("at least", None)
    assert (capacity["usd_per_1k"]["bound"], capacity["usd_per_1k"]["interval"]) == ("at most", None)
    table = arms_table(found)
    assert [row.cells[1][0] for row in table.rows if row.cells[0] in ("goodput per s", "USD per 1,000")] == [
        "≥", "≤",
    ]  # fmt: skip
    assert any("load generator was the limit" in note for note in table.notes)


def test_an_arm_that_holds_no_rate_is_named(make_run: Make) -> None:
    """The table says that an arm held no rate, in place of a figure."""
    run = make_run("no-rate", seconds=10)
    table = arms_table(compare([Arm("slow", "cascade", (run,), (), Searched(None, "server", False, None))]))
    assert any("slow: no rate was held" in note for note in table.notes)


def test_runs_that_do_not_say_which_texts_have_no_paired_interval(make_run: Make) -> None:
    """Without rows the difference stands without an interval, and says so."""
    import pyarrow as pa

    from contract.run import read_requests, read_summary, write_run

    folders = []
    for name in ("x", "y"):
        source = make_run(f"norow-{name}", seed=3 if name == "x" else 4)
        table = read_requests(source)
        blank = table.set_column(table.column_names.index("row"), "row", pa.nulls(table.num_rows, pa.int64()))
        folder = source.parent / f"blank-{name}"
        write_run(folder, blank, read_summary(source))
        folders.append(folder)
    found = compare([Arm(f.name, "cascade", (f,)) for f in folders])
    assert found["arms"][1]["equal"]["accuracy_drop"]["interval"] is None


def test_an_arm_without_a_run_is_refused() -> None:
    """There is nothing to compare without runs at the equal rate."""
    with pytest.raises(RunError, match="at least one run"):
        compare([Arm("a", "cascade", ())])


def test_failed_requests_count_in_nothing_but_the_errors(make_run: Make, tmp_path: Path) -> None:
    """A request without an answer has no latency quantile, and is not wrong but unanswered."""
    import pyarrow as pa

    from contract.run import read_requests, read_summary, write_run

    source = make_run("failing", seconds=10)
    table = read_requests(source)
    nothing = table.set_column(
        table.column_names.index("status"), "status", pa.array([503] * table.num_rows, pa.int32())
    )
    write_run(tmp_path / "failed", nothing, read_summary(source))
    found = compare([Arm("a", "cascade", (tmp_path / "failed",))])["arms"][0]["equal"]
    assert found["p99_ms"]["value"] is None
    assert found["accuracy"]["value"] is None


def test_final_table_names_void_arms_and_methods(comparison: dict[str, Any], make_run: Make) -> None:
    """A void arm is marked with its reason, and the last column says how intervals were made."""
    void = make_run("void", valid=False, void_reason="the generator was late", seconds=10)
    table = arms_table(compare([Arm("late", "cascade", (void,))]))
    assert table.columns[1] == "late: cascade (void)"
    assert any("the generator was late" in note for note in table.notes)
    final = arms_table(comparison)
    assert final.columns[-1] == "interval"
    assert "| USD per 1,000 |" in to_markdown(final)
    assert all(len(row.cells) == len(final.columns) for row in final.rows)


def test_tables_of_runs_leave_out_what_nobody_measured(make_run: Make) -> None:
    """A column that is unknown for all runs is gone, and a run of one variant has no table of shares."""
    from contract.run import VariantShare, read_summary

    bare = read_summary(make_run("bare", energy_wh_per_1k=None, gco2e_per_1k=None, seconds=5))
    table = runs_table([("bare", bare)])
    assert "Wh/1k" not in table.columns
    assert "p99 ms" in table.columns
    assert shares_table("bare", bare) is None
    two = {"a": VariantShare(n=3, share=0.75, accuracy=1.0), "b": VariantShare(n=1, share=0.25)}
    shares = shares_table("two", bare.model_copy(update={"by_variant": two}))
    assert shares is not None
    assert [row.cells[0] for row in shares.rows] == ["a", "b"]
    odd = runs_table([("odd", bare.model_copy(update={"doubts": ("answers in other names",)}))])
    assert "odd: answers in other names." in odd.notes
