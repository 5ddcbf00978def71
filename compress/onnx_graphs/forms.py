"""A given graph in the form that is worked with: float32, a recent opset, constants among initializers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from compress.onnx_graphs.ports import nodes_of
from compress.onnx_graphs.source import tensors_of
from contract.errors import RecipeError
from contract.family import Precision

# The least that quantized copies need; graphs below are raised to RAISED.
LEAST_OPSET, RAISED = 13, 17
# What ONNX Runtime 1.17 and later read.
IR = 10
NARROW = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})
SCALED_HERE = frozenset({"DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"})
SCALED_BEFORE = frozenset({"QuantizeLinear", "QLinearMatMul", "QLinearConv", "QAttention", "QGemm"})
WHOLE_PRODUCTS = frozenset({"MatMulInteger", "MatMulIntegerToFloat", "ConvInteger", "MatMulNBits"})
CONTRIB = "com.microsoft"
# Operators that have graphs inside, which read tensors of the outer one.
BRANCHING = frozenset({"If", "Loop", "Scan", "SequenceMap"})


def opset_of(model: ModelProto) -> int:
    """Return the version of ONNX's own operators that a graph is written in."""
    return max((item.version for item in model.opset_import if item.domain in {"", "ai.onnx"}), default=0)


def narrow_in(model: ModelProto) -> bool:
    """Return whether a graph has float16 or bfloat16 constants."""
    return any(tensor.data_type in NARROW for tensor in tensors_of(model))


def quantized_in(model: ModelProto) -> bool:
    """Return whether some weights or products of a graph are whole numbers already."""
    named = SCALED_HERE | SCALED_BEFORE | WHOLE_PRODUCTS | {"DequantizeLinear"}
    return any(node.op_type in named for node in nodes_of(model))


def precision_of(model: ModelProto) -> Precision:
    """Return the precision that a graph computes in; weights alone in few bits are computed with in FP32."""
    kinds = {node.op_type for node in nodes_of(model)}
    if kinds & SCALED_HERE:
        return "int8-dynamic"
    return "int8-static" if kinds & SCALED_BEFORE else "fp32"


def contributed_in(model: ModelProto) -> tuple[str, ...]:
    """Return the operators of a graph that only ONNX Runtime has."""
    return tuple(sorted({node.op_type for node in nodes_of(model) if node.domain == CONTRIB}))


def prepare(model: ModelProto, source: str) -> ModelProto:
    """Return a graph with the same answers in the form that is worked with; the one given may change.

    Functions are inlined; float16 becomes float32; old opsets are raised; constants become initializers;
    every node has a name of its own.

    Raises:
        RecipeError: an opset that cannot be raised.
    """
    if model.functions:
        from onnx import inliner

        model = inliner.inline_local_functions(model)
    _drop_default_inputs(model)
    widen(model)
    model = _raised(model, source)
    settle_constants(model.graph)
    _name_nodes(model.graph)
    model.ir_version = min(max(model.ir_version, 8), IR)
    return model


def _drop_default_inputs(model: ModelProto) -> None:
    """Take constants off the list of inputs, where the first exporters put them."""
    given = {tensor.name for tensor in model.graph.initializer}
    kept = [item for item in model.graph.input if item.name not in given]
    del model.graph.input[:]
    model.graph.input.extend(kept)


