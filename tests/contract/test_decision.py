"""Decisions as they are kept: their reasons in words, and their forms."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import get_args

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.decision import (
    PARQUET,
    Audit,
    Decision,
    DegradedBy,
    Feedback,
    Known,
    StageTaken,
    reasons,
    table_of,
)

ESCALATED = Decision(
    request_id="a-1",
    index=0,
    at=1.7e9,
    family="support",
    model="cascade",
    label="sport",
    confidence=0.98,
    variant="teacher",
    stages=(StageTaken("linear", 0.71, 0.75, "business"), StageTaken("teacher", 0.98, None, "sport")),
    policy_version="abc",
    escalated=True,
)


def test_reasons_say_each_stage_with_score_and_cut_off() -> None:
    """An escalated text has a sentence for each stage that it went through."""
    assert reasons(ESCALATED) == [
        "linear: 0.71 < 0.75: escalated to teacher",
        "teacher: 0.98, no cut-off: answered",
    ]


@pytest.mark.parametrize("reason", get_args(DegradedBy)[1:])
def test_reasons_of_a_degraded_text_name_what_kept_it(reason: DegradedBy) -> None:
    """A degraded text says why the cheap answer stands."""
    kept = replace(ESCALATED, stages=ESCALATED.stages[:1], escalated=False, degraded=True, reason=reason)
    (said,) = reasons(kept)
    assert said.startswith("linear: 0.71 < 0.75: its answer stands, since ")
    assert said.endswith(f"({reason})")


@given(st.floats(0, 1), st.floats(0, 1))
def test_numbers_in_reasons_differ_where_they_differ(score: float, threshold: float) -> None:
    """A score just below its cut-off is never shown as equal to it, unless no 17 digits tell them apart."""
    stage = StageTaken("linear", score, threshold, "a")
    (said,) = reasons(replace(ESCALATED, stages=(stage,), escalated=False))
    _, compared, _ = said.split(": ")
    left, sign, right = compared.split()
    assert (sign == ">=") == stage.accepted
    if not math.isclose(score, threshold, abs_tol=1e-15):
        assert left != right


def test_a_decision_with_audit_and_feedback_survives_its_json_form() -> None:
    """What an admin route sends is read as what was kept."""
    known = Known(
        ESCALATED,
        Feedback("a-1", 0, 1.8e9, "support", "sport", "web"),
        Audit("a-1", 0, 1.7e9, "support", "abc", "teacher", "sport", 0.25, "teacher", None, "failed"),
    )
    assert Known.load(known.dump() | {"newer": 1}) == known


def test_the_margin_is_the_nearest_cut_off() -> None:
    """Stages without a cut-off have none."""
    assert ESCALATED.margin == pytest.approx(0.04)
    assert replace(ESCALATED, stages=ESCALATED.stages[1:]).margin is None


def test_an_export_has_the_named_columns(tmp_path: Path) -> None:
    """Parquet holds the stages as a list of structures."""
    pq.write_table(table_of([Known(ESCALATED)]), tmp_path / "d.parquet")
    found = pq.read_table(tmp_path / "d.parquet")
    assert found.schema.names == PARQUET.names
    assert found["stages"][0].as_py()[0] == asdict(ESCALATED.stages[0])
    assert found["feedback"][0].as_py() is None
