"""Every method gives a verified copy of its parent's graph, and says how it was made."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto

from compress.datasets.data import Dataset
from compress.graphs.export import GRAPH, export_step
from compress.graphs.qdq import activation_scale, quantize_weight
from compress.graphs.quantize import quantize_step
from compress.learning.training import fit, hard_loss
from compress.networks.models import Network
from compress.networks.network import Classifier, LayerShape
from compress.recipes.learning_parts import Training
from compress.steps import Context
from compress.store import Finished
from contract.errors import RecipeError
from contract.family import Verification
from runtime.wordpiece import WordPieceEncoder
from tests.compress.conftest import toy_shape, toy_tokenizer
from tests.compress.toy_steps import MAX_LENGTH, finished_network, toy_context, toy_dataset

SIZES = st.floats(-1e4, 1e4, width=32)


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Toy texts."""
    return toy_dataset(150, validation=60)


@pytest.fixture(scope="module")
def network(data: Dataset) -> Network:
    """A network that has learnt the toy texts."""
    return learnt(data)


def learnt(data: Dataset, **changes: Any) -> Network:
    """Return a network, of the toy shape but for some changes, that has learnt the toy texts."""
    torch.manual_seed(0)
    made = Classifier(toy_shape(**changes))
    train = data.of("train")
    encoder = WordPieceEncoder(toy_tokenizer().to_str().encode(), max_length=MAX_LENGTH)
    settings = Training(epochs=12, batch_size=16, learning_rate=3e-3, precision="fp32")
    loss = hard_loss(train.targets, 0.0)
    fit(made, made.examples(encoder.encode(train.texts)), loss, settings, seed=0, report=lambda *_: None)
    return made


@pytest.fixture(scope="module")
def exported(
    tmp_path_factory: pytest.TempPathFactory, data: Dataset, network: Network
) -> dict[str, Finished]:
    """The network as a step that is done, and its export."""
    return parent_and_graph(tmp_path_factory.mktemp("exported"), data, network)


@pytest.fixture(scope="module", params=["dense-tanh", "dense-relu"])
def dense(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, data: Dataset
) -> dict[str, Finished]:
    """A network with a trained classifier's head of two layers, as a step that is done, and its export."""
    network = learnt(data, head=request.param, pooling="first", layers=(LayerShape(4, 48),))
    return parent_and_graph(tmp_path_factory.mktemp(request.param), data, network)


def parent_and_graph(folder: Path, data: Dataset, network: Network) -> dict[str, Finished]:
    """Return a network as a step that is done, and its export."""
    parent = finished_network(folder / "parent", network)
    context = toy_context(folder, {"name": "graph", "kind": "export"}, data, parent=parent)
    result = export_step(context)
    return {"parent": parent, "graph": Finished("graph", "graph", context.folder, {}, result, {})}


def quantized(
    folder: Path, data: Dataset, inputs: dict[str, Finished], **settings: Any
) -> tuple[Context, dict[str, Any]]:
    """Run the step with some settings."""
    read = settings.get("method") in {"static", "qdq"} or "smooth" in settings
    calibration = {"calibration": 24} if read else {}
    part = {"name": "low", "kind": "quantize", "parent": "parent", **calibration, **settings}
    context = toy_context(folder, part, data, None, **inputs)
    return context, quantize_step(context)


@pytest.mark.parametrize(
    ("settings", "precision", "batching"),
    [
        ({"method": "dynamic"}, "int8-dynamic", "single"),
        ({"method": "dynamic", "smooth": 0.5}, "int8-dynamic", "single"),
        ({"method": "static"}, "int8-static", "batched"),
        ({"method": "static", "smooth": 0.5}, "int8-static", "batched"),
        ({"method": "qdq"}, "int8-qdq", "batched"),
        ({"method": "fp16"}, "fp16", "batched"),
    ],
)
def test_every_method_gives_a_faithful_copy(
    settings: dict[str, Any],
    precision: str,
    batching: str,
    tmp_path: Path,
    data: Dataset,
    exported: dict[str, Finished],
) -> None:
    """The copy keeps to its limits, alone and batched; batchmates matter only to dynamic scales."""
    context, result = quantized(tmp_path, data, exported, **settings)
    assert (result["precision"], result["batching"]) == (precision, batching)
    check = Verification.model_validate(result["verification"])
    assert check.label_agreement > 0.95
    assert check.error_limit is not None
    assert check.max_logit_error <= check.error_limit
    if batching == "batched":
        assert check.batched_agreement == 1.0
        assert check.batched_logit_change is not None
        assert check.batched_logit_change < 0.02
    calibrated = settings["method"] in {"static", "qdq"} or "smooth" in settings
    assert ("calibration" in result) == calibrated
    if calibrated:
        assert result["calibration"]["n"] == 24
        assert len(result["calibration"]["sha256"]) == 64
    assert sorted(path.name for path in context.folder.iterdir()) == ["model.onnx", "tokenizer.json"]


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "dynamic"},
        {"method": "static", "mixed": 0.5},
        {"method": "qdq"},
        {"method": "fp16"},
    ],
)
def test_a_head_of_two_layers_stays_fp32(
    settings: dict[str, Any], tmp_path: Path, data: Dataset, dense: dict[str, Finished]
) -> None:
    """A classifier with a trained head is quantized inside its layers, and answers as its FP32 graph does."""
    context, result = quantized(tmp_path, data, dense, **settings)
    check = Verification.model_validate(result["verification"])
    assert check.label_agreement > 0.95
    assert check.error_limit is not None
    assert check.max_logit_error <= check.error_limit
    model = onnx.load(context.folder / GRAPH)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    head = [node for node in model.graph.node if node.op_type == "Gemm"]
    kept = TensorProto.FLOAT16 if settings["method"] == "fp16" else TensorProto.FLOAT
    assert [weights[node.input[1]].data_type for node in head] == [kept, kept]
    small = [tensor for tensor in weights.values() if tensor.data_type == TensorProto.INT8]
    assert sum(len(tensor.dims) == 2 for tensor in small) == (0 if settings["method"] == "fp16" else 4)


