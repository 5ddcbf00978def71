"""The family reader trusts nothing that it has not checked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract.errors import FamilyError
from contract.family import (
    EncoderSpec,
    Family,
    SliceQuality,
    StepCost,
    Variant,
    artifact_of,
    read_family,
    write_family,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A family folder with one variant."""
    (tmp_path / "weights.bin").write_bytes(b"weights")
    family = Family(
        name="toy",
        labels=("a", "b"),
        teacher="teacher",
        encoders={"e": EncoderSpec(kind="fake", sha256="0" * 64)},
        variants=(
            Variant(
                name="teacher", kind="teacher", runtime="fake", encoder="e",
                artifact=artifact_of(tmp_path, tmp_path / "weights.bin"),
            ),
        ),
    )  # fmt: skip
    write_family(tmp_path, family)
    return tmp_path


def test_a_written_family_reads_back_equal(folder: Path) -> None:
    """Reading what was written gives the same family and hash."""
    family = read_family(folder)
    write_family(folder, family)
    assert read_family(folder / "family.json") == family
    assert len(family.sha256) == 64


def test_an_altered_artifact_is_refused(folder: Path) -> None:
    """A byte that differs from the manifest's hash is found, and named."""
    (folder / "weights.bin").write_bytes(b"Weights")
    with pytest.raises(FamilyError, match=r"weights\.bin.*altered"):
        read_family(folder)
    assert read_family(folder, verify=False).teacher == "teacher"


def test_a_missing_family_names_the_next_step(tmp_path: Path) -> None:
    """An empty folder is an error that says how to make a family."""
    with pytest.raises(FamilyError, match="sluice compress"):
        read_family(tmp_path)


def _rename_twin(raw: dict[str, Any]) -> None:
    raw["variants"].append(dict(raw["variants"][0]))


@pytest.mark.parametrize(
    ("edit", "rule"),
    [
        (lambda raw: raw.update(schema=99), "schema is 99"),
        (lambda raw: raw["variants"][0]["artifact"].update(path="../x"), "leaves"),
        (lambda raw: raw.update(teacher="nobody"), "nobody"),
        (lambda raw: raw["variants"][0].update(encoder="q"), "unknown encoder"),
        (lambda raw: raw["variants"][0].update(name="cascade"), "cascade"),
        (lambda raw: raw["variants"][0].update(name="../../x"), "name"),
        (_rename_twin, "share a name"),
        (lambda raw: raw.update(labels=["a"]), "labels"),
    ],
)
def test_manifests_that_break_a_rule_are_refused(
    folder: Path, edit: Callable[[dict[str, Any]], None], rule: str
) -> None:
    """Each broken rule of a manifest is named."""
    path = folder / "family.json"
    raw = json.loads(path.read_text())
    edit(raw)
    path.write_text(json.dumps(raw))
    with pytest.raises(FamilyError, match=rule):
        read_family(folder)


def test_unknown_variant_lists_the_known(folder: Path) -> None:
    """Asking for a variant that is not there lists those that are."""
    with pytest.raises(FamilyError, match="one of: teacher"):
        read_family(folder).variant("x")


def test_tier_and_broken_limits_are_kept(folder: Path) -> None:
    """A variant says which accuracy tier it is in and which limits of the recipe it breaks."""
    family = read_family(folder)
    failed = family.variants[0].model_copy(
        update={"tier": "medium", "failed_limits": ("p99 9 ms, limit 5 ms",)}
    )
    write_family(folder, family.model_copy(update={"variants": (failed,)}))
    assert read_family(folder).variants[0] == failed


def test_plain_slice_accuracies_of_the_first_manifests_are_read(folder: Path) -> None:
    """`accuracy_per_slice` becomes `per_slice` without n or interval, and is told the same way."""
    path = folder / "family.json"
    raw = json.loads(path.read_text())
    raw["variants"][0] |= {"accuracy_per_slice": {"short": 0.75}}
    del raw["variants"][0]["per_slice"]
    path.write_text(json.dumps(raw))
    variant = read_family(folder).variants[0]
    assert variant.per_slice == {"short": SliceQuality(accuracy=0.75)}
    assert variant.accuracy_per_slice == {"short": 0.75}
    assert "accuracy_per_slice" not in variant.model_dump()


def test_a_manifest_keeps_its_hash_when_more_keys_are_known(folder: Path) -> None:
    """Keys at their defaults, such as an earlier version left out, do not change what a family is."""
    path = folder / "family.json"
    before, raw = read_family(folder), json.loads(path.read_text())
    for key in ("sparsity", "compressed_bytes", "technique", "per_slice"):
        del raw["variants"][0][key]
    del raw["steps"]
    path.write_text(json.dumps(raw))
    assert read_family(folder).sha256 == before.sha256
    assert before.model_copy(update={"name": "other"}).sha256 != before.sha256


def test_slices_and_step_costs_survive_the_disk(folder: Path) -> None:
    """A slice with its paired delta, and what a step cost, are read as they were written."""
    family = read_family(folder)
    short = SliceQuality(
        n=12, accuracy=0.5, accuracy_interval=(0.2, 0.8), accuracy_delta=-0.1, accuracy_delta_interval=(-1, 1)
    )
    variant = family.variants[0].model_copy(update={"per_slice": {"short": short}, "sparsity": 0.8})
    steps = (StepCost(name="teacher", kind="teacher", seconds=2.5, energy_wh=0.1, gco2e=0.04),)
    write_family(folder, family.model_copy(update={"variants": (variant,), "steps": steps}))
    again = read_family(folder)
    assert again.variants[0] == variant
    assert again.steps == steps
