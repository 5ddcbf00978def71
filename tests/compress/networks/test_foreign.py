"""Architectures that our own network does not hold: loaded, trained, exported, quantized and served whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.architectures import Outcome, try_architecture
from compress.networks.foreign_making import foreign_network, read_foreign
from compress.networks.models import load_network
from compress.networks.weights import read_bundle
from compress.pipeline import run_pipeline
from compress.plan import plan_steps
from compress.recipes.recipe import parse_recipe
from contract.errors import RecipeError
from runtime.load import load_variant
from tests.compress.conftest import toy_texts, write_csv
from tests.compress.networks.tiny import FOREIGN, LABELS, OWN, VOCABULARY, tiny_model

FAST = ("albert", "electra")


@pytest.mark.parametrize("kind", FAST)
def test_a_trained_head_answers_as_in_transformers(kind: str, tmp_path: Path) -> None:
    """Logits are those of the library, in the order of the data's labels; and again after the disk."""
    model = tiny_model(tmp_path / "m", kind)
    order = [LABELS[2], LABELS[0], LABELS[1]]
    network, head = foreign_network(read_bundle(str(tmp_path / "m")), order, seed=0, dropout=0.0)
    ids = torch.randint(4, len(VOCABULARY), (2, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    (tmp_path / "saved").mkdir()
    network.save(tmp_path / "saved")
    with torch.inference_mode():
        wanted = model(input_ids=ids, attention_mask=mask).logits[:, [2, 0, 1]]
        torch.testing.assert_close(network(ids, mask), wanted)
        torch.testing.assert_close(load_network(tmp_path / "saved")(ids, mask), wanted)
    assert head.order == (2, 0, 1)


def test_names_of_rows_may_stand_in_a_list(tmp_path: Path) -> None:
    """TensorFlow's saving once wrote id2label so, which the library itself does not read."""
    tiny_model(tmp_path / "m", "electra")
    path = tmp_path / "m" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"id2label": list(LABELS)}))
    _, head = foreign_network(read_bundle(str(tmp_path / "m")), LABELS[::-1], seed=0, dropout=0.0)
    assert head.order == (2, 1, 0)


