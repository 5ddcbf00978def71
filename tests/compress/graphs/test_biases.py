"""INT8 products take their biases, which ONNX Runtime then adds inside the product."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from compress.graphs.biases import bias_products
from compress.graphs.lower import quantize_dynamic
from compress.graphs.qdq import insert_dynamic, products_of
from compress.onnx_graphs.session import open_session
from tests.compress.conftest import random_network
from tests.support.exports import export_once

PRODUCTS = 12


def optimised(graph: Path, target: Path) -> list[onnx.NodeProto]:
    """Return the nodes that ONNX Runtime runs for a graph."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(target), 3
    onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    return list(onnx.load(target).graph.node)


def test_every_int8_product_adds_its_bias_itself(tmp_path: Path) -> None:
    """ONNX Runtime runs each product with its bias as one operator, and nothing else adds a bias."""
    export_once(random_network(), tmp_path / "m.onnx")
    quantize_dynamic(tmp_path / "m.onnx", tmp_path / "int8.onnx")
    nodes = optimised(tmp_path / "int8.onnx", tmp_path / "optimised.onnx")
    kinds = Counter(node.op_type for node in nodes)
    products = [node for node in nodes if node.op_type == "DynamicQuantizeMatMul"]
    assert len(products) == PRODUCTS
    assert all(node.input[4] for node in products)
    assert kinds["Gelu"] == 3
    assert kinds["MultiHeadAttention"] == 3
    assert not {"BiasGelu", "Add", "SkipLayerNormalization"} & set(kinds)
    assert all(len(node.input) == 2 for node in nodes if node.op_type == "Sum")


def test_answers_stay_those_of_the_graph_with_biases_elsewhere(tmp_path: Path) -> None:
    """Moving the biases changes logits by no more than rounding, in texts alone and in padded batches."""
    export_once(random_network(), tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    insert_dynamic(model)
    before = open_session(model.SerializeToString())
    assert bias_products(model) == PRODUCTS
    after = open_session(model.SerializeToString())
    rng = np.random.default_rng(0)
    for batch, length in ((1, 3), (1, 17), (5, 9)):
        mask = (np.arange(length) < rng.integers(1, length + 1, (batch, 1))).astype(np.int64)
        feeds = {"input_ids": rng.integers(4, 30, (batch, length)) * mask, "attention_mask": mask}
        np.testing.assert_allclose(after.run(None, feeds)[0], before.run(None, feeds)[0], atol=2e-2)
    assert bias_products(model) == 0


def test_products_that_stay_fp32_keep_their_biases_where_they_are(tmp_path: Path) -> None:
    """A product left out of the quantization is not touched, and neither is an FP32 graph."""
    export_once(random_network(), tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    left_out = [node.name for node in products_of(model)][:4]
    insert_dynamic(model, left_out=left_out)
    assert bias_products(model) == PRODUCTS - len(left_out)
    whole = onnx.load(tmp_path / "m.onnx")
    before = whole.SerializeToString()
    assert bias_products(whole) == 0
    assert whole.SerializeToString() == before


@pytest.mark.parametrize("shared", ["BiasGelu", "Sum"])
def test_a_product_that_is_read_twice_keeps_its_bias_where_it_is(shared: str, tmp_path: Path) -> None:
    """What else reads a product would see the bias too, so it is left alone."""
    export_once(random_network(), tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    insert_dynamic(model)
    made = {name for node in model.graph.node if node.op_type == "Mul" for name in node.output}
    readers = (node for node in model.graph.node if node.op_type == shared and made & set(node.input))
    product = next(name for name in next(readers).input if name in made)
    model.graph.output.append(onnx.helper.make_tensor_value_info(product, onnx.TensorProto.FLOAT, None))
    assert bias_products(model) == PRODUCTS - 1


@pytest.mark.parametrize(("opset", "domain"), [(17, "com.microsoft"), (20, "")])
def test_a_gelu_that_gives_its_bias_back_is_one_that_its_opset_has(opset: int, domain: str) -> None:
    """Before opset 20 only ONNX Runtime has the operator that stays."""
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(0, 1, (4, 4)).astype(np.float32), np.ones(4, np.float32)
    helper = onnx.helper
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["product"]),
        helper.make_node("BiasGelu", ["product", "bias"], ["y"], domain="com.microsoft"),
    ]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["rows", 4]) for name in ("x", "y")]
    constants = [onnx.numpy_helper.from_array(weight, "weight"), onnx.numpy_helper.from_array(bias, "bias")]
    graph = helper.make_graph(nodes, "gelu", ends[:1], ends[1:], constants)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    feeds = {"x": rng.normal(0, 1, (3, 4)).astype(np.float32)}
    wanted = open_session(model.SerializeToString()).run(None, feeds)[0]
    insert_dynamic(model)
    assert bias_products(model) == 1
    assert [node.domain for node in model.graph.node if node.op_type == "Gelu"] == [domain]
    found = open_session(model.SerializeToString()).run(None, feeds)[0]
    np.testing.assert_allclose(found, wanted, atol=0.1)
