"""Pruning removes what it says, and only that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from compress.export import check_probes, export_onnx
from compress.network import Classifier, LayerShape
from compress.prune import importance, keep_best, shrink
from tests.compress.test_network import batch
from tests.compress.test_training import toy_tokens


def everything(network: Classifier) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the indices of all heads and neurons."""
    layers = network.shape.layers
    return [np.arange(x.heads) for x in layers], [np.arange(x.neurons) for x in layers]


def test_keeping_everything_changes_nothing(network: Classifier) -> None:
    """A network shrunk to all of its heads and neurons answers the same."""
    smaller = shrink(network, *everything(network))
    assert torch.equal(smaller(*batch(network)), network(*batch(network)))


def test_removing_silent_parts_changes_nothing(network: Classifier) -> None:
    """Heads and neurons whose output weights are zero can go without a trace, whole halves included."""
    heads, neurons = everything(network)
    with torch.no_grad():
        network.layers[0].attention.output.weight[:, 8:24] = 0
        network.layers[1].attention.output.weight.zero_()
        network.layers[2].narrow.weight.zero_()
        network.layers[0].narrow.weight[:, 10:] = 0
    heads[0], heads[1] = np.array([0, 3]), np.array([], dtype=int)
    neurons[0], neurons[2] = np.arange(10), np.array([], dtype=int)
    smaller = shrink(network, heads, neurons)
    assert smaller.shape.layers == (LayerShape(2, 10), LayerShape(0, 48), LayerShape(4, 0))
    assert smaller.summary()["parameters"] < network.summary()["parameters"]
    torch.testing.assert_close(smaller(*batch(network)), network(*batch(network)), atol=1e-5, rtol=1e-4)


def test_uneven_networks_export_and_shrink_again(network: Classifier, tmp_path: Path) -> None:
    """Layers of different width, one without heads and one without neurons, become a graph that agrees."""
    heads, neurons = everything(network)
    heads[1], neurons[2] = np.array([], dtype=int), np.array([], dtype=int)
    smaller = shrink(network, heads, neurons)
    again = shrink(smaller, *everything(smaller))
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


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    share=st.floats(0.05, 1.0),
    group=st.sampled_from([1, 4]),
    seed=st.integers(0, 9),
)
def test_the_best_of_all_layers_stay(sizes: list[int], share: float, group: int, seed: int) -> None:
    """The share kept is the share asked for, within the rounding of each layer, and the best stay."""
    rng = np.random.default_rng(seed)
    scores = [rng.random(size) for size in sizes]
    kept = keep_best(scores, share, group=group)
    total = sum(len(layer) for layer in kept)
    assert abs(total - max(1, round(share * sum(sizes)))) <= (group / 2) * len(sizes) * (group > 1)
    for layer, indices in zip(scores, kept, strict=True):
        assert list(indices) == sorted(set(indices.tolist()))
        gone = np.setdiff1d(np.arange(len(layer)), indices)
        if len(indices) and len(gone):
            assert layer[indices].min() >= layer[gone].max()
