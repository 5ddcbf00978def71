"""Policies in words, their trade-off, and the tables and frontier of a family."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from contract.costs import read_costs
from contract.errors import InputError
from contract.family import Family, StepCost
from contract.mix import Cell, Mix
from contract.policy import CertifiedTarget, Gear, Limits, Policy, Stage, single_variant_policy
from contract.predictions import Predictions
from report.format.tables import Row, Table, to_markdown, to_rich
from report.render import Evidence, render_report
from report.sections.family_parts import (
    classes_table,
    faithfulness_table,
    losses_table,
    making_table,
    slices_table,
    steps_table,
)
from report.sections.family_sections import frontier_in_words
from report.sections.family_tables import (
    inspect_table,
    latency_table,
    resources_table,
    variants_table,
    verdicts_table,
)
from report.sections.frontier import AXES, beaten_by, best_by, frontier_chart, write_frontier
from report.sections.policy_text import (
    certificate_in_words,
    expected_in_words,
    gears_in_words,
    path_in_words,
)
from report.sections.tradeoff import choices_table, tradeoff, tradeoff_chart


def test_path_of_a_text_in_words(policy: Policy) -> None:
    """Every stage, threshold, temperature and class rule is said once."""
    said = path_in_words(policy)
    assert len(said) == 4
    assert "first to linear" in said[0]
    assert "divided by 1.3" in said[0]
    assert "0.82 or more" in said[0]
    assert said[1] == "Where linear says 'sport', the threshold is 0.7, and the text escalates to teacher."
    assert "At last, teacher" in said[3]
    assert path_in_words(single_variant_policy("teacher")) == ("Every text is answered by teacher.",)


def test_certificate_in_words(policy: Policy) -> None:
    """What is guaranteed, how surely, on how many rows, and what ends it."""
    first, method, binding = certificate_in_words(policy)
    assert "with 90% confidence the accuracy drop against teacher is at most 2.0 points" in first
    assert "p = 0.030" in method
    assert "cccccccccccc" in binding


def test_a_covered_change_of_the_mix_is_said(policy: Policy) -> None:
    """A certificate that holds while a label's share grows says up to which share."""
    cells = tuple(
        Cell(name=name, n=100, plus=1, minus=0, share=0.5, accepted=True, bound=None, answered=0.5)
        for name in ("oos", "the others")
    )
    mix = Mix(by="label", variant=policy.stages[0].variant, epsilon=0.02, delta=0.1, cells=cells, most=0.2)
    first = certificate_in_words(policy.model_copy(update={"mix": mix}))[0]
    assert first.endswith("it was certified on, at any share of 'oos' up to 20.0%.")


def test_gears_in_words(policy: Policy) -> None:
    """Each gear says its promise and what it costs; a policy without any says nothing of them."""
    gears = (
        Gear(name="busy", stages=policy.stages, epsilon=0.02, expected=policy.expected),
        Gear(name="overload-1", stages=policy.stages[:1] + policy.stages[-1:], epsilon=0.04),
    )
    first, busy, overload = gears_in_words(policy.model_copy(update={"gears": gears}))
    assert "Load alone" in first
    assert busy.startswith("busy: at most 2.0 points are lost, ")
    assert overload == "overload-1: at most 4.0 points are lost."
    assert gears_in_words(policy) == ()


def test_every_certified_target_is_said_the_right_way_round(policy: Policy) -> None:
    """A minimum accuracy reads as one, budgets are named, and neither is taken for a drop."""
    assert policy.certificate is not None
    targets = (
        CertifiedTarget(metric="min_accuracy", epsilon=0.88, method="exact binomial"),
        CertifiedTarget(metric="usd_per_1k", epsilon=2.5, method="betting"),
        CertifiedTarget(metric="escalation_rate", epsilon=0.3, method="betting"),
    )
    held = policy.certificate.model_copy(
        update={"metric": "min_accuracy", "epsilon": 0.88, "targets": targets}
    )
    first = certificate_in_words(policy.model_copy(update={"certificate": held}))[0]
    assert "the accuracy is at least 88.0%" in first
    assert "1,000 requests is at most 2.50 USD" in first
    assert "at most 30.0% of texts escalate" in first


