"""Rewrites of an exported graph for ONNX Runtime on a processor: fewer operators, the same answers.

At a dozen tokens an operator costs more to call than to compute, and some of the fusions that ONNX
Runtime makes by itself are slower than what they replace. Every rewrite is made where its pattern is found
and nowhere else, so a graph of another shape comes out as it went in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from contract.files import atomic_path
from runtime.wordpiece import ATTENTION_MASK

CONTRIB = "com.microsoft"
_MASK = f"{ATTENTION_MASK}_int32"


class Graph:
    """A graph to match patterns in: who makes a tensor, who reads it, which are constant."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.proto = model.graph
        self.nodes = list(model.graph.node)
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.refresh()

    def refresh(self) -> None:
        """Read nodes again after they have changed."""
        self.maker = {out: node for node in self.nodes for out in node.output}
        self.readers = Counter(name for node in self.nodes for name in node.input)
        self.readers.update(item.name for item in self.proto.output)

    def made_by(self, name: str, *kinds: str) -> NodeProto | None:
        """Return the node that makes a tensor, if it is of one of those kinds."""
        node = self.maker.get(name)
        return node if node is not None and node.op_type in kinds else None

    def back(self, name: str, *kinds: str) -> NodeProto | None:
        """Return the node at the end of a chain of kinds, each the first input of the one before."""
        node = None
        for kind in kinds:
            node = self.made_by(name, kind)
            if node is None:
                return None
            name = node.input[0]
        return node

    def value(self, name: str) -> NDArray[np.generic] | None:
        """Return a constant."""
        tensor = self.constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def biased(self, name: str) -> tuple[str, str] | None:
        """Return (product, bias) of a tensor that is a matrix product plus a constant vector."""
        node = self.made_by(name, "Add")
        for product, bias in () if node is None else (tuple(node.input), tuple(reversed(node.input))):
            constant = self.constants.get(bias)
            if self.made_by(product, "MatMul") and constant is not None and len(constant.dims) == 1:
                return product, bias
        return None

    def of_kind(self, kind: str) -> Iterator[NodeProto]:
        """Yield the nodes of a kind, as they are now."""
        yield from [node for node in self.nodes if node.op_type == kind]

    def replace(self, old: NodeProto, new: Iterable[NodeProto]) -> None:
        """Put nodes in the place of one; what only the old one needed goes with `write`."""
        place = next(index for index, node in enumerate(self.nodes) if node is old)
        self.nodes[place : place + 1] = new
        self.refresh()

    def write(self) -> None:
        """Give the model its new nodes, and neither nodes nor constants that nothing needs."""
        while True:
            kept = [node for node in self.nodes if any(self.readers[out] for out in node.output)]
            if len(kept) == len(self.nodes):
                break
            self.nodes = kept
            self.refresh()
        constants = [tensor for tensor in self.proto.initializer if self.readers[tensor.name]]
        del self.proto.node[:]
        self.proto.node.extend(self.nodes)
        del self.proto.initializer[:]
        self.proto.initializer.extend(constants)


def fuse_file(path: Path) -> Counter[str]:
    """Rewrite a graph file in place, atomically, and return how often each rewrite was made."""
    model = onnx.load(path)
    made = fuse(model)
    if made:
        with atomic_path(path) as temporary:
            onnx.save(model, temporary)
    return made


def fuse(model: onnx.ModelProto) -> Counter[str]:
    """Rewrite a graph in place and return how often each rewrite was made.

    attention: everything between the query-key-value product and the output product becomes one
    `MultiHeadAttention` that adds the bias, scales, masks and mixes. gelu: with the bias before it, one
    `BiasGelu`. residual: an addition before a layer normalisation becomes `Sum`, bias included, because ONNX
    Runtime would turn the addition into `SkipLayerNormalization`, which on a processor takes three times
    as long as the two.
    """
    graph = Graph(model)
    made: Counter[str] = Counter()
    for softmax in graph.of_kind("Softmax"):
        made["attention"] += _fuse_attention(graph, softmax)
    for gelu in graph.of_kind("Gelu"):
        made["gelu"] += _fuse_gelu(graph, gelu)
    for norm in graph.of_kind("LayerNormalization"):
        made["residual"] += _split_residual(graph, norm)
    graph.write()
    contributed = made["attention"] or made["gelu"]
    if contributed and CONTRIB not in {item.domain for item in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(CONTRIB, 1))
    return +made


