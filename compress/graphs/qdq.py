"""Matrix products of a graph in INT8: with scales found at run time, or with quantize-dequantize pairs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from compress.graphs.calibration import Range
from compress.onnx_graphs.forms import read_by
from contract.errors import SluiceError

LEVELS = 127
SMALLEST_SCALE = 1e-12


def products_of(model: onnx.ModelProto) -> list[NodeProto]:
    """Return the matrix products whose second factor is a constant matrix, in the order of the graph.

    Attention multiplies activations with activations, so neither of its products is among them; nor is
    the last layer (`Gemm`), which is small and decides the answer.
    """
    constants = {
        tensor.name
        for tensor in model.graph.initializer
        if len(tensor.dims) == 2 and tensor.data_type == TensorProto.FLOAT
    }
    return [n for n in model.graph.node if n.op_type == "MatMul" and n.input[1] in constants]


def quantize_weight(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return INT8 values and scales [N] of a weight [K, N]: symmetric, one scale per output channel."""
    scale = np.maximum(np.abs(weight).max(axis=0) / LEVELS, SMALLEST_SCALE).astype(np.float32)
    return np.clip(np.rint(weight / scale), -LEVELS, LEVELS).astype(np.int8), scale


def activation_scale(found: Range, *, signed: bool) -> tuple[np.float32, np.int8 | np.uint8]:
    """Return scale and zero point of an activation range.

    signed: symmetric INT8, zero point 0. Else UINT8 over the range widened to hold 0, which padding and
    the zeros of activations then meet exactly.

    Raises:
        SluiceError: when the range is not finite.
    """
    if not np.isfinite(found).all():
        raise SluiceError(
            f"an activation ranges from {found[0]:g} to {found[1]:g} on the calibration texts: "
            "what is not finite has no INT8 scale",
            hint="a lower learning_rate for the parent",
        )
    low, high = min(found[0], 0.0), max(found[1], 0.0)
    if signed:
        return np.float32(max(-low, high, LEVELS * SMALLEST_SCALE) / LEVELS), np.int8(0)
    scale = max((high - low) / 255, SMALLEST_SCALE)
    return np.float32(scale), np.uint8(np.clip(round(-low / scale), 0, 255))


def insert_pairs(
    model: onnx.ModelProto, ranges: Mapping[str, Range], *, signed: bool, left_out: Collection[str] = ()
) -> int:
    """Quantize matrix products of a graph in place and return how many.

    Inputs get a pair of QuantizeLinear and DequantizeLinear, weights are stored as INT8 with a
    DequantizeLinear; outputs stay float.

    Args:
        model: FP32.
        ranges: of every product's first factor, by tensor.
        signed: S8S8, symmetric (TensorRT); else U8S8 (processors).
        left_out: names of products that stay FP32.
    """
    editor = _Editor(model, left_out)
    for source, weight, node in editor.each():
        if editor.first(source):
            scale, zero = activation_scale(ranges[source], signed=signed)
            editor.constants += [constant(f"{source}_scale", scale), constant(f"{source}_zero", zero)]
            editor.nodes += pair_of(source)
        if editor.first(weight):
            parts = editor.weight(weight)
            editor.add("DequantizeLinear", parts, [f"{weight}_dequantized"], axis=1)
        node.input[0], node.input[1] = f"{source}_dequantized", f"{weight}_dequantized"
        editor.nodes.append(node)
    return editor.finish()


def insert_dynamic(model: onnx.ModelProto, *, left_out: Collection[str] = ()) -> int:
    """Quantize matrix products of a graph in place and return how many; inputs are scaled at run time.

    Every product becomes what ONNX Runtime's own quantizer writes (DynamicQuantizeLinear, MatMulInteger,
    Cast, and a multiplication by both scales), which it runs as one operator.

    Args:
        model: FP32.
        left_out: names of products that stay FP32.
    """
    editor = _Editor(model, left_out)
    for source, weight, node in editor.each():
        quantized, scale, zero = (f"{source}_{part}" for part in ("quantized", "scale", "zero"))
        if editor.first(source):
            editor.add("DynamicQuantizeLinear", [source], [quantized, scale, zero])
        if editor.first(weight):
            editor.weight(weight)
        name = node.output[0]
        editor.add(
            "MatMulInteger", [quantized, f"{weight}_quantized", zero, f"{weight}_zero"], [f"{name}_int32"]
        )
        editor.add("Cast", [f"{name}_int32"], [f"{name}_float"], to=TensorProto.FLOAT)
        editor.add("Mul", [scale, f"{weight}_scale"], [f"{name}_scale"])
        editor.add("Mul", [f"{name}_float", f"{name}_scale"], [name])
    return editor.finish()


class _Editor:
    """Rebuilds the nodes of a graph while some of its matrix products are replaced."""

    def __init__(self, model: onnx.ModelProto, left_out: Collection[str]) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._graph = model.graph
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self._chosen = {node.output[0] for node in products_of(model) if node.name not in left_out}
        self._met: set[str] = set()

    def each(self) -> Iterator[tuple[str, str, NodeProto]]:
        """Yield (first factor, weight, copy) of each product that is replaced; other nodes are kept."""
        for node in self._graph.node:
            copy = NodeProto.FromString(node.SerializeToString())
            if node.output[0] in self._chosen:
                yield node.input[0], node.input[1], copy
            else:
                self.nodes.append(copy)

    def first(self, name: str) -> bool:
        """Return whether a tensor is met for the first time."""
        new = name not in self._met
        self._met.add(name)
        return new

    def weight(self, name: str) -> list[str]:
        """Add the INT8 form of a weight and return the names of values, scales and zero points."""
        values, scales = quantize_weight(numpy_helper.to_array(self._weights[name]))
        parts = [f"{name}_quantized", f"{name}_scale", f"{name}_zero"]
        arrays: list[NDArray[np.generic]] = [values, scales, np.zeros(len(scales), np.int8)]
        self.constants += [constant(part, array) for part, array in zip(parts, arrays, strict=True)]
        return parts

    def add(self, kind: str, inputs: list[str], outputs: list[str], **attributes: int) -> None:
        """Add a node named after its first output."""
        self.nodes.append(helper.make_node(kind, inputs, outputs, name=f"{kind}_{outputs[0]}", **attributes))

    def finish(self) -> int:
        """Give the graph its new nodes and the constants they need; return how many products changed."""
        needed = {name for node in self.nodes for name in read_by(node)}
        kept = [tensor for tensor in self._graph.initializer if tensor.name in needed]
        del self._graph.node[:], self._graph.initializer[:]
        self._graph.node.extend(self.nodes)
        self._graph.initializer.extend([*kept, *self.constants])
        return len(self._chosen)


def pair_of(source: str) -> list[NodeProto]:
    """Return the nodes that quantize a tensor and dequantize it, by constants named after it."""
    scale, zero = f"{source}_scale", f"{source}_zero"
    between, after = f"{source}_quantized", f"{source}_dequantized"
    return [
        helper.make_node("QuantizeLinear", [source, scale, zero], [between], name=f"quantize_{source}"),
        helper.make_node("DequantizeLinear", [between, scale, zero], [after], name=f"dequantize_{source}"),
    ]


def constant(name: str, value: NDArray[np.generic] | np.generic) -> TensorProto:
    """Return a named constant of a graph."""
    return numpy_helper.from_array(np.asarray(value), name)