def test_only_a_certified_accuracy_drop_is_drawn_as_one(
    policy: Policy, predictions: Predictions, family_folder: Path
) -> None:
    """A certificate of another figure sets no limit to the drop, and has no naive choice beside it."""
    assert policy.certificate is not None
    held = policy.certificate.model_copy(update={"metric": "min_accuracy", "epsilon": 0.88})
    other = policy.model_copy(update={"certificate": held})
    found = tradeoff(other, predictions, read_costs(family_folder / "costs.json"))
    assert found is not None
    assert found.epsilon is None
    assert found.naive is None


def test_policies_are_replayed_on_files_in_place_of_a_family(
    policy: Policy, family_folder: Path, tmp_path: Path
) -> None:
    """A table and its costs give the trade-off without a family; one without the other is refused."""
    table, costs = family_folder / "predictions.parquet", family_folder / "costs.json"
    out = tmp_path / "r.html"
    paths = render_report(Evidence(policies=[policy], predictions=table, costs=costs), out)
    assert "Neighbouring choices" in paths[0].read_text()
    with pytest.raises(InputError, match="go together"):
        render_report(Evidence(policies=[policy], predictions=table), out)


def test_no_safe_threshold_says_what_would_be_enough() -> None:
    """The typed result reads as advice."""
    nothing = Policy(
        status="no_safe_threshold", reference="teacher", stages=(Stage(variant="teacher"),), needed_n=1500
    )
    assert "About 1,500 labelled rows" in certificate_in_words(nothing)[0]
    hopeless = nothing.model_copy(update={"needed_n": None})
    assert "do not suggest" in certificate_in_words(hopeless)[0]
    assert "Nothing is certified" in certificate_in_words(single_variant_policy("teacher"))[0]


def test_expectations_leave_out_what_is_unknown(policy: Policy) -> None:
    """Only known figures are said, and limits say what happens beyond them."""
    assert "31.0% of texts escalate" in expected_in_words(policy)[0]
    assert expected_in_words(single_variant_policy("teacher")) == ()
    limited = policy.model_copy(update={"limits": Limits(deadline_ms=50, max_escalation_rate=0.3)})
    assert "within 50.0 ms and escalation beyond 30.0%" in expected_in_words(limited)[1]


def test_tradeoff_is_judged_on_rows_that_no_threshold_was_chosen_on(
    policy: Policy, predictions: Predictions, family_folder: Path
) -> None:
    """The curve runs from the dear end to the cheap one on the test rows, and holds the naive choice."""
    found = tradeoff(policy, predictions, read_costs(family_folder / "costs.json"))
    assert found is not None
    assert found.rows == "300 test rows"
    assert found.figures["n"] == 300
    usd = [choice.usd_per_1k for choice in found.curve]
    assert usd == sorted(usd, reverse=True)
    assert found.naive is not None
    assert found.naive.threshold < 0.82
    chart = tradeoff_chart(found, policy, "key")
    assert {point.name for point in chart.points} == {"certified", "naive"}
    table = choices_table(found, policy, "key")
    assert [row.emphasis for row in table.rows][:2] == ["strong", ""]


def test_tradeoff_needs_a_cascade_and_labels(
    policy: Policy, predictions: Predictions, family_folder: Path
) -> None:
    """One stage has no threshold to trade, and without a known reference there is nothing to compare with."""
    costs = read_costs(family_folder / "costs.json")
    assert tradeoff(single_variant_policy("teacher"), predictions, costs) is None
    stranger = policy.model_copy(update={"reference": "nobody"})
    assert tradeoff(stranger, predictions, costs) is None


