"""Training sees the rounding that the graph will do, and starts from the parent."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from compress.graphs.qat import (
    FakeInput,
    FakeWeight,
    fake_quantized,
    products_in,
    ranges_per_text,
    round_within,
    train_quantized,
)
from compress.graphs.qdq import quantize_weight
from compress.learning.training import fit, hard_loss, predict
from compress.networks.models import load_network
from compress.networks.network import Classifier, LayerShape
from compress.recipes.learning_parts import Training
from runtime.wordpiece import WordPieceEncoder
from tests.compress.conftest import WORDS, toy_shape, toy_texts, toy_tokenizer
from tests.compress.toy_steps import finished_network, toy_context, toy_dataset

TEXTS = toy_texts(60)
ENCODED = WordPieceEncoder(toy_tokenizer().to_str().encode(), max_length=24).encode([t for t, _ in TEXTS])
TARGETS = np.array([list(WORDS).index(label) for _, label in TEXTS])


@pytest.fixture(scope="module")
def rounding() -> onnxruntime.InferenceSession:
    """ONNX Runtime's dynamic rounding there and back."""
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@given(values=st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=20))
def test_inputs_are_rounded_as_onnx_runtime_rounds_them(
    rounding: onnxruntime.InferenceSession, values: list[float]
) -> None:
    """Dynamic rounding of one text is DynamicQuantizeLinear's, to a float's precision or one border case."""
    x = np.array([values], np.float32)
    tensor = torch.from_numpy(x)
    found = round_within(tensor, *ranges_per_text(tensor)).numpy()
    step = (max(float(x.max()), 0) - min(float(x.min()), 0)) / 255
    assert np.abs(found - rounding.run(None, {"x": x})[0]).max() <= step * 1.01 + 1e-6
    assert np.abs(found - x).max() <= step * 1.01 + 1e-6


def test_weights_are_rounded_as_the_quantizer_rounds_them() -> None:
    """A rounded weight is what the quantizer stores, and rounding twice changes nothing."""
    weight = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    once = FakeWeight()(weight)
    values, scale = quantize_weight(weight.T.numpy())
    assert np.allclose(once.numpy(), (values * scale).T, atol=1e-6)
    assert torch.allclose(FakeWeight()(once), once, atol=1e-6)


def test_the_gradient_passes_straight_through_and_stops_at_the_range() -> None:
    """Inside the range a value has gradient 1, outside 0."""
    values = torch.tensor([[-3.0, 0.4, 9.0]], requires_grad=True)
    round_within(values, torch.tensor(-1.0), torch.tensor(2.0)).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [[0.0, 1.0, 0.0]]


def test_a_static_range_follows_the_batches() -> None:
    """The first batch sets the range, later ones move it a little, and evaluation leaves it alone."""
    module, rounds = torch.nn.Linear(2, 2), FakeInput("static")
    rounds(module, (torch.tensor([[-1.0, 3.0]]),))
    assert rounds.range == (-1.0, 3.0)
    rounds(module, (torch.tensor([[-2.0, 3.0]]),))
    assert -1.1 < rounds.range[0] < -1.0
    module.eval()
    before = rounds.range
    rounds(module, (torch.tensor([[-9.0, 9.0]]),))
    assert rounds.range == before


@pytest.mark.parametrize("method", ["dynamic", "static"])
def test_training_starts_from_the_parent_and_ends_on_the_grid(method: str, tmp_path: Path) -> None:
    """Rounded it answers much as its parent; trained it learns, and is saved as a plain network."""
    torch.manual_seed(0)
    network = Classifier(toy_shape())
    network.eval()
    examples = network.examples(ENCODED)
    before = predict(network, examples)
    settings = Training(epochs=4, batch_size=16, learning_rate=3e-3, precision="fp32")
    with fake_quantized(network, method) as inputs:  # type: ignore[arg-type]
        assert list(inputs) == list(products_in(network))
        network.train()
        network(*examples.batch(np.arange(8)))
        network.eval()
        assert np.abs(predict(network, examples) - before).max() < 0.2 * np.ptp(before)
        fit(network, examples, hard_loss(TARGETS, 0.0), settings, seed=0, report=lambda *_: None)
        trained = predict(network, examples)
    assert (trained.argmax(1) == TARGETS).mean() > 0.6
    network.save(tmp_path)
    weight = network.layers[0].widen.weight.detach()
    assert torch.allclose(FakeWeight()(weight), weight, atol=1e-6)
    assert np.abs(predict(network, examples) - trained).max() < 0.1 * np.ptp(trained)
    if method == "static":
        assert all(item.range[0] <= 0 < item.range[1] for item in inputs.values())


@pytest.mark.parametrize("method", ["dynamic", "static"])
def test_padding_widens_no_range(method: str) -> None:
    """A text has the same ranges and answers alone and padded, whichever way the network is asked."""
    torch.manual_seed(0)
    network = Classifier(toy_shape())
    ids = torch.randint(5, 20, (1, 4))
    padded = torch.cat([ids, torch.zeros(1, 20, dtype=torch.long)], dim=1)
    found = []
    for batch in (ids, padded):
        copied = copy.deepcopy(network).train()
        mask = (batch > 0).long()
        with fake_quantized(copied, method) as inputs, torch.no_grad():  # type: ignore[arg-type]
            answers = copied(batch, mask)
            torch.testing.assert_close(copied.trace(batch, mask).logits, answers)
            found.append((answers, [item.range for item in inputs.values()]))
        assert "forward" not in vars(copied)
    (alone, ranges), (together, padded_ranges) = found
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    assert np.allclose(padded_ranges, ranges, atol=1e-5)


def test_the_step_hands_ranges_to_the_quantizer(tmp_path: Path) -> None:
    """A network trained for static INT8 comes with a range per product; for dynamic INT8 with none."""
    torch.manual_seed(0)
    network = Classifier(toy_shape(layers=(LayerShape(2, 16),)))
    parent = finished_network(tmp_path / "parent", network)
    training = {"epochs": 1, "batch_size": 16, "precision": "fp32"}
    part = {"kind": "qat", "parent": "parent", "training": training}
    found = {
        method: train_quantized(
            toy_context(tmp_path, {**part, "name": method, "method": method}, toy_dataset(60), parent=parent)
        )
        for method in ("static", "dynamic")
    }
    assert len(found["static"]["ranges"]) == 4
    assert all(low <= 0 < high for low, high in found["static"]["ranges"])
    assert "ranges" not in found["dynamic"]
    assert found["dynamic"]["parameters"] == parent.result["parameters"]
    start, end = load_network(parent.folder), load_network(tmp_path / "static")
    pairs = zip(start.parameters(), end.parameters(), strict=True)
    moved = max(float((a - b).detach().abs().max()) for a, b in pairs)
    assert 0 < moved < 0.1
