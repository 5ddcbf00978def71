"""One recipe with every kind of part: each becomes variants of the family, and a second run makes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compress.pipeline import dry_run, run_pipeline
from compress.recipes.recipe import Recipe
from contract.family import Family, read_family

RUN = {"epochs": 1, "learning_rate": 0.003, "precision": "fp32"}
PARTS: tuple[dict[str, Any], ...] = (
    {"name": "student", "kind": "distil", "parent": "teacher", "layers": [0], "twin": True},
    {"name": "cnn", "kind": "cnn", "parent": "teacher", "channels": 8, "widths": [1, 2]},
    {"name": "pruned", "kind": "prune", "parent": "teacher", "layers": [0, 2], "heads": 0.5, "rounds": 2},
    {"name": "lean", "kind": "vocabulary", "parent": "student", "min_count": 2},
    {
        "name": "sparse",
        "kind": "magnitude",
        "parent": "lean",
        "teacher": "teacher",
        "most": 0.5,
        "floor": 0.9,
    },
    {"name": "sparse-int8", "kind": "quantize", "parent": "sparse"},
    {"name": "linear", "kind": "linear", "parent": "teacher", "bits": 12},
)
KINDS = {
    "teacher": "teacher", "student": "distilled", "student-twin": "scratch", "cnn": "distilled",
    "pruned": "pruned", "lean": "pruned", "sparse": "pruned", "sparse-int8": "quantized", "linear": "linear",
}  # fmt: skip


@pytest.fixture(scope="module")
def recipe(toy_recipe: Recipe) -> Recipe:
    """The toy recipe with a part of every kind."""
    trained = {"distil", "cnn", "prune", "magnitude"}
    parts = [{**part, "training": RUN} if part["kind"] in trained else part for part in PARTS]
    raw = toy_recipe.model_dump(mode="json", by_alias=True)
    return Recipe.model_validate({**raw, "variants": parts, "limits": {}})


@pytest.fixture(scope="module")
def folder(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The family of that recipe."""
    out = tmp_path_factory.mktemp("techniques") / "family"
    run_pipeline(recipe, out)
    return out


@pytest.fixture(scope="module")
def family(folder: Path) -> Family:
    """Its manifest, every artifact checked."""
    return read_family(folder)


def test_every_part_becomes_variants(family: Family) -> None:
    """The manifest holds each variant with its kind, its parent and its figures."""
    assert {variant.name: variant.kind for variant in family.variants} == KINDS
    parents = {part["name"]: part["parent"] for part in PARTS}
    for variant in family.variants:
        assert variant.parent == parents.get(variant.name)
        assert variant.accuracy is not None
        assert variant.latency_at() is not None
        assert variant.artifact.bytes > 0


def test_sparsity_is_size_without_speed(family: Family) -> None:
    """A variant of single weights removed says how many, and how small it packs; its graph is no smaller."""
    sparse, parent = family.variant("sparse"), family.variant("lean")
    assert sparse.sparsity is not None
    assert 0.2 < sparse.sparsity < 0.5
    assert sparse.compressed_bytes is not None
    assert sparse.compressed_bytes < (sparse.parameters or 0) * 4
    assert sparse.artifact.bytes == pytest.approx(parent.artifact.bytes, rel=0.05)
    assert sparse.flops_per_text == parent.flops_per_text


def test_a_smaller_vocabulary_is_an_encoder_of_its_own(family: Family) -> None:
    """Variants with the smaller tokenizer share its record; the others keep the teacher's."""
    assert {v.name: v.encoder for v in family.variants if v.name not in {"linear"}} == {
        name: family.variant("lean" if name in {"lean", "sparse", "sparse-int8"} else "teacher").encoder
        for name in KINDS
        if name != "linear"
    }
    assert family.variant("lean").encoder != family.variant("teacher").encoder
    assert len(family.encoders) == 3


def test_a_second_run_makes_nothing(recipe: Recipe, folder: Path, family: Family) -> None:
    """Every step is found done, and the family stays as it is."""
    assert all(planned.finished for planned in dry_run(recipe, folder))
    assert run_pipeline(recipe, folder) == family
