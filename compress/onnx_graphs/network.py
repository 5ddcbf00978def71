"""A given graph as a network: asked, quantized and learnt from, never trained or taken apart."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, ValueInfoProto, numpy_helper
from torch import Tensor

from compress.networks.models import (
    ARCHITECTURE,
    GraphInputs,
    read_shape,
    token_inputs,
)
from compress.networks.whole import WholeNetwork
from compress.onnx_graphs.adapting import LOGITS
from compress.onnx_graphs.session import open_session
from contract.errors import FamilyError
from contract.family import Precision
from contract.files import write_bytes, write_json
from runtime.wordpiece import ATTENTION_MASK, INPUT_IDS, TOKEN_TYPES

if TYPE_CHECKING:
    import onnxruntime

GRAPH = "model.onnx"
PRODUCTS = frozenset(
    {"MatMul", "Gemm", "MatMulInteger", "MatMulNBits", "DynamicQuantizeMatMul", "QLinearMatMul"}
)


@dataclass(frozen=True)
class GraphShape:
    """How a given graph is used; written beside it.

    Attributes:
        vocabulary: token ids are below it.
        longest: tokens that it takes at most.
        classes: C.
        alone: whether batchmates or padding change its answers, so that it is asked text by text.
        one_text: whether it takes one text at a time and no more.
        token_types: whether it is given the segment of each token.
        pad_id: that padding consists of.
        precision: that it computes in.
        words: the table of its word embeddings, by name; None where there is none in float32.
        parameters: numbers in its constants.
    """

    vocabulary: int
    longest: int
    classes: int
    alone: bool = False
    one_text: bool = False
    token_types: bool = False
    pad_id: int = 0
    precision: Precision = "fp32"
    words: str | None = None
    parameters: int = 0


class GraphNetwork(WholeNetwork[GraphShape]):
    """A given ONNX graph: token ids, their mask and, where it reads them, segments in; logits out."""

    def __init__(self, shape: GraphShape, graph: Path) -> None:
        super().__init__()
        self.shape = shape
        self._graph = graph
        self._session: onnxruntime.InferenceSession | None = None

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Return logits [B, C] of ids [B, T], their mask [B, T] and their segments [B, T]."""
        if self._session is None:
            self._session = open_session(str(self._graph), threads=torch.get_num_threads())
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        given = {INPUT_IDS: input_ids, ATTENTION_MASK: attention_mask, TOKEN_TYPES: types}
        if not self.shape.alone or len(input_ids) == 1:
            return self._answers(given)
        rows = []
        for row, length in enumerate(attention_mask.sum(1).tolist()):
            rows.append(self._answers({name: part[row : row + 1, :length] for name, part in given.items()}))
        return torch.cat(rows)

    def _answers(self, given: dict[str, Tensor]) -> Tensor:
        assert self._session is not None
        feeds = {item.name: given[item.name].numpy() for item in self._session.get_inputs()}
        return torch.from_numpy(self._session.run([LOGITS], feeds)[0])

    @property
    def one_text(self) -> bool:
        """Whether it takes one text at a time and no more."""
        return self.shape.one_text

    @property
    def precision(self) -> Precision:
        """The precision that it computes in."""
        return self.shape.precision

    @property
    def graph(self) -> Path:
        """The graph's file."""
        return self._graph

    @cached_property
    def _model(self) -> ModelProto:
        return onnx.load(self._graph)

    @property
    def word_table(self) -> Tensor:
        """The table of word embeddings [V, H]. Raises FamilyError where it has none."""
        found = next((one for one in self._model.graph.initializer if one.name == self.shape.words), None)
        if found is None:
            raise FamilyError("the graph has no table of word embeddings in float32", where=self._graph)
        return torch.from_numpy(numpy_helper.to_array(found).copy())

    def graph_inputs(self) -> GraphInputs:
        """Return the inputs of a batch, by name; a graph is not traced."""
        plain = token_inputs(self.shape.vocabulary, self.shape.longest)
        if not self.shape.token_types:
            return plain
        axes = {**plain.axes, TOKEN_TYPES: plain.axes[INPUT_IDS]}
        return GraphInputs((*plain.example, torch.zeros_like(plain.example[0])), axes, ())

    def flops(self, length: float) -> float:
        """Return the floating-point operations of the matrix products for one text of so many tokens."""
        return _flops(self._model, max(1, round(min(length, self.shape.longest))))

    def save(self, folder: Path) -> None:
        """Write graph and shape into a folder, each file atomically."""
        if folder / GRAPH != self._graph:
            write_bytes(folder / GRAPH, self._graph.read_bytes())
        write_json(folder / ARCHITECTURE, {"network": "onnx", **asdict(self.shape)})

    def summary(self) -> dict[str, Any]:
        """Return its size."""
        return {"parameters": self.shape.parameters}


def read_graph(folder: Path) -> GraphNetwork:
    """Return the network that `GraphNetwork.save` wrote."""
    return GraphNetwork(GraphShape(**read_shape(folder)), folder / GRAPH)


def _flops(model: ModelProto, length: int) -> float:
    products = [node for node in model.graph.node if node.op_type in PRODUCTS]
    watched = ModelProto()
    watched.CopyFrom(model)
    constants = {one.name: one for one in model.graph.initializer}
    names = {name for node in products for name in (node.input[0], node.output[0]) if name not in constants}
    names -= {item.name for item in (*model.graph.output, *model.graph.input)}
    watched.graph.output.extend(ValueInfoProto(name=name) for name in sorted(names))
    session = open_session(watched.SerializeToString())
    ones = np.ones((1, length), np.int64)
    feeds = {item.name: ones if item.name != TOKEN_TYPES else 0 * ones for item in session.get_inputs()}
    shapes: dict[str, NDArray[np.generic]] = {}
    for output, found in zip(session.get_outputs(), session.run(None, feeds), strict=True):
        shapes[output.name] = found
    return float(sum(_product_flops(node, shapes) for node in products))


def _product_flops(node: NodeProto, found: dict[str, NDArray[np.generic]]) -> float:
    first, out = found.get(node.input[0]), found.get(node.output[0])
    if first is None or out is None:
        return 0.0
    swapped = node.op_type == "Gemm" and any(item.name == "transA" and item.i for item in node.attribute)
    return 2.0 * out.size * int(first.shape[0 if swapped else -1])
