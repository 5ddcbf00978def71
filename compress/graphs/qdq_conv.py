"""Static INT8 for convolutional graphs: which tensors are quantized, and the pairs that say so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from compress.graphs.calibration import session_of
from compress.graphs.qdq import LEVELS, SMALLEST_SCALE, activation_scale, constant, pair_of, quantize_weight

WEIGHTED = frozenset({"Conv", "Gemm"})
CLAMPS = frozenset({"Relu", "Clip"})


@dataclass(frozen=True)
class Spread:
    """What a tensor holds over the calibration images.

    Attributes:
        low, high: mean over images of the least and the greatest value: one odd image does not stretch them.
        mean: [C] per channel (axis 1), over images and places.
    """

    low: float
    high: float
    mean: NDArray[np.float64]


def quantized_tensors(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the activations that become INT8, in the order of the graph.

    These are what convolutions, matrix products and additions of two activations read, and what convolutions
    and such additions give (after a clamp, where one follows), so that each runs from INT8 to INT8. The
    logits stay float.
    """
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    matrices = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2}
    ends = {item.name for item in graph.output}
    readers = Counter(name for node in graph.node for name in node.input)
    clamped = {
        node.input[0]: node.output[0]
        for node in graph.node
        if node.op_type in CLAMPS and readers[node.input[0]] == 1
    }
    found: dict[str, None] = {}
    for node in graph.node:
        sums = node.op_type == "Add" and not constants & set(node.input)
        if node.op_type in WEIGHTED or (node.op_type == "MatMul" and node.input[1] in matrices):
            found[node.input[0]] = None
        elif sums:
            found |= dict.fromkeys(node.input)
        if node.op_type == "Conv" or sums:
            found[clamped.get(node.output[0], node.output[0])] = None
    return tuple(name for name in found if name not in ends)


def spreads_of(
    path: Path, names: Iterable[str], images: Iterable[Mapping[str, NDArray[np.generic]]]
) -> dict[str, Spread]:
    """Return the spread of tensors of a graph over some inputs, one image each.

    Raises:
        ValueError: without images.
    """
    names = list(names)
    session = session_of(path, names)
    lows: dict[str, list[float]] = {name: [] for name in names}
    highs: dict[str, list[float]] = {name: [] for name in names}
    means: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
    for feed in images:
        for name, value in zip(names, session.run(names, dict(feed)), strict=True):
            lows[name].append(float(value.min()))
            highs[name].append(float(value.max()))
            axes = tuple(axis for axis in range(value.ndim) if axis != 1)
            means[name].append(value.mean(axis=axes, dtype=np.float64))
    if names and not lows[names[0]]:
        raise ValueError("no images to calibrate on")
    return {
        name: Spread(float(np.mean(lows[name])), float(np.mean(highs[name])), np.mean(means[name], axis=0))
        for name in names
    }


def insert_conv_pairs(model: onnx.ModelProto, spreads: Mapping[str, Spread], *, signed: bool) -> int:
    """Quantize the convolutions, matrix products and additions of a graph in place; return how many weights.

    Activations get a pair of QuantizeLinear and DequantizeLinear. Weights are INT8, symmetric, with a scale
    per output channel; biases INT32; what is added after a `MatMul` stays FP32. What rounding the weights of
    the others moves in the mean of an output is taken off its bias (Nagel et al. 2019, "Data-free
    quantization", section 4.2, with measured input means).

    Args:
        model: FP32.
        spreads: of `quantized_tensors`.
        signed: S8S8, symmetric (TensorRT); else U8S8 (processors).
    """
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    added: list[TensorProto] = []
    scales: dict[str, float] = {}
    for name, spread in spreads.items():
        scale, zero = activation_scale((spread.low, spread.high), signed=signed)
        scales[name] = float(scale)
        added += [constant(f"{name}_scale", scale), constant(f"{name}_zero", zero)]
    nodes = [node for item in graph.input if item.name in spreads for node in pair_of(item.name)]
    count = 0
    for node in graph.node:
        if node.op_type in WEIGHTED and node.input[1] in constants:
            more, tensors = _weights(node, constants, spreads[node.input[0]], scales[node.input[0]])
            nodes += more
            added += tensors
            count += 1
        elif node.op_type == "MatMul" and node.input[0] in spreads and node.input[1] in constants:
            more, tensors = _matrix(node, constants[node.input[1]])
            nodes += more
            added += tensors
            count += 1
        reads = [f"{name}_dequantized" if name in spreads else name for name in node.input]
        del node.input[:]
        node.input.extend(reads)
        nodes.append(node)
        nodes += [pair for name in node.output if name in spreads for pair in pair_of(name)]
    needed = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in needed]
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(copies)
    graph.initializer.extend([*kept, *added])
    return count


