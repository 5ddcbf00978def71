"""What a graph file is, read from its nodes: that an INT8 or FP16 artifact is one, before it is run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

from compress.onnx_graphs.forms import CONTRIB
from contract.errors import SluiceError
from contract.family import Precision

WEIGHTED = frozenset({"Conv", "Gemm", "MatMul"})
# The biases of quantized convolutions are INT32.
SIGNED_TYPES = (TensorProto.INT8, TensorProto.INT32)
QUANTIZED_TYPES = (*SIGNED_TYPES, TensorProto.UINT8)


def require_structure(path: Path, precision: Precision, *, float_products: int = 0) -> None:
    """Raise SluiceError unless a graph is built as its precision promises.

    int8-dynamic, int8-static: every matrix product and convolution with a constant weight is INT8, but for
    those left out and for the head of a text classifier; and some are.
    int8-qdq: likewise, and fit for TensorRT, strongly typed: activations and weights are signed, all zero
    points are 0, and there are no operators outside ONNX.
    fp16: no FP32 weights, no operators outside ONNX; inputs int64 and output float32 as in every graph.

    Args:
        path: of the graph.
        precision: promised.
        float_products: how many products were left in FP32 on purpose.
    """
    problems = list(problems_of(onnx.load(path), precision, float_products=float_products))
    if problems:
        raise SluiceError(f"{path.name} is not a graph of precision {precision}: {problems[0]}")


def problems_of(model: onnx.ModelProto, precision: Precision, *, float_products: int = 0) -> Iterator[str]:
    """Yield what keeps a graph from being of a precision; see `require_structure`."""
    yield from _wrong_ends(model)
    if precision in {"fp16", "int8-qdq"}:
        yield from _strangers(model)
    if precision == "fp16":
        yield from _wide_weights(model)
    if precision.startswith("int8"):
        found = float_products_of(model)
        if found > float_products:
            yield f"{found} matrix products or convolutions have FP32 weights, {float_products} were meant to"
    if precision == "int8-dynamic" and all(node.op_type != "MatMulInteger" for node in model.graph.node):
        yield "no matrix product is INT8"
    if precision in {"int8-static", "int8-qdq"}:
        yield from _pairs(model, symmetric=precision == "int8-qdq")


def float_products_of(model: onnx.ModelProto) -> int:
    """Return how many matrix products and convolutions have a constant FP32 weight.

    The head of a text classifier is not counted: its layers, one or two, answer once per text, are the only
    ones exported as `Gemm`, and stay FP32. Graphs of images have no such exception.
    """
    graph = model.graph
    wide = {t.name for t in graph.initializer if t.data_type == TensorProto.FLOAT and len(t.dims) >= 2}
    texts = any(item.type.tensor_type.elem_type == TensorProto.INT64 for item in graph.input)
    counted = WEIGHTED - {"Gemm"} if texts else WEIGHTED
    return sum(node.op_type in counted and node.input[1] in wide for node in graph.node)


def _wrong_ends(model: onnx.ModelProto) -> Iterator[str]:
    for item in model.graph.output:
        if item.type.tensor_type.elem_type != TensorProto.FLOAT:
            yield f"the output {item.name} is not float32"
    for item in model.graph.input:
        if item.type.tensor_type.elem_type not in (TensorProto.INT64, TensorProto.FLOAT):
            yield f"the input {item.name} is neither int64 nor float32"


def _strangers(model: onnx.ModelProto) -> Iterator[str]:
    found = sorted({node.op_type for node in model.graph.node if node.domain == CONTRIB})
    if found:
        yield f"operators that only ONNX Runtime has: {', '.join(found)}"


def _wide_weights(model: onnx.ModelProto) -> Iterator[str]:
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 0:
            yield f"the constant {tensor.name} is float32"


def _pairs(model: onnx.ModelProto, *, symmetric: bool) -> Iterator[str]:
    """Every pair has constant scales above 0; a symmetric one signed types and zero points of 0."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    pairs = [node for node in model.graph.node if node.op_type in {"QuantizeLinear", "DequantizeLinear"}]
    if not pairs:
        yield "there are no quantized tensors"
    makers = {out: node for node in model.graph.node for out in node.output}
    for node in pairs:
        yield from _pair_problems(node, constants, makers, symmetric=symmetric)


def _pair_problems(
    node: NodeProto,
    constants: dict[str, TensorProto],
    makers: dict[str, NodeProto],
    *,
    symmetric: bool,
) -> Iterator[str]:
    scale = constants.get(node.input[1])
    zero = constants.get(node.input[2]) if len(node.input) > 2 else None
    if scale is None or zero is None:
        yield f"{node.name} has no constant scale and zero point"
        return
    if not bool((numpy_helper.to_array(scale) > 0).all()):
        yield f"{node.name} has a scale that is not above 0"
    if zero.data_type not in (SIGNED_TYPES if symmetric else QUANTIZED_TYPES):
        yield f"{node.name} quantizes to {TensorProto.DataType.Name(zero.data_type)}"
    if symmetric and bool(np.any(numpy_helper.to_array(zero))):
        yield f"{node.name} has a zero point other than 0"
    source = makers.get(node.input[0])
    made_here = node.input[0] in constants or (source is not None and source.op_type == "QuantizeLinear")
    if node.op_type == "DequantizeLinear" and not made_here:
        yield f"{node.name} reads neither a constant nor what QuantizeLinear made"
