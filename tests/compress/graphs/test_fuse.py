"""The graph that is served has few operators and the network's answers."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch

from compress.graphs.export import check_probes
from compress.graphs.fuse import fuse, fuse_file
from compress.networks.network import Classifier, LayerShape
from tests.compress.conftest import random_network, toy_shape
from tests.support.exports import export_once


def kinds(path: Path) -> Counter[str]:
    """Return how many nodes of each kind a graph has."""
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def test_a_served_graph_has_one_operator_per_attention(tmp_path: Path) -> None:
    """Attention, gelu and residual additions of every layer are rewritten, and the answers stay."""
    network = random_network()
    export_once(network, tmp_path / "plain.onnx", fused=False)
    export_once(network, tmp_path / "fused.onnx")
    plain, fused = kinds(tmp_path / "plain.onnx"), kinds(tmp_path / "fused.onnx")
    assert fused["MultiHeadAttention"] == fused["BiasGelu"] == 3
    assert fused["Sum"] == fused["LayerNormalization"] == 7
    assert not {"Softmax", "Where", "Transpose", "Add", "Gelu", "Not"} & set(fused)
    assert fused.total() < plain.total() / 2
    assert check_probes(network, tmp_path / "fused.onnx") < 1e-4


@pytest.mark.parametrize(
    ("layers", "activation"),
    [
        ((LayerShape(1, 8), LayerShape(4, 48)), "gelu"),
        ((LayerShape(0, 48), LayerShape(2, 0)), "gelu"),
        ((LayerShape(3, 16),), "relu"),
        ((), "gelu"),
    ],
)
def test_pruned_networks_are_rewritten_where_they_can_be(
    layers: tuple[LayerShape, ...], activation: str, tmp_path: Path
) -> None:
    """Layers without heads or neurons, and other activations, are left as they are; the rest is fused."""
    torch.manual_seed(0)
    network = Classifier(replace(toy_shape(), layers=layers, activation=activation)).eval()  # type: ignore[arg-type]
    export_once(network, tmp_path / "m.onnx")
    found = kinds(tmp_path / "m.onnx")
    assert found["MultiHeadAttention"] == sum(layer.heads > 0 for layer in layers)
    assert found["BiasGelu"] == (sum(layer.neurons > 0 for layer in layers) if activation == "gelu" else 0)
    assert check_probes(network, tmp_path / "m.onnx") < 1e-4


def test_a_graph_without_the_patterns_is_not_touched(tmp_path: Path) -> None:
    """A second pass finds nothing to rewrite and leaves the file alone."""
    export_once(random_network(), tmp_path / "m.onnx")
    before = (tmp_path / "m.onnx").read_bytes()
    assert not fuse_file(tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == before
    assert not fuse(onnx.load(tmp_path / "m.onnx"))