def _weights(
    node: NodeProto, constants: Mapping[str, NDArray[np.generic]], reads: Spread, input_scale: float
) -> tuple[list[NodeProto], list[TensorProto]]:
    """Point a node to the INT8 form of its weight and bias; return the nodes and tensors that hold them."""
    name = node.input[1]
    weight = constants[name].astype(np.float32)
    settings = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    if node.op_type == "Gemm" and not settings.get("transB", 0):
        weight = np.ascontiguousarray(weight.T)
        kept = [item for item in node.attribute if item.name != "transB"]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute("transB", 1)])
    flat = weight.reshape(len(weight), -1)
    scale = np.maximum(np.abs(flat).max(axis=1) / LEVELS, SMALLEST_SCALE).astype(np.float32)
    values = np.clip(np.rint(flat / scale[:, None]), -LEVELS, LEVELS).astype(np.int8)
    bias = (
        constants[node.input[2]].astype(np.float64)
        if len(node.input) > 2 and node.input[2]
        else np.zeros(len(weight))
    )
    error = (values * scale[:, None].astype(np.float64) - flat).reshape(weight.shape)
    bias = bias - _mean_effect(error, reads.mean, int(settings.get("group", 1)))
    bias_scale = (scale * np.float64(input_scale)).astype(np.float32)
    whole = np.clip(np.rint(bias / bias_scale), -(2**31), 2**31 - 1).astype(np.int32)
    prefix = f"{node.output[0]}_weight"
    tensors = [
        constant(f"{prefix}_quantized", values.reshape(weight.shape)),
        constant(f"{prefix}_scale", scale),
        constant(f"{prefix}_zero", np.zeros(len(scale), np.int8)),
        constant(f"{prefix}_bias", whole),
        constant(f"{prefix}_bias_scale", bias_scale),
        constant(f"{prefix}_bias_zero", np.zeros(len(scale), np.int32)),
    ]
    nodes = [
        helper.make_node(
            "DequantizeLinear",
            [f"{prefix}{kind}", f"{prefix}{scales}_scale", f"{prefix}{scales}_zero"],
            [f"{prefix}{scales}_dequantized"],
            name=f"dequantize_{prefix}{scales}",
            axis=0,
        )
        for kind, scales in (("_quantized", ""), ("_bias", "_bias"))
    ]
    data = node.input[0]
    del node.input[:]
    node.input.extend([data, f"{prefix}_dequantized", f"{prefix}_bias_dequantized"])
    return nodes, tensors


def _matrix(node: NodeProto, weight: NDArray[np.generic]) -> tuple[list[NodeProto], list[TensorProto]]:
    """Point a `MatMul` to the INT8 form of its weight [K, N]; return the nodes and tensors that hold it."""
    values, scale = quantize_weight(weight.astype(np.float32))
    prefix = f"{node.output[0]}_weight"
    parts = [f"{prefix}_quantized", f"{prefix}_scale", f"{prefix}_zero"]
    node.input[1] = f"{prefix}_dequantized"
    pair = helper.make_node("DequantizeLinear", parts, [node.input[1]], name=f"dequantize_{prefix}", axis=1)
    arrays: list[NDArray[np.generic]] = [values, scale, np.zeros(len(scale), np.int8)]
    return [pair], [constant(part, array) for part, array in zip(parts, arrays, strict=True)]


def _mean_effect(error: NDArray[np.float64], means: NDArray[np.float64], groups: int) -> NDArray[np.float64]:
    """Return what an error of the weight [O, I / groups, ...] adds to the mean of each output [O]."""
    outputs, inputs = error.shape[:2]
    summed = error.reshape(outputs, inputs, -1).sum(axis=2)
    per_group = np.asarray(means).reshape(groups, inputs)
    rows = np.repeat(per_group, outputs // groups, axis=0)
    found: NDArray[np.float64] = (summed * rows).sum(axis=1)
    return found
