"""Both ends of a given graph in the form that is served: token ids and mask in, ordered logits out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from compress.onnx_graphs.forms import NARROW, drop_unread, read_by
from compress.onnx_graphs.ports import POSITIONS, Port, maker_of
from runtime.wordpiece import ATTENTION_MASK, INPUT_IDS, TOKEN_TYPES

LOGITS = "logits"
SERVED = (INPUT_IDS, ATTENTION_MASK, TOKEN_TYPES)
OWN = "served/"
LEAST_PROBABILITY = 1e-30


@dataclass(frozen=True)
class Ends:
    """How a given graph is wrapped.

    Attributes:
        inputs: by role.
        output: that holds its answers.
        order: for each label its row; empty for the order that it has.
        probabilities: whether the output holds these, so that their logarithm is served.
        batch, length: axes that are always so long: what is served is padded to them, and cut after.
        pad_id: that tokens beyond a text are replaced by; None leaves them as they come.
        filled: what lies beyond a text in a graph of one length.
    """

    inputs: Mapping[str, Port]
    output: str
    order: tuple[int, ...] = ()
    probabilities: bool = False
    batch: int | None = None
    length: int | None = None
    pad_id: int | None = None
    filled: int = 0


def adapt(model: ModelProto, ends: Ends) -> ModelProto:
    """Return a copy of a prepared graph with the ends that are served.

    Its inputs are int64 [batch, length], those of SERVED that it needs; its one output is LOGITS, float32
    [batch, labels]. Positions are counted from 0. A softmax at the end is left out; other probabilities
    become logarithms.
    """
    made = ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    source = ends.output
    end = maker_of(graph, source)
    if ends.probabilities and end is not None and end.op_type == "Softmax":
        source = end.input[0]
    before = _Nodes(graph)
    _rename(graph, {name: f"given/{name}" for name in (*SERVED, LOGITS)})
    shapes = _inputs(before, ends)
    after = _Nodes(graph)
    _outputs(after, ends, _renamed(source), shapes)
    nodes = [*before.nodes, *(NodeProto.FromString(node.SerializeToString()) for node in graph.node)]
    nodes += after.nodes
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(_needed(nodes, LOGITS))
    read = {name for node in graph.node for name in node.input}
    for name in SERVED:
        if name in read:
            graph.input.append(helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"]))
    graph.output.append(helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ["batch", "labels"]))
    drop_unread(graph)
    return made


def freed(model: ModelProto) -> ModelProto:
    """Return a copy of a graph that declares no length of any axis, of its inputs or inside."""
    made = ModelProto()
    made.CopyFrom(model)
    for item in (*made.graph.input, *made.graph.output):
        for number, axis in enumerate(item.type.tensor_type.shape.dim):
            axis.dim_param = f"axis_{number}_of_{item.name}"
    del made.graph.value_info[:]
    return made


def _renamed(name: str) -> str:
    return f"given/{name}" if name in (*SERVED, LOGITS) else name


class _Nodes:
    """Nodes that are added to a graph, with the constants that they need."""

    def __init__(self, graph: GraphProto) -> None:
        self.nodes: list[NodeProto] = []
        self._graph = graph
        self._names = {tensor.name for tensor in graph.initializer}

    def add(self, kind: str, inputs: Sequence[str], output: str, **attributes: int) -> str:
        """Add a node and return its output."""
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"{OWN}{output}", **attributes))
        return output

    def constant(self, values: Sequence[int] | int) -> str:
        """Return the name of an int64 constant."""
        array = np.array(values, np.int64)
        name = OWN + "_".join(["const", *map(str, array.ravel().tolist()), str(array.ndim)])
        return self._kept(name, array)

    def number(self, value: float) -> str:
        """Return the name of a float32 constant."""
        return self._kept(f"{OWN}number_{value:g}", np.array(value, np.float32))

    def _kept(self, name: str, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> str:
        if name not in self._names:
            self._names.add(name)
            self._graph.initializer.append(numpy_helper.from_array(array, name))
        return name


def _inputs(nodes: _Nodes, ends: Ends) -> str:
    """Add what makes the given inputs from those served; return the shape [batch, length] that was asked."""
    shape = nodes.add("Shape", [INPUT_IDS], f"{OWN}asked")
    made = {INPUT_IDS: INPUT_IDS, ATTENTION_MASK: ATTENTION_MASK, TOKEN_TYPES: TOKEN_TYPES}
    if ends.pad_id is not None:
        real = nodes.add("Cast", [ATTENTION_MASK], f"{OWN}real", to=TensorProto.BOOL)
        pad = nodes.constant(ends.pad_id)
        made[INPUT_IDS] = nodes.add("Where", [real, INPUT_IDS, pad], f"{OWN}ids")
    if ends.batch is not None or ends.length is not None:
        pads = _pads(nodes, ends, shape)
        for role, fill in ((INPUT_IDS, ends.filled), (ATTENTION_MASK, 0), (TOKEN_TYPES, 0)):
            padded = [made[role], pads, nodes.constant(fill)]
            made[role] = nodes.add("Pad", padded, f"{OWN}padded_{role}")
    if POSITIONS in ends.inputs:
        made[POSITIONS] = _positions(nodes, made[INPUT_IDS])
    for role, port in ends.inputs.items():
        inner = _renamed(port.name)
        if port.kind == TensorProto.INT64:
            nodes.add("Identity", [made[role]], inner)
        else:
            kind = TensorProto.FLOAT if port.kind in NARROW else port.kind
            nodes.add("Cast", [made[role]], inner, to=kind)
    return shape


def _pads(nodes: _Nodes, ends: Ends, shape: str) -> str:
    """Add what counts how much is missing at the end of each axis, [0, 0, rows, tokens]."""
    zeros = nodes.constant([0, 0])
    missing = []
    for axis, wanted in enumerate((ends.batch, ends.length)):
        if wanted is None:
            missing.append(nodes.constant([0]))
            continue
        there = nodes.add("Gather", [shape, nodes.constant([axis])], f"{OWN}there_{axis}", axis=0)
        missing.append(nodes.add("Sub", [nodes.constant([wanted]), there], f"{OWN}missing_{axis}"))
    return nodes.add("Concat", [zeros, *missing], f"{OWN}pads", axis=0)


def _positions(nodes: _Nodes, ids: str) -> str:
    shape = nodes.add("Shape", [ids], f"{OWN}whole")
    length = nodes.add("Gather", [shape, nodes.constant(1)], f"{OWN}length", axis=0)
    row = nodes.add("Range", [nodes.constant(0), length, nodes.constant(1)], f"{OWN}row")
    return nodes.add("Expand", [row, shape], f"{OWN}positions")


def _outputs(nodes: _Nodes, ends: Ends, source: str, shape: str) -> None:
    """Add what makes the served logits of the graph's answers."""
    found = nodes.add("Cast", [source], f"{OWN}answers", to=TensorProto.FLOAT)
    if ends.probabilities and source == _renamed(ends.output):
        least = nodes.add("Max", [found, nodes.number(LEAST_PROBABILITY)], f"{OWN}likely")
        found = nodes.add("Log", [least], f"{OWN}logarithms")
    if ends.order:
        found = nodes.add("Gather", [found, nodes.constant(ends.order)], f"{OWN}ordered", axis=1)
    if ends.batch is not None:
        rows = nodes.add("Gather", [shape, nodes.constant([0])], f"{OWN}rows", axis=0)
        start = nodes.constant([0])
        found = nodes.add("Slice", [found, start, rows, start], f"{OWN}kept")
    nodes.add("Identity", [found], LOGITS)


def _rename(graph: GraphProto, names: Mapping[str, str]) -> None:
    """Rename tensors of a graph in place, also where inner graphs read them."""
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = names.get(name, name)
        for place, name in enumerate(node.output):
            node.output[place] = names.get(name, name)
        for item in node.attribute:
            for inner in (item.g, *item.graphs):
                if inner.node or inner.output:
                    _rename(inner, names)
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = names.get(value.name, value.name)


def _needed(nodes: Sequence[NodeProto], output: str) -> list[NodeProto]:
    """Return the nodes that an output needs, in their order; they are sorted as ONNX has them."""
    wanted, kept = {output}, []
    for node in reversed(nodes):
        if wanted.isdisjoint(node.output):
            continue
        kept.append(node)
        wanted.update(read_by(node))
    return kept[::-1]
