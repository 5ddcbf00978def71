"""SmoothQuant changes what INT8 has to hold and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from compress.graphs.export import check_probes, export_onnx
from compress.graphs.smooth import Smoothed, smooth
from compress.learning.training import predict
from compress.networks.network import Classifier, LayerShape
from runtime.wordpiece import WordPieceEncoder
from tests.compress.conftest import random_network, toy_shape, toy_texts, toy_tokenizer

ENCODED = WordPieceEncoder(toy_tokenizer().to_str().encode(), max_length=24).encode(
    [text for text, _ in toy_texts(30)]
)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.8])
def test_answers_stay(alpha: float) -> None:
    """The smoothed network gives the same logits in FP32, whatever the share that is moved."""
    network = random_network()
    before = predict(network, network.examples(ENCODED))
    smoothed = smooth(network, network.examples(ENCODED), alpha)
    assert np.allclose(predict(smoothed, network.examples(ENCODED)), before, atol=1e-4)
    assert np.array_equal(predict(network, network.examples(ENCODED)), before)


def test_an_outlier_channel_is_flattened() -> None:
    """A channel far larger than the others reaches the product no larger than they do at alpha 1."""
    network = random_network()
    with torch.no_grad():
        network.layers[0].attention_norm.weight[3] *= 100
    smoothed = smooth(network, network.examples(ENCODED), 1.0)
    widen = smoothed.layers[0].widen
    assert isinstance(widen, Smoothed)
    rows = np.arange(len(ENCODED))
    states: list[torch.Tensor] = []
    widen.linear.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))
    with torch.inference_mode():
        for row in rows:
            smoothed(*network.examples(ENCODED).batch(rows[row : row + 1]))
    peaks = torch.cat([item.flatten(0, 1) for item in states]).abs().amax(0)
    assert float(peaks.max() / peaks.min()) == pytest.approx(1.0, rel=1e-3)


def test_a_smoothed_network_exports(tmp_path: Path) -> None:
    """Layers without heads or neurons are passed over, and the graph agrees with the network it came from."""
    torch.manual_seed(0)
    network = Classifier(replace(toy_shape(), layers=(LayerShape(2, 16), LayerShape(0, 8), LayerShape(1, 0))))
    network.eval()
    smoothed = smooth(network, network.examples(ENCODED), 0.5)
    export_onnx(smoothed, tmp_path / "m.onnx")
    assert check_probes(network, tmp_path / "m.onnx") < 1e-4
