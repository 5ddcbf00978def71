"""A family's own rows tell whether a machine gives the answers that were measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import FamilyError
from contract.family import Verification, artifact_of, read_family, write_family
from contract.machine import Machine
from runtime.machine import describe_machine
from runtime.stored import ROWS, other_processor, repeat_answers, stored_rows
from tests.support.measured import TEXTS, compute_otherwise, write_measured_family

SEEDS = {"small": 1, "large": 2}
HERE = describe_machine()


def test_answers_on_the_same_machine_are_those_measured(tmp_path: Path) -> None:
    """Nothing moves, for rows that are spread over all held-out texts."""
    family = write_measured_family(tmp_path, HERE, SEEDS)
    found = list(repeat_answers(tmp_path, family))
    assert [(one.variant, one.n, one.same, one.other_labels) for one in found] == [
        ("small", ROWS, True, 0), ("large", ROWS, True, 0),
    ]  # fmt: skip
    assert max(max(one.change, one.logit_change) for one in found) < 1e-6


def test_half_of_the_rows_are_those_that_variants_are_least_sure_of(tmp_path: Path) -> None:
    """Where thresholds lie an answer that moves decides something; the others are spread over the rest."""
    family = write_measured_family(tmp_path, HERE, SEEDS)
    rows = stored_rows(tmp_path, family)
    table = pq.read_table(tmp_path / "predictions.parquet")
    sure = sum(table[f"{name}/confidence"].to_numpy() for name in SEEDS)
    unsure = {TEXTS[row] for row in np.argsort(sure, kind="stable")[: ROWS // 2]}
    assert unsure < set(rows.texts)
    assert len(set(rows.texts)) == ROWS
    kept = [TEXTS.index(text) for text in rows.texts]
    assert kept == sorted(kept)
    assert np.array_equal(rows.logits["small"], np.array(table["small/logits"].to_pylist(), "f4")[kept])


def test_a_family_of_few_rows_is_tried_on_all_of_them(tmp_path: Path) -> None:
    """Fewer rows than are asked for are all taken, each once."""
    family = write_measured_family(tmp_path, HERE, SEEDS)
    assert stored_rows(tmp_path, family, len(TEXTS) + 5).texts == TEXTS


def test_logits_count_where_probabilities_do_not_move(tmp_path: Path) -> None:
    """A flat or a very sure variant has the same probabilities whatever its logits do: those are compared."""
    write_measured_family(tmp_path, HERE, SEEDS)
    family = compute_otherwise(tmp_path, "small", seed=1, shift=1.0)
    flat = tuple(v.model_copy(update={"temperature": 1e6}) for v in family.variants)
    small, large = repeat_answers(tmp_path, family.model_copy(update={"variants": flat}))
    assert small.change < small.limit < small.logit_change
    assert not small.same
    assert large.same


@pytest.mark.parametrize(
    ("precision", "shift", "same"),
    [
        ("fp32", 1.0, False),
        ("int8-dynamic", 1.0, False),
        ("fp32", 0.0012, False),
        ("int8-dynamic", 0.0012, True),
    ],
)
def test_other_arithmetic_is_found(precision: str, shift: float, same: bool, tmp_path: Path) -> None:
    """A variant whose products come out otherwise is named; INT8 may round otherwise, FP32 may not."""
    write_measured_family(tmp_path, HERE, SEEDS)
    family = compute_otherwise(tmp_path, "small", seed=1, shift=shift)
    family = family.model_copy(
        update={"variants": tuple(v.model_copy(update={"precision": precision}) for v in family.variants)}
    )
    small, large = repeat_answers(tmp_path, family)
    assert small.same == same
    assert large.same
    assert ("gives other answers" in small.told) == (not same)


def test_what_batchmates_move_is_no_other_arithmetic(tmp_path: Path) -> None:
    """A variant whose verification saw batchmates move logits is allowed that much, and no more."""
    write_measured_family(tmp_path, HERE, SEEDS)
    family = compute_otherwise(tmp_path, "small", seed=1, shift=0.03)
    check = Verification(label_agreement=1, max_logit_error=0, n=200, agreement_limit=0.97)

    def tried(change: float, batching: str) -> bool:
        checked = check.model_copy(update={"batched_logit_change": change})
        given = {"verification": checked, "precision": "int8-static", "batching": batching}
        variants = tuple(v.model_copy(update=given) for v in family.variants)
        return next(repeat_answers(tmp_path, family.model_copy(update={"variants": variants}))).same

    (moved, _) = repeat_answers(tmp_path, family)
    logits = stored_rows(tmp_path, family).logits["small"]
    change = moved.logit_change * float(np.ptp(logits))
    assert tried(change, "batched")
    assert not tried(0.1 * change, "batched")
    assert not tried(change, "single")


def test_labels_that_change_are_counted(tmp_path: Path) -> None:
    """Where the shift is large enough every row gets the same label, and those that had the other count."""
    write_measured_family(tmp_path, HERE, SEEDS)
    family = compute_otherwise(tmp_path, "small", seed=1, shift=9.0)
    small, _ = repeat_answers(tmp_path, family)
    rows = stored_rows(tmp_path, family).logits["small"]
    assert small.other_labels == int((rows.argmax(1) == 1).sum()) > 0
    assert f"{small.other_labels} of {ROWS} labels differ" in small.told


def test_a_family_without_texts_or_logits_is_not_tried(tmp_path: Path) -> None:
    """A manifest from before texts were kept, and predictions without logits, leave nothing to compare."""
    family = write_measured_family(tmp_path, HERE, SEEDS)
    assert list(repeat_answers(tmp_path, family.model_copy(update={"data": None}))) == []
    table = pq.read_table(tmp_path / "predictions.parquet").drop_columns(["small/logits", "large/logits"])
    pq.write_table(table, tmp_path / "predictions.parquet")
    assert list(repeat_answers(tmp_path, family)) == []


def test_texts_of_another_family_are_refused(tmp_path: Path) -> None:
    """Predictions of other rows than there are texts belong to something else."""
    family = write_measured_family(tmp_path, HERE, SEEDS)
    pq.write_table(pa.table({"text": ["one"]}), tmp_path / "data.parquet")
    changed = family.model_copy(update={"data": artifact_of(tmp_path, tmp_path / "data.parquet")})
    write_family(tmp_path, changed)
    with pytest.raises(FamilyError, match="1 held-out texts have 40 predictions"):
        list(repeat_answers(tmp_path, read_family(tmp_path)))


def test_what_a_processor_lacks_is_named() -> None:
    """Instruction sets that one of two machines has are told, in one line; equal ones are not."""
    made = Machine(cpu="EPYC", cores=2, memory_bytes=1, isa=("avx2", "avx512_vnni"), system="Linux")
    here = made.model_copy(update={"cpu": "Core", "isa": ("avx2", "avx_vnni")})
    assert other_processor(made, here) == (
        "the family was measured on EPYC; this machine (Core) lacks avx512_vnni and has avx_vnni besides"
    )
    assert other_processor(made, made.model_copy(update={"cpu": "Core"})) is None
    assert other_processor(None, here) is None