def widen(model: ModelProto) -> None:
    """Turn float16 and bfloat16 into float32 in place: constants, casts, and what is declared of shapes."""
    for tensor in tensors_of(model):
        if tensor.data_type in NARROW:
            array = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for node in nodes_of(model):
        for item in node.attribute:
            if item.name in {"to", "dtype", "output_dtype"} and item.i in NARROW:
                item.i = TensorProto.FLOAT
    for graph in _graphs(model.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.tensor_type.elem_type in NARROW:
                value.type.tensor_type.elem_type = TensorProto.FLOAT


def _graphs(graph: GraphProto) -> Iterable[GraphProto]:
    yield graph
    for node in graph.node:
        for item in node.attribute:
            for inner in (item.g, *item.graphs):
                if inner.node:
                    yield from _graphs(inner)


def _raised(model: ModelProto, source: str) -> ModelProto:
    version = opset_of(model)
    if version >= LEAST_OPSET:
        return model
    from onnx import version_converter

    hint = f"export it again with opset_version={RAISED}"
    try:
        model.ir_version = max(model.ir_version, 4)
        return version_converter.convert_version(model, RAISED)
    except Exception as problem:  # noqa: BLE001 (its errors share no public base)
        first = str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
        raise RecipeError(
            f"the graph is written in opset {version}, and cannot be raised to {RAISED}: {first}",
            where=source,
            hint=hint,
        ) from None


def settle_constants(graph: GraphProto) -> None:
    """Put constants of nodes among the initializers, in place, and transpose those that would be when run."""
    known = {tensor.name: tensor for tensor in graph.initializer}
    kept = []
    for node in graph.node:
        folded = _constant_of(node, known)
        if folded is None:
            kept.append(node)
        else:
            known[node.output[0]] = folded
            graph.initializer.append(folded)
    if len(kept) == len(graph.node):
        return
    nodes = [NodeProto.FromString(node.SerializeToString()) for node in kept]
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unread(graph)


def _constant_of(node: NodeProto, known: Mapping[str, TensorProto]) -> TensorProto | None:
    if node.op_type == "Constant" and not node.input:
        value = next((item.t for item in node.attribute if item.name == "value"), None)
        if value is None:
            return None
        named = TensorProto()
        named.CopyFrom(value)
        named.name = node.output[0]
        return named
    maker = _FOLDED.get(node.op_type) if node.domain in {"", "ai.onnx"} else None
    if maker is None or len(node.input) != 1 or node.input[0] not in known:
        return None
    found = maker(node, numpy_helper.to_array(known[node.input[0]]))
    return None if found is None else numpy_helper.from_array(found, node.output[0])


def _transposed(node: NodeProto, array: NDArray[np.generic]) -> NDArray[np.generic]:
    order = next((list(item.ints) for item in node.attribute if item.name == "perm"), None)
    return np.ascontiguousarray(array.transpose(order))


def _cast(node: NodeProto, array: NDArray[np.generic]) -> NDArray[np.generic] | None:
    wanted = next((item.i for item in node.attribute if item.name == "to"), 0)
    simple = array.dtype in (np.float32, np.float64) and wanted == TensorProto.FLOAT
    return array.astype(np.float32) if simple else None


_FOLDED: Mapping[str, Callable[[NodeProto, NDArray[np.generic]], NDArray[np.generic] | None]] = {
    "Transpose": _transposed,
    "Identity": lambda _, array: array,
    "Cast": _cast,
}


def read_by(node: NodeProto) -> set[str]:
    """Return the tensors that a node reads, itself or in its inner graphs, with those that these hand out."""
    read = set(node.input)
    if node.op_type not in BRANCHING:
        return read
    for item in node.attribute:
        for inner in (item.g, *item.graphs):
            read |= {out.name for out in inner.output}
            for one in inner.node:
                read |= read_by(one)
    return read


def drop_unread(graph: GraphProto) -> None:
    """Take out constants that nothing reads, in place."""
    read = {item.name for item in graph.output}
    for node in graph.node:
        read |= read_by(node)
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    if len(kept) < len(graph.initializer):
        copies = [TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
        del graph.initializer[:]
        graph.initializer.extend(copies)


def _name_nodes(graph: GraphProto) -> None:
    """Give every node a name that no other has: products are left out of quantization by name."""
    met: set[str] = set()
    for number, node in enumerate(graph.node):
        if not node.name or node.name in met:
            node.name = f"{node.op_type}_{number}"
            while node.name in met:
                node.name += "_"
        met.add(node.name)


def parameters_of(model: ModelProto) -> int:
    """Return how many numbers the constants of a graph hold; those that count places are left out."""
    counted = [one for one in model.graph.initializer if one.data_type != TensorProto.INT64]
    return int(sum(np.prod(one.dims, dtype=np.int64) for one in counted if one.dims))


def word_table_of(model: ModelProto, ids: str) -> tuple[str, int, int] | None:
    """Return name, rows and element type of the constant table that token ids are looked up in."""
    tables = {one.name: one for one in model.graph.initializer if len(one.dims) == 2}
    reach = {ids}
    for node in model.graph.node:
        passed = (
            node.input[:1] if node.op_type in _PASSING else node.input[1:] if node.op_type == "Where" else ()
        )
        if not reach.isdisjoint(passed):
            reach.update(node.output)
        elif node.op_type == "Gather" and node.input[0] in tables and node.input[1] in reach:
            table = tables[node.input[0]]
            return table.name, int(table.dims[0]), int(table.data_type)
    return None


_PASSING = frozenset({"Cast", "Identity", "Reshape", "Pad", "Unsqueeze", "Squeeze", "Flatten"})
