"""What each technique brought, and what distillation recovered."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.family import Artifact, EncoderSpec, Family, Latency, Variant
from contract.predictions import Predictions, VariantPredictions
from report.sections.ablation import ablation_table, changes, recovered, recovered_table

N = 400


def variant(name: str, kind: str, technique: str, parent: str | None = None, **figures: Any) -> Variant:
    """A variant with made-up figures."""
    ms = figures.pop("ms", 1.0)
    latency = Latency(batch=1, concurrency=1, threads=1, n=9, p50_ms=ms, p99_ms=ms)
    artifact = Artifact(path=name, sha256="0" * 64, bytes=figures.pop("size", 100))
    return Variant.model_validate(
        {"name": name, "kind": kind, "technique": technique, "parent": parent, "runtime": "onnx",
         "artifact": artifact, "encoder": "e", "latency": (latency,), "accuracy": 0.9, **figures}
    )  # fmt: skip


@pytest.fixture
def chain() -> Family:
    """A teacher, a chain of two speed-ups, both ends in INT8, and a student with its twin."""
    low = {"precision": "int8-dynamic"}
    return Family(
        name="toy",
        labels=("a", "b"),
        teacher="teacher",
        encoders={"e": EncoderSpec(kind="fake", sha256="0" * 64)},
        variants=(
            variant("teacher", "teacher", "teacher", ms=8.0, size=400, accuracy=0.95, energy_wh_per_1k=0.8),
            variant("teacher-int8", "quantized", "quantize", "teacher", ms=4.0, accuracy=0.94, **low),
            variant("fast-2x", "pruned", "latency", "teacher", ms=4.0, accuracy=0.93),
            variant("fast-4x", "pruned", "latency", "fast-2x", ms=2.0, accuracy=0.91, energy_wh_per_1k=0.2),
            variant("fast-4x-int8", "quantized", "quantize", "fast-4x", ms=1.0, accuracy=0.90, **low),
            variant("student", "distilled", "distil", "teacher", ms=2.0, accuracy=0.93, parameters=1000),
            variant("student-twin", "scratch", "twin", ms=2.0, accuracy=0.85),
        ),
    )


@pytest.fixture
def predictions(chain: Family) -> Predictions:
    """Answers of all variants of the chain: each is right on its share of the test rows, the first ones."""
    label = np.zeros(N, dtype=np.int64)
    found = {
        v.name: VariantPredictions(
            (np.arange(N) >= round((v.accuracy or 0) * N)).astype(np.int64), np.ones(N)
        )
        for v in chain.variants
    }
    split = np.array(["test"] * N)
    return Predictions(labels=chain.labels, label=label, variants=found, split=split, slices={})


def test_every_variant_is_held_against_what_it_differs_from_by_one_technique(chain: Family) -> None:
    """Links of a chain against its beginning, quantized ones against FP32, pruned ones at equal precision."""
    assert [(c.variant.name, c.technique, c.without.name) for c in changes(chain)] == [
        ("teacher-int8", "quantize", "teacher"),
        ("fast-2x", "latency", "teacher"),
        ("fast-4x", "latency", "teacher"),
        ("fast-4x-int8", "quantize", "fast-4x"),
        ("fast-4x-int8", "latency, both int8-dynamic", "teacher-int8"),
        ("student", "distil", "teacher"),
    ]


def searched(family: Family, **settings: Any) -> Family:
    """The family with an INT8 student of a search whose FP32 form is not listed."""
    low = variant(
        "searched", "quantized", "distil + quantize", "teacher", precision="int8-dynamic", **settings
    )
    return family.model_copy(update={"variants": (*family.variants, low)})


def test_a_variant_that_differs_by_two_techniques_is_compared_at_equal_precision(chain: Family) -> None:
    """An INT8 student beside the INT8 teacher shows distilling; beside the FP32 one it shows nothing."""
    found = [c for c in changes(searched(chain)) if c.variant.name == "searched"]
    assert [(c.technique, c.without.name) for c in found] == [("distil, both int8-dynamic", "teacher-int8")]


def test_copies_lowered_in_another_way_are_not_compared(chain: Family) -> None:
    """A smoothed INT8 student beside a plain INT8 teacher would differ by smoothing too."""
    family = searched(chain, lowering={"method": "dynamic", "smooth": 0.5})
    assert not [c for c in changes(family) if c.variant.name == "searched"]


def test_an_ablation_says_what_was_lost_and_what_was_won(chain: Family) -> None:
    """Four times as fast, four times as small, a quarter of the energy, four points lost."""
    table = ablation_table(chain)
    assert table is not None
    (row,) = [row for row in table.rows if row.cells[:3] == ("fast-4x", "latency", "teacher")]
    assert row.cells[3:] == ("−4.0", "4.0×", "4.0×", "4.0×")


def test_with_predictions_a_difference_has_its_paired_interval(
    chain: Family, predictions: Predictions
) -> None:
    """The interval is around the difference of the two accuracies, and narrow where answers nest."""
    table = ablation_table(chain, predictions)
    assert table is not None
    cells = {row.cells[:3]: row.cells[3] for row in table.rows}
    said = cells["fast-4x", "latency", "teacher"]
    value, low, high = (float(part.strip("[],").replace("−", "-")) for part in said.split())
    assert value == -4.0
    assert low < value < high < 0


def test_one_variant_has_nothing_to_be_held_against(chain: Family) -> None:
    """A teacher alone gives no ablation and no recovery."""
    alone = chain.model_copy(update={"variants": chain.variants[:1]})
    assert ablation_table(alone) is recovered_table(alone) is None


def test_a_student_recovers_what_its_twin_leaves_out(chain: Family, predictions: Predictions) -> None:
    """From 85 to 93 on the way to 95 is 80%; with predictions there is an interval around it."""
    plain, sure = recovered_table(chain), recovered_table(chain, predictions)
    assert plain is not None
    assert sure is not None
    assert plain.rows[0].cells[:5] == ("student", "93.0%", "85.0%", "95.0%", "80%")
    value, low, high = (float(part.strip("[],%")) for part in sure.rows[0].cells[4].split())
    assert value == 80
    assert 50 < low < 80 < high < 100


def test_a_twin_as_good_as_the_teacher_leaves_nothing_to_recover(chain: Family) -> None:
    """A share of nothing is unknown, not infinite."""
    twin = chain.variants[-1].model_copy(update={"accuracy": 0.95})
    table = recovered_table(chain.model_copy(update={"variants": (*chain.variants[:-1], twin)}))
    assert table is not None
    assert "–" in table.notes[0]
    assert "quality recovered" not in table.columns


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_recovery_runs_from_the_twin_to_the_teacher(student: float, twin: float, teacher: float) -> None:
    """It is 0 at the twin, 1 at the teacher, and grows with the student."""
    found = recovered(student, twin, teacher)
    assert (found is None) == (teacher <= twin)
    if found is not None:
        assert recovered(twin, twin, teacher) == 0
        assert recovered(teacher, twin, teacher) == 1
        assert (found >= 0) == (student >= twin)
