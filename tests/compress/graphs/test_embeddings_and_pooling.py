"""Embeddings and pooling of a served graph take fewer operators, and the answers stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from compress.graphs.embeddings_and_pooling import pool_by_product, slice_places
from compress.graphs.export import check_probes
from compress.graphs.fuse import fuse
from compress.graphs.matching import Graph
from compress.networks.network import Classifier
from compress.onnx_graphs.session import open_session
from tests.compress.conftest import toy_shape
from tests.support.exports import export_once


def exported(path: Path, **changes: Any) -> tuple[Classifier, onnx.ModelProto]:
    """Return a network with random weights and its exported graph, which is not rewritten."""
    torch.manual_seed(0)
    network = Classifier(toy_shape(**changes)).eval()
    export_once(network, path, fused=False)
    return network, onnx.load(path)


def behind(model: onnx.ModelProto, name: str) -> set[str]:
    """Return the kinds of nodes that a tensor needs."""
    makers = {out: node for node in model.graph.node for out in node.output}
    found, queue = set(), [name]
    while queue:
        node = makers.get(queue.pop())
        if node is not None:
            found.add(node.op_type)
            queue += node.input
    return found


def feeds(batch: int, length: int) -> dict[str, np.ndarray[Any, Any]]:
    """Return ids and mask of texts of different lengths."""
    rng = np.random.default_rng(batch * length)
    mask = (np.arange(length) < rng.integers(1, length + 1, (batch, 1))).astype(np.int64)
    return {"input_ids": rng.integers(4, 30, (batch, length)) * mask, "attention_mask": mask}


@pytest.mark.parametrize("changes", [{}, {"position_offset": 2}, {"pooling": "first"}])
def test_rewritten_ends_answer_like_the_network(changes: dict[str, Any], tmp_path: Path) -> None:
    """Texts alone, padded batches and the longest text get the answers of the graph as exported."""
    network, model = exported(tmp_path / "plain.onnx", **changes)
    before = open_session(str(tmp_path / "plain.onnx"))
    made = fuse(model)
    assert made["embeddings"] == 1
    assert made["pooling"] == (changes.get("pooling") != "first")
    onnx.save(model, tmp_path / "fused.onnx")
    after = open_session(str(tmp_path / "fused.onnx"))
    for batch, length in ((1, 1), (1, 6), (1, network.shape.longest), (8, 11)):
        given = feeds(batch, length)
        np.testing.assert_allclose(after.run(None, given)[0], before.run(None, given)[0], atol=1e-5)
    assert check_probes(network, tmp_path / "fused.onnx") < 1e-4


def test_places_are_a_slice_and_pooling_is_a_product(tmp_path: Path) -> None:
    """No place is counted or gathered, and no state is multiplied by the mask one by one."""
    _, model = exported(tmp_path / "m.onnx", position_offset=2)
    fuse(model)
    places = next(node.output[0] for node in model.graph.node if node.op_type == "Slice")
    assert behind(model, places) == {"Slice", "Shape"}
    assert not {"Range", "ReduceSum", "Div", "Mul"} & {node.op_type for node in model.graph.node}


@pytest.mark.parametrize(
    ("constant_of", "value"), [("Range", 3), ("Unsqueeze", 1)], ids=["counted from 3", "another axis"]
)
def test_places_counted_otherwise_are_left_alone(constant_of: str, value: int, tmp_path: Path) -> None:
    """A range that does not start at 0, or an embedding spread over another axis, is no slice."""
    _, model = exported(tmp_path / "m.onnx")
    graph = Graph(model)
    node = next(graph.of_kind(constant_of))
    place = 0 if constant_of == "Range" else 1
    shape = np.asarray(graph.value(node.input[place])).shape
    node.input[place] = graph.constant("other", np.full(shape, value))
    assert not any([slice_places(graph, added) for added in graph.of_kind("Add")])


def test_sums_over_other_axes_are_left_alone(tmp_path: Path) -> None:
    """A division by another sum than that of the mask over places is no mean over tokens."""
    _, model = exported(tmp_path / "m.onnx")
    graph = Graph(model)
    divided = next(graph.of_kind("Div"))
    counted = graph.maker[divided.input[1]]
    counted.input[1] = graph.constant("other", np.array([2], np.int64))
    assert not pool_by_product(graph, divided)