def test_dominated_variants_name_what_beats_them(family: Family) -> None:
    """Pruned is beaten by the INT8 teacher on every axis; the teacher and linear by nothing."""
    beaten = beaten_by(family)
    assert "teacher-int8" in beaten["pruned-50"]
    assert beaten["teacher"] == beaten["linear"] == ()
    muted = {row.cells[0] for row in variants_table(family).rows if row.emphasis == "muted"}
    assert muted == {name for name, costs in best_by(family).items() if not costs}
    assert {name for name, by in beaten.items() if by} <= muted


def test_frontier_marks_what_is_dominated_on_its_two_axes(family: Family, policy: Policy) -> None:
    """Hollow marks have another mark to their upper left; the line joins the others."""
    for axis in AXES:
        chart = frontier_chart(family, axis, [policy])
        assert chart is not None
        for point in chart.points:
            better = [p for p in chart.points if p.x <= point.x and p.y >= point.y]
            strictly = [p for p in better if p.x < point.x or p.y > point.y]
            assert point.hollow == bool(strictly), point.name


def test_a_crowded_frontier_names_what_nothing_beats(family: Family) -> None:
    """Of more than ten marks, dominated ones keep a tooltip but no name, and latency gets a wide chart."""
    copies = tuple(
        family.variants[2].model_copy(update={"name": f"copy-{i}", "accuracy": 0.1 + i / 100})
        for i in range(9)
    )
    chart = frontier_chart(family.model_copy(update={"variants": (*family.variants, *copies)}), AXES[0])
    assert chart is not None
    assert chart.width > frontier_chart(family, AXES[0]).width  # type: ignore[union-attr]
    assert all(bool(point.name) != point.hollow for point in chart.points)
    assert all(point.tooltip for point in chart.points)
    assert "linear" in chart.description


def test_frontier_file_is_a_picture_of_its_own(family: Family, tmp_path: Path) -> None:
    """The file parses, carries its own style, and names every variant."""
    for axis in ("latency", "cost", "energy", "size"):
        path = write_frontier(family, tmp_path / f"{axis}.svg", axis=axis)
        text = path.read_text()
        ElementTree.fromstring(text)
        assert "<style>" in text
        assert all(name in text for name in family.names)


def test_a_family_that_is_not_measured_says_so(family: Family, tmp_path: Path) -> None:
    """Without figures there are no rows of dashes and no empty plots."""
    bare = family.model_copy(
        update={
            "variants": tuple(
                v.model_copy(
                    update={"accuracy": None, "accuracy_interval": None, "latency": (), "training": None,
                            "verification": None, "per_class": {}, "per_slice": {}}
                )
                for v in family.variants
            )
        }
    )  # fmt: skip
    assert all(frontier_chart(bare, axis) is None for axis in AXES)
    assert "nothing to draw" in write_frontier(bare, tmp_path / "f.svg").read_text()
    assert latency_table(bare) is slices_table(bare) is classes_table(bare) is steps_table(bare) is None
    assert losses_table(bare) is making_table(bare) is faithfulness_table(bare) is None
    assert best_by(bare) == beaten_by(bare) == {}
    assert "accuracy" not in variants_table(bare).columns


def test_tables_of_a_family_agree_with_the_manifest(family: Family) -> None:
    """Delta stands beside speed-up, slices and classes against the teacher, steps with their total."""
    columns = variants_table(family).columns
    assert columns.index("speed-up") == columns.index("delta (points)") + 1
    slices, classes, steps = slices_table(family), classes_table(family), steps_table(family)
    assert slices is not None
    assert classes is not None
    assert steps is not None
    assert [row.cells[0] for row in slices.rows] == list(family.names)
    assert [name.partition(" ")[0] for name in slices.columns] == ["variant", "long", "short"]
    assert [row.cells[0] for row in classes.rows] == list(family.labels)
    assert "4.15 min in all" in steps.notes[0]
    assert "estimated-load" in resources_table(family).notes[0]


