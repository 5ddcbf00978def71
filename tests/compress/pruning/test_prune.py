"""Pruning removes what it says, and only that."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compress.graphs.export import check_probes, export_onnx
from compress.learning.distil import distil_student
from compress.learning.importance import importance, state_importance
from compress.learning.training import predict
from compress.networks.cut import shrink
from compress.networks.models import Tokens, load_network
from compress.networks.network import Classifier, LayerShape
from compress.pruning.prune import keep_best, prune_network
from compress.pruning.rounds import epochs_per_round
from compress.steps import Context
from compress.store import Finished
from contract.errors import RecipeError
from tests.compress.conftest import random_network
from tests.compress.learning.test_training import toy_tokens
from tests.compress.networks.test_network import batch
from tests.compress.toy_steps import finished_network, toy_context, toy_dataset


def everything(network: Classifier) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the indices of all heads and neurons."""
    layers = network.shape.layers
    return [np.arange(x.heads) for x in layers], [np.arange(x.neurons) for x in layers]


def test_keeping_everything_changes_nothing(network: Classifier) -> None:
    """A network shrunk to all of its heads and neurons answers the same."""
    smaller = shrink(network, *everything(network), toy_tokens(40)[0])
    assert torch.equal(smaller(*batch(network)), network(*batch(network)))


def test_removing_silent_parts_changes_nothing(network: Classifier) -> None:
    """Heads and neurons whose output weights are zero can go without a trace."""
    heads, neurons = everything(network)
    with torch.no_grad():
        network.layers[0].attention.output.weight[:, 8:24] = 0
        network.layers[0].narrow.weight[:, 10:] = 0
    heads[0], neurons[0] = np.array([0, 3]), np.arange(10)
    smaller = shrink(network, heads, neurons, toy_tokens(40)[0])
    assert smaller.shape.layers == (LayerShape(2, 10), LayerShape(4, 48), LayerShape(4, 48))
    assert smaller.summary()["parameters"] < network.summary()["parameters"]
    torch.testing.assert_close(smaller(*batch(network)), network(*batch(network)), atol=1e-5, rtol=1e-4)


def test_a_silent_half_goes_with_its_normalisation(network: Classifier) -> None:
    """A half whose output weights are zero leaves no operator behind.

    Answers to other texts stay near what they were: nearer by far than when its normalisation alone is left
    out.
    """
    tokens, _ = toy_tokens(200)
    heads, neurons = everything(network)
    with torch.no_grad():
        for layer in network.layers:
            for norm in (layer.attention_norm, layer.output_norm):
                norm.weight.uniform_(0.5, 1.5)
                norm.bias.normal_(0, 0.3)
        network.layers[1].attention.output.weight.zero_()
        network.layers[1].narrow.weight.zero_()
        network.layers[2].narrow.weight.zero_()
    heads[1], neurons[1], neurons[2] = (np.array([], dtype=int),) * 3
    smaller = shrink(network, heads, neurons, Tokens(tokens.ids[:150], tokens.lengths[:150]))
    assert smaller.shape.layers == (LayerShape(4, 48), LayerShape(0, 0), LayerShape(4, 0))
    assert not any("layers.1." in name or "layers.2.output_norm" in name for name in smaller.state_dict())
    unfolded = copy.deepcopy(smaller)
    unfolded.load_state_dict({name: network.state_dict()[name] for name in smaller.state_dict()})
    others = Tokens(tokens.ids[150:], tokens.lengths[150:])
    wanted = predict(network, others)
    errors = [np.square(predict(made, others) - wanted).mean() for made in (smaller, unfolded)]
    assert errors[0] < 0.05 * errors[1]
    assert errors[0] < 0.05 * wanted.var()


def test_uneven_networks_export_and_shrink_again(network: Classifier, tmp_path: Path) -> None:
    """Layers of different width, one without heads and one without neurons, become a graph that agrees."""
    heads, neurons = everything(network)
    heads[1], neurons[2] = np.array([], dtype=int), np.array([], dtype=int)
    tokens, _ = toy_tokens(40)
    smaller = shrink(network, heads, neurons, tokens)
    again = shrink(smaller, *everything(smaller), tokens)
    assert torch.equal(again(*batch(network)), smaller(*batch(network)))
    export_onnx(smaller, tmp_path / "m.onnx")
    assert check_probes(smaller, tmp_path / "m.onnx") < 1e-4


def test_importance_is_zero_for_silent_parts(network: Classifier) -> None:
    """What never reaches the logits scores nothing; the rest scores something."""
    with torch.no_grad():
        network.layers[0].attention.output.weight[:, :8] = 0
        network.layers[1].narrow.weight[:, 5] = 0
    tokens, targets = toy_tokens(40)
    heads, neurons = importance(network, tokens, targets)
    assert heads[0][0] == 0
    assert neurons[1][5] == 0
    assert (heads[0][1:] > 0).all()
    assert len(neurons[2]) == 48


def test_an_empty_layer_counts_no_state_twice(network: Classifier) -> None:
    """What passes on its states unchanged does not change what a dimension of the states is worth."""
    tokens, targets = toy_tokens(40)
    layers = network.shape.layers
    longer = Classifier(replace(network.shape, layers=(layers[0], LayerShape(0, 0), *layers[1:])))
    longer.load_state_dict(
        {name.replace("layers.2.", "layers.3.").replace("layers.1.", "layers.2."): value
         for name, value in network.state_dict().items()}
    )  # fmt: skip
    scores = [state_importance(made, tokens, targets) for made in (network, longer)]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-4)


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    share=st.floats(0.05, 1.0),
    group=st.sampled_from([1, 4, 16]),
    seed=st.integers(0, 9),
)
def test_the_best_of_all_layers_stay(sizes: list[int], share: float, group: int, seed: int) -> None:
    """As many are kept as were asked for, within the rounding of each layer, and the best stay."""
    rng = np.random.default_rng(seed)
    scores = [rng.random(size) for size in sizes]
    count = max(1, round(share * sum(sizes)))
    kept = keep_best(scores, count, group=group)
    total = sum(len(layer) for layer in kept)
    assert total >= 1
    assert abs(total - count) <= max(group / 2 * len(sizes), group - 1) * (group > 1)
    for layer, indices in zip(scores, kept, strict=True):
        assert list(indices) == sorted(set(indices.tolist()))
        gone = np.setdiff1d(np.arange(len(layer)), indices)
        if len(indices) and len(gone):
            assert layer[indices].min() >= layer[gone].max()


