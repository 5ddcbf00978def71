"""What can be told of a given graph before anything is run: that it is one, and what it can be used for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnx import GraphProto, TensorProto

from compress.networks.refusals import labels_in, require_config
from compress.onnx_graphs.forms import contributed_in, quantized_in, word_table_of
from compress.onnx_graphs.ports import (
    Port,
    answers_of_graph,
    inputs_of,
    require_known_operators,
    require_one_label,
)
from compress.onnx_graphs.source import GraphSource
from runtime.wordpiece import INPUT_IDS


@dataclass(frozen=True)
class Reading:
    """What a graph is, from its nodes.

    Attributes:
        inputs: by role.
        quantized: whether some of it is in whole numbers already.
        contributed: operators that only ONNX Runtime has.
        products: whether it has a matrix product with a constant.
        words: whether it looks token ids up in a table in floating point.
    """

    inputs: Mapping[str, Port]
    quantized: bool
    contributed: tuple[str, ...]
    products: bool
    words: bool


def config_of(found: GraphSource) -> Mapping[str, Any]:
    """Return the configuration beside a graph, empty where there is none. Raises RecipeError."""
    return found.folder.config if found.has_config else {}


def read_reading(found: GraphSource) -> Reading:
    """Look at a graph without its weights.

    Raises:
        RecipeError: what is no classifier of texts by token ids, what needs a library of its own, or data
            that are not there; naming it.
    """
    model, source = found.skeleton(), found.source
    found.data_files(model)
    config = config_of(found)
    # What a configuration says of quantized weights is not about the graph.
    told = {
        key: value
        for key, value in config.items()
        if not key.endswith(("quantization_config", "compression_config"))
    }
    require_config(told, (), source)
    require_known_operators(model, source)
    inputs = inputs_of(model, source)
    outputs = [Port.of(item) for item in model.graph.output]
    if outputs and all(port.dims is not None or port.kind == 0 for port in outputs):
        require_one_label(model, answers_of_graph(outputs, labels_in(config), source).name, source)
    table = word_table_of(model, inputs[INPUT_IDS].name)
    return Reading(
        inputs=inputs,
        quantized=quantized_in(model),
        contributed=contributed_in(model),
        products=bool(model.functions) or _has_products(model.graph),
        words=bool(model.functions) or (table is not None and table[2] in _WIDENED),
    )


_WIDENED = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16})


def _has_products(graph: GraphProto) -> bool:
    known = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" or (node.op_type in _KEPT and node.input[0] in known):
            known.update(node.output)
    return any(node.op_type == "MatMul" and node.input[1] in known for node in graph.node)


_KEPT = frozenset({"Transpose", "Identity", "Cast"})
