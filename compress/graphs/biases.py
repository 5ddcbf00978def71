"""Biases of INT8 products, put where ONNX Runtime adds them inside the product.

It runs a product that is scaled at run time as one operator, `DynamicQuantizeMatMul`, which takes a bias when
the addition of a constant vector comes straight after. Where `compress.graphs.fuse` gave the bias to what
comes next (`Sum`, `BiasGelu`, `MultiHeadAttention`, all faster in FP32) it is given back.
"""

from __future__ import annotations

import onnx
from onnx import NodeProto, helper

from compress.graphs.matching import Graph
from compress.onnx_graphs.forms import CONTRIB

GELU_OPSET = 20


def bias_products(model: onnx.ModelProto) -> int:
    """Move biases of dynamically quantized products in place, and return how many."""
    graph = Graph(model)
    opset = max(item.version for item in model.opset_import if item.domain in {"", "ai.onnx"})
    # Before opset 20 only ONNX Runtime has the operator.
    gelu = "" if opset >= GELU_OPSET else CONTRIB
    moved = sum(_bias_product(graph, node, gelu) for node in graph.of_kind("Mul"))
    graph.write()
    return moved


def _bias_product(graph: Graph, product: NodeProto, gelu: str) -> bool:
    """Add the bias to the product where its one reader adds it now."""
    name = product.output[0]
    if graph.back(name, "Mul", "Cast", "MatMulInteger") is None:
        return False
    reader = graph.only_reader(name, "Sum", "BiasGelu", "Split")
    bias = None if reader is None else _take_bias(graph, reader, gelu)
    if reader is None or bias is None:
        return False
    reader.input[list(reader.input).index(name)] = f"{name}_biased"
    added = helper.make_node("Add", [name, bias], [f"{name}_biased"], name=f"bias_{name}")
    graph.replace(product, [product, added])
    return True


def _take_bias(graph: Graph, reader: NodeProto, gelu: str) -> str | None:
    """Take the bias away from what reads a product and return it, if it has one; `gelu` is its domain."""
    bias: str
    if reader.op_type == "BiasGelu":
        bias = reader.input.pop()
        reader.op_type, reader.domain = "Gelu", gelu
        return bias
    if reader.op_type == "Split":
        attention = graph.only_reader(reader.output[0], "MultiHeadAttention")
        given = None if attention is None else list(attention.input)
        whole = given is not None and given[:3] == list(reader.output) and len(given) > 3 and given[3]
        if attention is None or not whole or any(graph.readers[part] != 1 for part in reader.output):
            return None
        bias, attention.input[3] = attention.input[3], ""
        return bias
    vectors = [n for n in reader.input if n in graph.constants and len(graph.constants[n].dims) == 1]
    if len(reader.input) < 3 or not vectors:
        return None
    bias = vectors[0]
    reader.input.remove(bias)
    return bias