def test_less_than_half_a_group_each_leaves_one_group() -> None:
    """Where every layer's count rounds to none, the layer with most of the best keeps a group."""
    ranks = np.arange(80, dtype=float)
    kept = keep_best([ranks[::2], ranks[1::2]], 7, group=16)
    assert [len(layer) for layer in kept] == [0, 16]
    assert [len(layer) for layer in keep_best([np.ones(3), np.ones(5)], 1, group=16)] == [3, 0]


def test_equal_scores_do_not_let_more_stay() -> None:
    """Where all scores are the same the count is still the one asked for, none of it beyond."""
    kept = keep_best([np.zeros(4), np.zeros(4), np.zeros(0)], 3)
    assert [len(layer) for layer in kept] == [3, 0, 0]
    assert [len(layer) for layer in keep_best([np.zeros(0)], 1)] == [0]


@given(epochs=st.integers(0, 40), rounds=st.integers(1, 12))
def test_epochs_are_shared_among_rounds(epochs: int, rounds: int) -> None:
    """No epoch is lost or added, the last round has most, and no round goes without while others have two."""
    shared = epochs_per_round(epochs, rounds)
    assert len(shared) == rounds
    assert sum(shared) == epochs
    assert max(shared) == shared[-1]
    assert list(shared) == sorted(shared)
    assert min(shared) >= (1 if epochs >= rounds else 0)


@pytest.fixture
def step_of(tmp_path: Path) -> Callable[..., Context]:
    """Makes the context of a pruning step over a parent of random weights."""
    parent = finished_network(tmp_path / "teacher", random_network())

    def make(**settings: Any) -> Context:
        part = {"kind": "prune", "name": "small", "parent": "teacher", **settings}
        return toy_context(tmp_path, part, toy_dataset(), parent=parent)

    return make


def test_layers_go_first_and_the_shares_are_of_the_rest(step_of: Callable[..., Context]) -> None:
    """Two of three layers stay; half of their heads and all of their neurons."""
    run = {"epochs": 1, "learning_rate": 0.001, "precision": "fp32"}
    context = step_of(layers=[0, 2], heads=0.5, neurons=1.0, training=run)
    result = prune_network(context)
    made = load_network(context.folder)
    assert isinstance(made, Classifier)
    assert len(made.layers) == 2
    assert sum(layer.heads for layer in made.shape.layers) == 4
    assert [layer.neurons for layer in made.shape.layers] == [48, 48]
    assert result["rounds"] == [{"heads": 4, "neurons": 96, "epochs": 1}]


def test_untrained_layers_are_the_parents(step_of: Callable[..., Context]) -> None:
    """With no epochs, and everything but a layer kept, the weights that are left are the parent's."""
    context = step_of(layers=[1], heads=1, neurons=1, training={"epochs": 0})
    prune_network(context)
    made, parent = load_network(context.folder), random_network()
    assert isinstance(made, Classifier)
    assert torch.equal(made.layers[0].widen.weight, parent.layers[1].widen.weight)


def test_rounds_remove_the_same_share_each(step_of: Callable[..., Context]) -> None:
    """A quarter in two rounds: half, then half of that; the last round ends where one round would."""
    run = {"epochs": 3, "learning_rate": 0.001, "precision": "fp32"}
    context = step_of(heads=0.25, neurons=1.0, rounds=2, training=run)
    result = prune_network(context)
    assert [(found["heads"], found["epochs"]) for found in result["rounds"]] == [(6, 1), (3, 2)]
    assert sum(heads for heads, _ in result["widths"]) == 3


@pytest.mark.parametrize("layers", [[2, 1], [0, 3], [1, 1], [-1, 0], []])
def test_layers_that_are_not_there_are_refused(step_of: Callable[..., Context], layers: list[int]) -> None:
    """Layers must ascend among the parent's; the error names the variant and what there is."""
    with pytest.raises(RecipeError, match="'small': `layers` must ascend within 0 to 2"):
        prune_network(step_of(layers=layers))


def test_pruned_networks_can_be_distilled_and_students_pruned(tmp_path: Path) -> None:
    """Prune, distil, prune: each is the parent of the next, its tokenizer in its folder."""
    before, widths = finished_network(tmp_path / "teacher", random_network()), []
    halved = {"heads": 0.5, "neurons": 0.5}
    for name, kind, function, settings in (
        ("one", "prune", prune_network, halved),
        ("two", "distil", distil_student, {"layers": [0, 2]}),
        ("three", "prune", prune_network, halved),
    ):
        run = {"epochs": 1, "learning_rate": 0.001, "precision": "fp32"}
        part = {"kind": kind, "name": name, "parent": before.step, "training": run, **settings}
        context = toy_context(tmp_path, part, toy_dataset(), parent=before)
        before = Finished(name, name, context.folder, {}, function(context), {})
        widths.append(before.result["widths"])
    assert widths[1] == [widths[0][0], widths[0][2]]
    assert sum(heads for heads, _ in widths[2]) == round(sum(heads for heads, _ in widths[1]) / 2)
