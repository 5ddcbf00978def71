"""Toy ONNX classifiers of the toy texts, made without torch, in the shapes that exporters give them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from tests.compress.conftest import WORDS, toy_tokenizer

# In another order than that of the data, which is sorted.
LABELS = ("tech", "sport", "money")
HIDDEN = 8
CONFIG: dict[str, Any] = {"model_type": "bert", "pad_token_id": 0, "id2label": dict(enumerate(LABELS))}


@dataclass(frozen=True)
class Toy:
    """How a toy graph is written.

    Attributes:
        names: of its inputs by role, in order.
        kinds: of inputs that are not int64.
        axes: declared of every input.
        end: operator after the logits, or "".
        outputs: names of its outputs; the first are the answers, "states" of [B, T, H].
        dims: declared of its answers, None for none.
        opset, ir: versions.
        baked: whether the batch is written into a Reshape, so that it takes one row alone.
    """

    names: Mapping[str, str] = field(
        default_factory=lambda: {"input_ids": "input_ids", "attention_mask": "attention_mask"}
    )
    kinds: Mapping[str, int] = field(default_factory=dict)
    axes: tuple[Any, Any] = ("batch", "sequence")
    end: str = ""
    outputs: Sequence[str] = ("logits",)
    dims: Sequence[Any] | None = ("batch", 3)
    opset: int = 17
    ir: int = 8
    baked: bool = False


def weights(seed: int = 0) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
    """Return weights that tell the toy classes apart, with something of every word."""
    rng = np.random.default_rng(seed)
    vocabulary = toy_tokenizer().get_vocab()
    table = rng.normal(0, 0.3, (len(vocabulary), HIDDEN))
    for row, words in enumerate(WORDS[label] for label in LABELS):
        for word in words:
            table[vocabulary[word], row] += 4
    hidden = np.eye(HIDDEN) + rng.normal(0, 0.1, (HIDDEN, HIDDEN))
    return {
        "table": table.astype(np.float32),
        "places": rng.normal(0, 0.2, (48, HIDDEN)).astype(np.float32),
        "hidden": hidden.astype(np.float32),
        "classify": (3 * np.eye(HIDDEN, 3) + rng.normal(0, 0.1, (HIDDEN, 3))).astype(np.float32),
        "bias": rng.normal(0, 0.1, 3).astype(np.float32),
    }


def toy_graph(toy: Toy = Toy(), **changes: Any) -> ModelProto:
    """Return a graph: mean of word embeddings where there is a token, a layer, logits of LABELS."""
    from dataclasses import replace

    toy = replace(toy, **changes)
    made = weights()
    nodes: list[NodeProto] = []

    def add(kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def along(name: str, axis: int, output: str) -> str:
        made[f"axis_{axis}"] = np.array([axis], np.int64)
        if toy.opset >= 13:
            return add("Unsqueeze", [name, f"axis_{axis}"], output)
        return add("Unsqueeze", [name], output, axes=[axis])

    def summed(name: str, output: str) -> str:
        made["axis_1"] = np.array([1], np.int64)
        if toy.opset >= 13:
            return add("ReduceSum", [name, "axis_1"], output, keepdims=0)
        return add("ReduceSum", [name], output, axes=[1], keepdims=0)

    states = add("Gather", ["table", toy.names["input_ids"]], "looked_up")
    if "position_ids" in toy.names:
        states = add(
            "Add", [states, add("Gather", ["places", toy.names["position_ids"]], "placed")], "sum_of_places"
        )
    if "attention_mask" in toy.names:
        mask = add("Cast", [toy.names["attention_mask"]], "mask_as_float", to=TensorProto.FLOAT)
    else:
        made["pad"] = np.array(0, np.int64)
        same = add(
            "Equal", [add("Cast", [toy.names["input_ids"]], "whole", to=TensorProto.INT64), "pad"], "is_pad"
        )
        mask = add("Cast", [add("Not", [same], "is_token")], "mask_as_float", to=TensorProto.FLOAT)
    if "token_type_ids" in toy.names:
        typed = add("Cast", [toy.names["token_type_ids"]], "types_as_float", to=TensorProto.FLOAT)
        states = add("Add", [states, along(typed, 2, "types_wide")], "with_types")
    wide = along(mask, 2, "mask_wide")
    total = summed(add("Mul", [states, wide], "kept"), "total")
    mean = add("Div", [total, summed(wide, "count")], "mean")
    if toy.baked:
        made["one_row"] = np.array([1, HIDDEN], np.int64)
        mean = add("Reshape", [mean, "one_row"], "mean_of_one")
    layer = add("Relu", [add("MatMul", [mean, "hidden"], "layer_product")], "layer")
    logits = add("Add", [add("MatMul", [layer, "classify"], "answer_product"), "bias"], "raw_answers")
    answers, *others = toy.outputs
    add(toy.end or "Identity", [logits], answers, **({"axis": 1} if toy.end == "Softmax" else {}))
    declared = [helper.make_tensor_value_info(answers, TensorProto.FLOAT, toy.dims)]
    for name in others:
        add("Identity", [states], name)
        declared.insert(
            0, helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "sequence", HIDDEN])
        )
    inputs = [
        helper.make_tensor_value_info(name, toy.kinds.get(role, TensorProto.INT64), toy.axes)
        for role, name in toy.names.items()
    ]
    read = {name for node in nodes for name in node.input}
    constants = [numpy_helper.from_array(array, name) for name, array in made.items() if name in read]
    if toy.ir < 4:
        # The first exporters listed constants among the inputs.
        inputs += [helper.make_tensor_value_info(one.name, one.data_type, one.dims) for one in constants]
    graph = helper.make_graph(nodes, "toy", inputs, declared, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", toy.opset)])
    model.ir_version = toy.ir
    return model


def toy_folder(
    folder: Path, model: ModelProto | None = None, config: Mapping[str, Any] | None = CONFIG
) -> Path:
    """Write a graph, its configuration and its tokenizer into a folder, and return the graph's file."""
    folder.mkdir(parents=True, exist_ok=True)
    toy_tokenizer().save(str(folder / "tokenizer.json"))
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    onnx.save(model or toy_graph(), folder / "model.onnx")
    return folder / "model.onnx"
