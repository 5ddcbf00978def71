"""A recipe whose teacher is an ONNX graph becomes a family that answers as the graph does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto

from compress.pipeline import run_pipeline, running
from compress.plan import plan_steps
from compress.recipes.recipe import Recipe, parse_recipe
from contract.family import read_family
from runtime.load import load_variant
from tests.compress.conftest import toy_texts, toy_tokenizer, write_csv
from tests.compress.onnx_graphs.toys import HIDDEN, LABELS, toy_folder, toy_graph


def recipe_of(
    folder: Path, weights: Path, variants: list[dict[str, Any]] | None = None, **teacher: Any
) -> Recipe:
    """Return a recipe over toy texts whose teacher is taken as it is."""
    write_csv(folder / "data.csv", toy_texts(240))
    return parse_recipe(
        {
            "name": "given",
            "data": {"file": "data.csv"},
            "teacher": {"weights": str(weights), "max_length": 24, "training": {"epochs": 0}, **teacher},
            "variants": variants or [],
            "limits": {"accuracy_drop": 0.5},
            "target": {"calls": 20, "seconds": 0.1},
        },
        folder=folder,
    )


def by_hand(model: ModelProto, texts: list[str], names: dict[str, str]) -> list[int]:
    """Return the rows that ONNX Runtime and the tokenizers library answer by themselves."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    tokenizer = toy_tokenizer()
    tokenizer.enable_truncation(24)
    found = []
    for text in texts:
        ids = np.array([tokenizer.encode(text).ids])
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        found.append(
            int(session.run(["logits"], {name: given[role] for role, name in names.items()})[0].argmax())
        )
    return found


def documented() -> str:
    """Return the recipe of docs/teachers.md."""
    text = (Path(__file__).parents[3] / "docs/teachers.md").read_text(encoding="utf-8")
    found = re.search(r"## ONNX graphs.*?```yaml\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_documented_recipe_makes_a_family_that_answers_as_the_graph_does(tmp_path: Path) -> None:
    """Teacher, INT8 copy, a student of its own and a linear stage; the teacher's labels are those by hand."""
    graph = toy_graph()
    toy_folder(tmp_path / "models/my-onnx", graph)
    write_csv(tmp_path / "data.csv", toy_texts(240))
    (tmp_path / "recipe.yaml").write_text(documented() + "target: {calls: 20, seconds: 0.1}\n")
    run_pipeline(tmp_path / "recipe.yaml", tmp_path / "family")
    family = read_family(tmp_path / "family")
    assert [variant.name for variant in family.variants] == ["teacher", "teacher-int8", "student", "linear"]
    texts = [text for text, _ in toy_texts(60, seed=5)]
    loaded = load_variant(tmp_path / "family", family, "teacher")
    wanted = by_hand(graph, texts, {"input_ids": "input_ids", "attention_mask": "attention_mask"})
    told = [family.labels[row] for row in loaded.logits(texts).argmax(1)]
    assert told == [LABELS[row] for row in wanted]
    teacher = family.variant("teacher")
    assert teacher.accuracy is not None
    assert teacher.accuracy > 0.9
    assert teacher.verification is not None
    assert teacher.verification.label_agreement == 1
    assert teacher.flops_per_text
    assert teacher.parameters == sum(
        int(np.prod(one.dims)) for one in graph.graph.initializer if one.data_type == 1
    )


def test_a_text_cnn_starts_from_the_word_embeddings_of_a_graph(tmp_path: Path) -> None:
    """The table that token ids are looked up in is found, and learnt from with the graph's answers."""
    toy_folder(tmp_path / "model")
    part = {"name": "cnn", "kind": "cnn", "parent": "teacher", "channels": 8, "training": {"epochs": 1}}
    recipe = recipe_of(tmp_path, tmp_path / "model", [part])
    with running(recipe, tmp_path / "family") as run:
        for step in plan_steps(recipe):
            if step.name in {"data", "teacher", "cnn"}:
                run.make(step)
        assert run.finished["cnn"].result["taught_texts"] > 100
        assert run.finished["cnn"].result["embedding"] == HIDDEN