def _fuse_attention(graph: Graph, softmax: NodeProto) -> bool:
    """softmax(mask(Q K' scale)) V over a split product, as one operator."""
    masked = graph.back(softmax.input[0], "Where")
    unseen = None if masked is None else graph.back(masked.input[0], "Not", "Unsqueeze", "Cast")
    scaled = None if masked is None else graph.made_by(masked.input[2], "Mul")
    if masked is None or scaled is None or unseen is None or unseen.input[0] != ATTENTION_MASK:
        return False
    scale, scores = graph.value(scaled.input[1]), graph.made_by(scaled.input[0], "MatMul")
    mixed = _reader(graph, softmax.output[0], "MatMul")
    merged = mixed and _reader(graph, mixed.output[0], "Transpose")
    merged = merged and _reader(graph, merged.output[0], "Reshape")
    if scale is None or scores is None or mixed is None or merged is None:
        return False
    sources = [graph.back(name, "Transpose", "Reshape") for name in (*scores.input, mixed.input[1])]
    reshapes = [node for node in sources if node is not None]
    split = graph.made_by(reshapes[0].input[0], "Split") if len(reshapes) == 3 else None
    if split is None or [node.input[0] for node in reshapes] != list(split.output):
        return False
    biased, heads = graph.biased(split.input[0]), _heads(graph, reshapes[0].input[1])
    if biased is None or heads is None:
        return False
    product, bias = biased
    if _MASK not in graph.maker:
        graph.nodes.insert(
            0, helper.make_node("Cast", [ATTENTION_MASK], [_MASK], name=_MASK, to=TensorProto.INT32)
        )
    split.input[0] = product
    attention = helper.make_node(
        "MultiHeadAttention",
        [*split.output, bias, _MASK],
        [merged.output[0]],
        name=f"attention_{merged.output[0]}",
        domain=CONTRIB,
        num_heads=heads,
        scale=float(scale),
    )
    graph.replace(merged, [attention])
    return True


def _reader(graph: Graph, name: str, kind: str) -> NodeProto | None:
    """Return the one node that reads a tensor, if it is of a kind."""
    if graph.readers[name] != 1:
        return None
    return next((node for node in graph.nodes if name in node.input and node.op_type == kind), None)


def _heads(graph: Graph, shape: str) -> int | None:
    """Return the third entry of a shape [batch, length, heads, size]."""
    parts = graph.made_by(shape, "Concat")
    value = graph.value(parts.input[2]) if parts is not None and len(parts.input) == 4 else None
    return None if value is None or value.size != 1 else int(value.item())


def _fuse_gelu(graph: Graph, gelu: NodeProto) -> bool:
    biased = graph.biased(gelu.input[0])
    exact = all(item.s != b"tanh" for item in gelu.attribute)
    if biased is None or not exact or graph.readers[gelu.input[0]] != 1:
        return False
    fused = helper.make_node("BiasGelu", biased, gelu.output, name=f"bias_{gelu.name}", domain=CONTRIB)
    graph.replace(gelu, [fused])
    return True


def _split_residual(graph: Graph, norm: NodeProto) -> bool:
    added = graph.made_by(norm.input[0], "Add")
    if added is None:
        return False
    terms: list[str] = []
    for term in added.input:
        biased = graph.biased(term) if graph.readers[term] == 1 else None
        terms += [term] if biased is None else biased
    graph.replace(added, [helper.make_node("Sum", terms, added.output, name=f"sum_{added.name}")])
    return True