def test_a_model_whose_padding_is_seen_is_asked_text_by_text(tmp_path: Path) -> None:
    """FNet mixes all places, so that a padded text is given the answer that it gets alone."""
    tiny_model(tmp_path / "m", "fnet")
    network, _ = foreign_network(read_bundle(str(tmp_path / "m")), LABELS, seed=0, dropout=0.0)
    assert network.alone
    ids = torch.randint(4, len(VOCABULARY), (2, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    with torch.inference_mode():
        torch.testing.assert_close(network(ids, mask)[1:], network(ids[1:, :5], mask[1:, :5]))


@pytest.mark.parametrize("kind", ["squeezebert", "bert", "electra"])
def test_a_new_head_reads_states_whatever_pooled_them(kind: str, tmp_path: Path) -> None:
    """Poolers are left out, also where the library calls theirs unasked; the disk changes nothing."""
    tiny_model(tmp_path / "m", kind)
    network, head = foreign_network(read_bundle(str(tmp_path / "m")), ("x", "y"), seed=0, dropout=0.0)
    ids = torch.randint(4, len(VOCABULARY), (2, 9), generator=torch.Generator().manual_seed(1))
    (tmp_path / "saved").mkdir()
    network.save(tmp_path / "saved")
    with torch.inference_mode():
        answered = network(ids, torch.ones_like(ids))
        torch.testing.assert_close(load_network(tmp_path / "saved")(ids, torch.ones_like(ids)), answered)
    assert head.order is None
    assert answered.shape == (2, 2)


@pytest.mark.parametrize("pad", [None, len(VOCABULARY)])
def test_a_generative_classifier_without_padding_reads_every_token(pad: int | None, tmp_path: Path) -> None:
    """The library refuses batches of it; here each text gets the answer that the library gives it alone.

    So too where the padding token was added to the tokenizer, but not to the model.
    """
    model = tiny_model(tmp_path / "m", "gpt2", pad_token_id=pad)
    network, _ = foreign_network(read_bundle(str(tmp_path / "m")), LABELS, seed=0, dropout=0.0)
    ids = torch.randint(0, len(VOCABULARY), (2, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    ids[0, -1] = 0
    (tmp_path / "saved").mkdir()
    network.save(tmp_path / "saved")
    with torch.inference_mode():
        wanted = torch.cat([model(input_ids=ids[:1]).logits, model(input_ids=ids[1:, :5]).logits])
        torch.testing.assert_close(network(ids, mask), wanted)
        torch.testing.assert_close(load_network(tmp_path / "saved")(ids, mask), wanted)
    assert network.alone


def test_layers_that_transformers_leaves_out_are_refused(tmp_path: Path) -> None:
    """Relative positions, which releases have dropped: answers without them would be others."""
    tiny_model(tmp_path / "m", "bert")
    path = tmp_path / "m" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"position_embedding_type": "relative_key"}))
    weights = tmp_path / "m" / "model.safetensors"
    name = "bert.encoder.layer.0.attention.self.distance_embedding.weight"
    save_file({**load_file(weights), name: torch.ones(159, 8)}, weights)
    with pytest.raises(RecipeError, match=r"distance_embedding\.weight, which this transf"):
        foreign_network(read_bundle(str(tmp_path / "m")), LABELS, seed=0, dropout=0.0)


def test_code_of_its_own_is_refused_by_name(tmp_path: Path) -> None:
    """A type that transformers does not know, with auto_map, is told apart from an unknown one."""
    tiny_model(tmp_path / "m", "albert")
    path = tmp_path / "m" / "config.json"
    raw = json.loads(path.read_text()) | {"model_type": "mystery"}
    for more, told in (({}, "does not know them"), ({"auto_map": {"AutoModel": "m.M"}}, "trust_remote_code")):
        path.write_text(json.dumps(raw | more))
        with pytest.raises(RecipeError, match=told):
            foreign_network(read_bundle(str(tmp_path / "m")), LABELS, seed=0, dropout=0.0)


def recipe_of(folder: Path, variants: list[dict[str, Any]], **teacher: Any) -> Any:
    """Return a recipe over a tiny ALBERT."""
    if not (folder / "m").is_dir():
        tiny_model(folder / "m", "albert")
        write_csv(folder / "data.csv", toy_texts(240))
    settings = {"epochs": 1, "learning_rate": 0.003, "precision": "fp32"}
    raw = {
        "name": "r", "data": {"file": "data.csv"}, "variants": variants,
        "target": {"calls": 20, "seconds": 0.1},
        "teacher": {"weights": "m", "max_length": 24, "training": settings, **teacher},
    }  # fmt: skip
    return parse_recipe(raw, folder=folder)


@pytest.mark.parametrize(
    "part",
    [
        {"kind": "prune"},
        {"kind": "latency", "speed_ups": [2]},
        {"kind": "vocabulary"},
        {"kind": "qat"},
        {"kind": "distil", "layers": [0]},
        {"kind": "quantize", "smooth": 0.5},
        {"kind": "cnn", "distillation": {"hidden_weight": 1}},
        {"kind": "linear", "augment": {"replace": 0.1}},
    ],
)
def test_what_takes_a_teacher_apart_is_refused_before_any_training(
    part: dict[str, Any], tmp_path: Path
) -> None:
    """The plan names the variant, the technique and the type of model."""
    with pytest.raises(RecipeError, match="'albert'") as caught:
        plan_steps(recipe_of(tmp_path, [{"name": "x", "parent": "teacher", **part}]))
    assert "'x'" in str(caught.value)


def test_a_family_is_made_from_a_teacher_of_another_architecture(tmp_path: Path) -> None:
    """Quantized, and learnt from: by random weights, by other weights, by filters, by n-grams."""
    learning = {"training": {"epochs": 1, "learning_rate": 0.003, "precision": "fp32"}}
    tiny_model(tmp_path / "small", "bert", classifier=False)
    recipe = recipe_of(
        tmp_path,
        [
            {"name": "int8", "kind": "quantize", "parent": "teacher"},
            {
                "name": "chance", "kind": "distil", "parent": "teacher", "weights": "random", "layers": [0],
                "hidden": 16, "heads": 2, "neurons": 32, **learning,
            },
            {
                "name": "small", "kind": "distil", "parent": "teacher", "weights": "small", "layers": [1],
                **learning,
            },
            {"name": "cnn", "kind": "cnn", "parent": "teacher", "channels": 8, **learning},
            {"name": "linear", "kind": "linear", "parent": "teacher", "bits": 10, "epochs": 1},
        ],
    )  # fmt: skip
    family = run_pipeline(recipe, tmp_path / "family")
    assert family.variant("teacher").verification is not None
    for name in family.names:
        answers = load_variant(tmp_path / "family", family, name).logits(["the goal of the coach", "bank"])
        assert answers.shape == (2, 3)
    teacher = next((tmp_path / "family").rglob("teacher@*"))
    assert read_foreign(teacher).shape.config["model_type"] == "albert"


def test_a_dropped_head_is_in_the_manifest(tmp_path: Path) -> None:
    """A head of other names is dropped with a note, which the family keeps; a map keeps the head."""
    recipe = recipe_of(tmp_path, [])
    config = tmp_path / "m" / "config.json"
    raw = json.loads(config.read_text())
    names = [f"LABEL_{row}" for row in range(3)]
    config.write_text(json.dumps(raw | {"id2label": dict(enumerate(names)), "label2id": {}}))
    family = run_pipeline(recipe, tmp_path / "family")
    assert "trained head is dropped" in family.variant("teacher").notes[0]
    mapped = recipe_of(tmp_path, [], labels=dict(zip(names, LABELS, strict=True)), training={"epochs": 0})
    assert run_pipeline(mapped, tmp_path / "mapped").variant("teacher").notes == ()


@pytest.mark.parametrize("kind", [pytest.param(k, marks=pytest.mark.simulations) for k in (*OWN, *FOREIGN)])
def test_every_architecture_is_trained_exported_verified_quantized_and_served(
    kind: str, tmp_path: Path
) -> None:
    """Its ONNX graph keeps within the limits of FP32; INT8 agrees where there is something to quantize."""
    found = try_architecture(kind, tmp_path)
    assert isinstance(found, Outcome)
    assert found.max_logit_error <= 1e-3
    assert found.label_agreement >= 0.999
