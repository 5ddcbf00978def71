"""What a graph is made of is read from its nodes, and a wrong one is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.graphs.calibration import ranges_of
from compress.graphs.lower import quantize_dynamic, quantize_fp16, quantize_static
from compress.graphs.qdq import products_of
from compress.graphs.structure import float_products_of, problems_of, require_structure
from contract.errors import SluiceError
from contract.family import Precision
from tests.compress.conftest import random_network
from tests.support.exports import export_once

PRECISIONS: tuple[Precision, ...] = ("int8-dynamic", "int8-static", "int8-qdq", "fp16")


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One network in every precision."""
    folder = tmp_path_factory.mktemp("graphs")
    found = {name: folder / f"{name}.onnx" for name in ("fp32", "portable", *PRECISIONS)}
    network = random_network()
    export_once(network, found["fp32"])
    export_once(network, found["portable"], fused=False)
    feed = {"input_ids": np.arange(4, 12)[None], "attention_mask": np.ones((1, 8), np.int64)}

    def ranges(path: Path) -> dict[str, tuple[float, float]]:
        return ranges_of(path, [node.input[0] for node in products_of(onnx.load(path))], [feed])

    quantize_dynamic(found["fp32"], found["int8-dynamic"])
    quantize_static(found["fp32"], found["int8-static"], ranges(found["fp32"]))
    quantize_static(found["portable"], found["int8-qdq"], ranges(found["portable"]), signed=True)
    quantize_fp16(found["portable"], found["fp16"])
    return found


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_is_what_it_says(graphs: dict[str, Path], precision: Precision) -> None:
    """A graph of a precision passes as that, and the FP32 graph does not."""
    require_structure(graphs[precision], precision)
    with pytest.raises(SluiceError, match=precision):
        require_structure(graphs["fp32"], precision)


def test_a_processor_s_graph_is_not_one_for_tensorrt(graphs: dict[str, Path]) -> None:
    """U8S8 with ONNX Runtime's own operators is refused as explicit S8S8, for both reasons."""
    found = list(problems_of(onnx.load(graphs["int8-static"]), "int8-qdq"))
    assert any("MultiHeadAttention" in problem for problem in found)
    assert any("UINT8" in problem for problem in found)


def test_products_in_fp32_are_counted(graphs: dict[str, Path], tmp_path: Path) -> None:
    """Products left out on purpose pass when they are said to be, and one more does not."""
    name = products_of(onnx.load(graphs["fp32"]))[3].name
    quantize_dynamic(graphs["fp32"], tmp_path / "m.onnx", left_out={name})
    assert float_products_of(onnx.load(tmp_path / "m.onnx")) == 1
    require_structure(tmp_path / "m.onnx", "int8-dynamic", float_products=1)
    with pytest.raises(SluiceError, match="1 matrix products"):
        require_structure(tmp_path / "m.onnx", "int8-dynamic")


def test_broken_pairs_are_named(graphs: dict[str, Path]) -> None:
    """A zero point other than 0, a scale of 0 and an input of another type are each found."""
    model = onnx.load(graphs["int8-qdq"])
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    pair = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    scale, zero = constants[pair.input[1]], constants[pair.input[2]]
    scale.CopyFrom(numpy_helper.from_array(np.float32(0), scale.name))
    zero.CopyFrom(numpy_helper.from_array(np.int8(3), zero.name))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    found = " ".join(problems_of(model, "int8-qdq"))
    assert "not above 0" in found
    assert "zero point other than 0" in found
    assert "logits is not float32" in found


def test_a_wide_weight_is_found_in_fp16(graphs: dict[str, Path]) -> None:
    """One FP32 constant left over keeps a graph from being FP16."""
    model = onnx.load(graphs["fp16"])
    model.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "left"))
    assert list(problems_of(model, "fp16")) == ["the constant left is float32"]


def test_a_pair_that_reads_floats_is_found() -> None:
    """DequantizeLinear of something nobody quantized, and scales that are computed, are named."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in "xy"]
    nodes = [
        helper.make_node("Cast", ["x"], ["q"], to=TensorProto.INT8),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"], name="odd"),
        helper.make_node("Abs", ["x"], ["live"]),
        helper.make_node("QuantizeLinear", ["w", "live"], ["y"], name="free"),
    ]
    constants = [numpy_helper.from_array(np.float32(1), "s"), numpy_helper.from_array(np.int8(0), "z")]
    model = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], constants))
    found = " ".join(problems_of(model, "int8-static"))
    assert "odd reads neither" in found
    assert "free has no constant" in found


def plain(kind: str, shape: tuple[int, ...]) -> onnx.ModelProto:
    """A graph of one operator over float inputs, with an FP32 weight."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    weight = numpy_helper.from_array(np.ones(shape, np.float32), "w")
    node = helper.make_node(kind, ["x", "w"], ["y"])
    return helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:], [weight]))


@pytest.mark.parametrize(("kind", "shape"), [("Conv", (2, 3, 1, 1)), ("Gemm", (2, 2)), ("MatMul", (2, 2))])
def test_every_operator_with_an_fp32_weight_counts(kind: str, shape: tuple[int, ...]) -> None:
    """A convolution or a linear layer in FP32 is no INT8, and a dynamic graph without INT8 is named."""
    model = plain(kind, shape)
    assert float_products_of(model) == 1
    assert any("FP32 weights" in problem for problem in problems_of(model, "int8-static"))
    assert list(problems_of(model, "int8-dynamic", float_products=1)) == ["no matrix product is INT8"]


@pytest.mark.parametrize(("taken", "counted"), [(TensorProto.INT64, 1), (TensorProto.FLOAT, 3)])
def test_only_the_head_of_texts_may_be_fp32(taken: int, counted: int) -> None:
    """Both layers of a text classifier's head may stay FP32, a product before them not; of images none."""
    ends = [helper.make_tensor_value_info("x", taken, None), helper.make_tensor_value_info("y", 1, None)]
    weight = numpy_helper.from_array(np.ones((2, 2), np.float32), "w")
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["a", "w"], ["b"]),
        helper.make_node("Gemm", ["b", "w"], ["c"]),
        helper.make_node("Tanh", ["c"], ["d"]),
        helper.make_node("Gemm", ["d", "w"], ["y"]),
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight]))
    assert float_products_of(model) == counted