def test_terminal_table_fits_eighty_columns(family: Family) -> None:
    """No line of the inspect table is longer than a plain terminal."""
    console = Console(width=80, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as captured:
        console.print(to_rich(inspect_table(family)))
    assert max(len(line) for line in captured.get().splitlines()) <= 80
    assert "student-2l" in captured.get()


@pytest.mark.parametrize("text", ["a|b", "a\\b", "a\nb", "[bold]x[/bold]"])
def test_cells_cannot_break_a_table(text: str) -> None:
    """Bars, backslashes, new lines and markup stay inside their cell."""
    table = Table("k", "t", ("name", "value"), (Row((text, "1")),))
    lines = to_markdown(table).splitlines()
    assert len(lines) == 3
    assert lines[2].replace("\\|", "").count("|") == 3
    console = Console(width=80)
    with console.capture() as captured:
        console.print(to_rich(table))
    if "[" in text:
        assert text in captured.get()


def test_each_cost_has_its_own_frontier(family: Family) -> None:
    """The most accurate variant is best at every cost or tied, and so is the cheapest at its own."""
    best = best_by(family)
    for axis in AXES:
        kept = [v for v in family.variants if axis.key in best[v.name]]
        ordered = sorted(kept, key=lambda v: axis.value(v) or 0)
        accuracies = [v.accuracy or 0 for v in ordered]
        assert accuracies == sorted(accuracies)
        assert min(family.variants, key=lambda v: axis.value(v) or 0) in kept


def test_what_fails_is_said_in_the_tables(family: Family) -> None:
    """A variant that breaks a limit carries its tier and the reason, in the table and in the sentences."""
    reason = "slice 'short': accuracy 0.9750 on 40 rows, always at least 1"
    failing = family.variants[-1].model_copy(update={"tier": "high", "failed_limits": (reason,)})
    changed = family.model_copy(update={"variants": (*family.variants[:-1], failing)})
    verdicts = verdicts_table(changed)
    assert verdicts is not None
    row = dict(zip(verdicts.columns, verdicts.rows[-1].cells, strict=True))
    assert (row["tier"], row["fails"]) == ("high", reason)
    assert frontier_in_words(changed)[-1] == f"Fail a limit or every tier: {failing.name}."
    console = Console(width=100)
    with console.capture() as captured:
        console.print(to_rich(inspect_table(changed, width=100)))
    assert "always at least 1" in " ".join(captured.get().split())


@pytest.mark.parametrize("width", [80, 100, 140])
def test_as_many_columns_are_shown_as_fit(family: Family, width: int) -> None:
    """Nothing is cut off or broken within a word: what does not fit is left out, and tiers stay."""
    tiers = tuple(v.model_copy(update={"tier": "critical"}) for v in family.variants)
    table = inspect_table(family.model_copy(update={"variants": tiers}), width=width)
    console = Console(width=width)
    with console.capture() as captured:
        console.print(to_rich(table))
    said = captured.get()
    assert max(len(line) for line in said.splitlines()) <= width
    assert said.count("critical") == len(tiers) - 1
    for row in table.rows:
        assert all(piece in said for cell in row.cells for piece in cell.split(" ["))
    assert ("USD/1M" in table.columns) == (width == 140)


def test_slices_are_columns_unless_they_outnumber_the_variants(family: Family) -> None:
    """Rows are variants with n in the heading; ten slices of two variants stand the other way round."""
    table = slices_table(family)
    assert table is not None
    assert table.columns[1].startswith("long (n = ")
    assert table.rows[1].cells[1].count("%") == 1
    assert "[" in table.rows[1].cells[1]
    many = tuple(
        v.model_copy(update={"per_slice": {f"s{i}": v.per_slice["long"] for i in range(10)}})
        for v in family.variants[:2]
    )
    turned = slices_table(family.model_copy(update={"variants": many}))
    assert turned is not None
    assert turned.columns == ("slice", *(v.name for v in many))
    assert len(turned.rows) == 10


def test_of_many_variants_the_table_of_classes_shows_the_frontier(family: Family) -> None:
    """Beyond eight columns only the teacher and what nothing beats are shown, and the rest is counted."""
    copies = tuple(
        family.variants[2].model_copy(update={"name": f"copy-{i}", "accuracy": 0.1}) for i in range(9)
    )
    table = classes_table(family.model_copy(update={"variants": (*family.variants, *copies)}))
    assert table is not None
    assert "teacher" in table.columns
    assert len(table.columns) <= 2 + 8
    assert "more are in family.json" in table.notes[1]


def test_losses_name_the_class_that_suffers_most(family: Family) -> None:
    """The class and the points agree with the recalls; the teacher has no losses."""
    table = losses_table(family)
    assert table is not None
    teacher, other = family.variants[0], family.variants[-1]
    deltas = {
        label: other.per_class[label]["recall"] - teacher.per_class[label]["recall"]
        for label in family.labels
    }
    row = next(row for row in table.rows if row.cells[0] == other.name)
    assert deltas[row.cells[3]] == min(deltas.values())
    assert row.cells[5] == str(sum(delta <= -0.05 for delta in deltas.values()))
    assert table.rows[0].cells[3:] == ("", "", "")


def test_steps_sum_each_step_once(family: Family) -> None:
    """Every step has its seconds, energy and CO2e, and the sums are of steps, not of variants."""
    steps = tuple(
        StepCost(
            name=name, kind="k", seconds=60.0, energy_wh=1.0, gco2e=0.5, energy_provenance="estimated-load"
        )
        for name in ("data", "teacher", "fast.table")
    )
    table = steps_table(family.model_copy(update={"steps": steps}))
    assert table is not None
    assert [row.cells[0] for row in table.rows] == ["data", "teacher", "fast.table"]
    assert table.notes[0].startswith("3.00 min in all, 3.00 Wh, 1.50 gCO2e. ")
    assert "estimated-load" in table.notes[0]
    part = (steps[0], steps[1].model_copy(update={"energy_wh": None, "gco2e": None}))
    unknown = steps_table(family.model_copy(update={"steps": part}))
    assert unknown is not None
    assert "Wh" not in unknown.notes[0]


def test_a_sparse_variant_says_that_zeros_are_size_and_not_speed(family: Family) -> None:
    """Zeros and the zipped size stand among the resources, with what they are good for."""
    assert "zeros" not in resources_table(family).columns
    sparse = family.variants[2].model_copy(update={"sparsity": 0.9, "compressed_bytes": 3_000_000})
    table = resources_table(family.model_copy(update={"variants": (*family.variants[:2], sparse)}))
    row = dict(zip(table.columns, table.rows[2].cells, strict=True))
    assert (row["zeros"], row["zipped MB"]) == ("90%", "3.00")
    assert "not faster" in table.notes[-1]


def test_making_and_faithfulness_have_a_row_per_variant(family: Family) -> None:
    """What made a variant stands with its technique and source; agreement stands beside its limit."""
    making, faithful = making_table(family), faithfulness_table(family)
    assert making is not None
    assert faithful is not None
    assert (
        [row.cells[0] for row in making.rows] == [row.cells[0] for row in faithful.rows] == list(family.names)
    )
    row = dict(zip(making.columns, making.rows[-1].cells, strict=True))
    assert (row["technique"], row["from"], row["Wh"]) == ("linear", "teacher", "0.400")
    assert faithful.rows[0].cells[1:3] == ("99.80%", "99.0%")


def test_a_class_without_test_rows_is_nobody_s_worst(family: Family) -> None:
    """Older manifests say recall 0 there; the tables say nothing, for nothing was measured."""
    empty = {"empty": {"recall": 0.0, "precision": 0.0, "n": 0}}
    variants = tuple(v.model_copy(update={"per_class": v.per_class | empty}) for v in family.variants)
    table = losses_table(family.model_copy(update={"variants": variants}))
    assert table is not None
    assert "empty" not in {cell for row in table.rows for cell in row.cells}
