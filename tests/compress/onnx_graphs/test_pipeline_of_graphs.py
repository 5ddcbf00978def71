"""A recipe whose teacher is an ONNX graph becomes a family that answers as the graph does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto

from compress.pipeline import run_pipeline
from compress.recipes.recipe import Recipe, parse_recipe
from contract.family import read_family
from runtime.load import load_variant
from tests.compress.conftest import toy_texts, toy_tokenizer, write_csv
from tests.compress.onnx_graphs.toys import LABELS, toy_folder, toy_graph


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


def test_a_folder_with_a_graph_becomes_a_family(tmp_path: Path) -> None:
    """Teacher, INT8 copies, a student of its own, a text CNN and a linear stage are made and served."""
    graph = toy_graph()
    toy_folder(tmp_path / "model", graph)
    training = {"epochs": 1, "learning_rate": 0.003, "precision": "fp32"}
    variants: list[dict[str, Any]] = [
        {"name": "int8", "kind": "quantize", "parent": "teacher"},
        {"name": "static", "kind": "quantize", "parent": "teacher", "method": "static", "mixed": 0.5},
        {
            "name": "student", "kind": "distil", "parent": "teacher", "weights": "random", "layers": [0],
            "hidden": 16, "heads": 2, "neurons": 16, "training": training,
        },
        {"name": "cnn", "kind": "cnn", "parent": "teacher", "channels": 8, "training": training},
        {"name": "linear", "kind": "linear", "parent": "teacher", "bits": 10},
    ]  # fmt: skip
    recipe = recipe_of(tmp_path, tmp_path / "model", variants)
    run_pipeline(recipe, tmp_path / "family")
    family = read_family(tmp_path / "family")
    assert [variant.name for variant in family.variants] == ["teacher", *(one["name"] for one in variants)]
    texts = [text for text, _ in toy_texts(60, seed=5)]
    loaded = load_variant(tmp_path / "family", family, "teacher")
    wanted = by_hand(graph, texts, {"input_ids": "input_ids", "attention_mask": "attention_mask"})
    told = [family.labels[row] for row in loaded.logits(texts).argmax(1)]
    assert told == [LABELS[row] for row in wanted]
    teacher = family.variant("teacher")
    assert teacher.accuracy is not None
    assert teacher.accuracy > 0.9
    assert teacher.parameters is not None
    assert teacher.flops_per_text
