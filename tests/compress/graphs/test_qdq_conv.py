"""Static INT8 of convolutional graphs: which tensors, with which scales, and how near to FP32."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from compress.graphs.export import export_onnx
from compress.graphs.qdq_conv import insert_conv_pairs, quantized_tensors, spreads_of
from compress.graphs.structure import require_structure
from compress.networks.image_models import ImageArchitecture, ImageNetwork, pretrained_network
from runtime.pixels import PIXELS


@pytest.fixture(scope="module")
def network() -> ImageNetwork:
    """A small network whose statistics have moved off their initial values."""
    made, _ = pretrained_network(ImageArchitecture("small-cnn", "", 5, 1, 8, 8), seed=0)
    made.train()
    with torch.no_grad():
        for seed in range(20):
            made(made.images(16, seed=seed))
    made.eval()
    return made


@pytest.fixture(scope="module")
def graph(network: ImageNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its graph."""
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    export_onnx(network, path)
    return path


def run(path: Path, pixels: NDArray[np.float32], *, optimized: Path | None = None) -> NDArray[np.float32]:
    """Return a graph's logits; with `optimized`, also what ONNX Runtime makes of it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    found: NDArray[np.float32] = session.run(None, {PIXELS: pixels})[0]
    return found


def quantized(graph: Path, target: Path, network: ImageNetwork, *, signed: bool, still: bool = False) -> Path:
    """Write an INT8 copy; `still` leaves the means of outputs where rounding moved them."""
    model = onnx.load(graph)
    images = network.images(64, seed=1).numpy()
    feeds = [{PIXELS: images[row : row + 1]} for row in range(len(images))]
    spreads = spreads_of(graph, quantized_tensors(model), feeds)
    if still:
        for spread in spreads.values():
            spread.mean[:] = 0
    assert insert_conv_pairs(model, spreads, signed=signed) == 10
    onnx.checker.check_model(model)
    onnx.save(model, target)
    return target


@pytest.mark.parametrize("signed", [False, True])
def test_the_copy_answers_like_the_network(
    network: ImageNetwork, graph: Path, tmp_path: Path, signed: bool
) -> None:
    """Logits move by a small share of their spread, and the graph is what its precision promises."""
    small = quantized(graph, tmp_path / "int8.onnx", network, signed=signed)
    require_structure(small, "int8-qdq" if signed else "int8-static")
    pixels = network.images(50, seed=2).numpy()
    wanted, found = run(graph, pixels), run(small, pixels)
    assert np.sqrt(((found - wanted) ** 2).mean()) < 0.1 * wanted.std()


def test_every_convolution_runs_in_int8(network: ImageNetwork, graph: Path, tmp_path: Path) -> None:
    """ONNX Runtime fuses all convolutions and skips to INT8 operators; none is left in float."""
    small = quantized(graph, tmp_path / "int8.onnx", network, signed=False)
    run(small, network.images(1).numpy(), optimized=tmp_path / "optimized.onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert kinds.count("QLinearConv") == 9
    assert kinds.count("QLinearAdd") == 3
    assert not {"Conv", "Add", "Gemm", "Relu"} & set(kinds)


def test_logits_stay_float_and_inputs_are_quantized(graph: Path) -> None:
    """The images are the first INT8 tensor; the logits are none."""
    names = quantized_tensors(onnx.load(graph))
    assert names[0] == PIXELS
    assert "logits" not in names
    assert len(set(names)) == len(names)


def test_taking_the_moved_means_off_the_biases_helps(
    network: ImageNetwork, graph: Path, tmp_path: Path
) -> None:
    """With measured input means the average logit is nearer to the FP32 network's than without."""
    pixels = network.images(200, seed=3).numpy()
    wanted = run(graph, pixels).mean(axis=0)
    errors = [
        np.abs(
            run(
                quantized(graph, tmp_path / f"{still}.onnx", network, signed=False, still=still), pixels
            ).mean(0)
            - wanted
        ).mean()
        for still in (False, True)
    ]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("kind", ["MatMul", "Gemm"])
def test_linear_layers_of_one_column_per_output_become_int8(kind: str, signed: bool, tmp_path: Path) -> None:
    """A MatMul, and a Gemm whose weight is not transposed, answer in INT8 nearly as in FP32."""
    rng = np.random.default_rng(0)
    weight, x = rng.normal(size=(6, 3)).astype(np.float32), rng.normal(size=(32, 6)).astype(np.float32)
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size])
        for name, size in ((PIXELS, 6), ("logits", 3))
    ]
    graph = helper.make_graph(
        [helper.make_node(kind, [PIXELS, "w"], ["logits"])], "g", ends[:1], ends[1:],
        [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "fp32.onnx")
    feeds = [{PIXELS: x[row : row + 1]} for row in range(len(x))]
    spreads = spreads_of(tmp_path / "fp32.onnx", quantized_tensors(model), feeds)
    spreads = {name: replace(item, low=float(x.min()), high=float(x.max())) for name, item in spreads.items()}
    assert insert_conv_pairs(model, spreads, signed=signed) == 1
    onnx.checker.check_model(model)
    onnx.save(model, tmp_path / "int8.onnx")
    require_structure(tmp_path / "int8.onnx", "int8-qdq" if signed else "int8-static")
    assert np.abs(run(tmp_path / "int8.onnx", x) - x @ weight).max() < 0.1 * np.ptp(x @ weight) / 2