@pytest.mark.parametrize(
    ("method", "kind"), [("static", "MatMulIntegerToFloat"), ("dynamic", "DynamicQuantizeMatMul")]
)
def test_onnx_runtime_runs_every_product_in_int8(
    method: str, kind: str, tmp_path: Path, data: Dataset, exported: dict[str, Finished]
) -> None:
    """All twelve products become one INT8 operator each when the session optimises the graph."""
    context, _ = quantized(tmp_path, data, exported, method=method)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(str(context.folder / GRAPH), options, providers=["CPUExecutionProvider"])
    found = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert found[kind] == 12
    pooling = 1
    assert found["MatMul"] == pooling
    assert found["SkipLayerNormalization"] == 0


def test_mixed_precision_says_what_stayed_fp32(
    tmp_path: Path, data: Dataset, exported: dict[str, Finished]
) -> None:
    """A limit that INT8 meets leaves nothing in FP32; the result names modules, not nodes."""
    _, result = quantized(tmp_path, data, exported, method="static", mixed=0.5)
    assert result["mixed"] == {
        "float": [],
        "accuracy_drop": pytest.approx(result["mixed"]["accuracy_drop"]),
        "sensitivity": {},
    }
    assert result["mixed"]["accuracy_drop"] <= 0.5


def test_ranges_that_were_trained_are_used(
    tmp_path: Path, data: Dataset, exported: dict[str, Finished]
) -> None:
    """A parent from quantization-aware training brings its own ranges, in the order of its products."""
    parent = exported["parent"]
    ranges = [[-1.0 - i, 2.0] for i in range(12)]
    trained = Finished(parent.step, parent.key, parent.folder, {}, {**parent.result, "ranges": ranges}, {})
    context, _ = quantized(tmp_path, data, {**exported, "parent": trained}, method="static")
    model = onnx.load(context.folder / GRAPH)
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    scales = [constants[n.input[1]] for n in model.graph.node if n.op_type == "QuantizeLinear"]
    assert np.allclose(scales, [(high - low) / 255 for low, high in ranges])


def test_smoothing_is_for_int8(tmp_path: Path, data: Dataset, exported: dict[str, Finished]) -> None:
    """FP16 has no scales to make easier."""
    with pytest.raises(RecipeError, match="smooth"):
        quantized(tmp_path, data, exported, method="fp16", smooth=0.5)


@given(SIZES, SIZES, st.booleans())
def test_a_scale_covers_its_range(a: float, b: float, signed: bool) -> None:
    """Both ends and zero are within half a step of what the integers can say, and zero is exact."""
    low, high = min(a, b, 0.0), max(a, b, 0.0)
    scale, zero = activation_scale((min(a, b), max(a, b)), signed=signed)
    least, most = (-127, 127) if signed else (0, 255)
    assert (least - int(zero)) * float(scale) <= low + float(scale) * 0.51 + 1e-9
    assert (most - int(zero)) * float(scale) >= high - float(scale) * 0.51 - 1e-9
    assert least <= int(zero) <= most
    if signed:
        assert int(zero) == 0


@given(st.lists(st.lists(SIZES, min_size=3, max_size=3), min_size=1, max_size=6))
def test_a_weight_is_off_by_half_a_step(rows: list[list[float]]) -> None:
    """Every output channel has its own scale, and no weight is further off than half of it."""
    weight = np.array(rows, np.float32)
    values, scale = quantize_weight(weight)
    assert values.dtype == np.int8
    assert np.abs(values).max() <= 127
    assert (np.abs(values * scale - weight) <= 0.501 * scale + 1e-6 * np.abs(weight)).all()
