"""Exported and quantized graphs answer as the network does, at every shape, or are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from compress.graphs.export import OPSET, check_probes, export_onnx
from compress.graphs.lower import quantize_dynamic
from compress.graphs.verify import require_faithful, verify_graph
from compress.networks.network import Classifier
from contract.errors import SluiceError
from runtime.api import Encoded
from runtime.wordpiece import WordPieceEncoder
from tests.compress.conftest import random_network, toy_texts, toy_tokenizer


def encoded(n: int) -> Encoded:
    """Return n encoded toy texts."""
    encoder = WordPieceEncoder(toy_tokenizer().to_str().encode(), max_length=24)
    return encoder.encode([text for text, _ in toy_texts(n)])


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network as ONNX, FP32 and INT8."""
    folder = tmp_path_factory.mktemp("graphs")
    export_onnx(random_network(), folder / "model.onnx")
    quantize_dynamic(folder / "model.onnx", folder / "int8.onnx")
    return folder


def test_a_graph_of_any_batch_and_length(network: Classifier, exported: Path) -> None:
    """Export pins the opset, leaves both axes free, and agrees at all checked shapes."""
    model = onnx.load(exported / "model.onnx")
    assert ("", OPSET) in [(o.domain, o.version) for o in model.opset_import]
    assert [i.name for i in model.graph.input] == ["input_ids", "attention_mask"]
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert all(d.dim_param and not d.dim_value for d in dims)
    assert check_probes(network, exported / "model.onnx") < 1e-4
    verification = verify_graph(
        exported / "model.onnx", network, encoded(60), precision="fp32", batching="batched"
    )
    assert verification.label_agreement == 1.0
    require_faithful(verification, "fp32", "toy")


def test_a_graph_of_another_network_is_refused(network: Classifier, exported: Path) -> None:
    """Weights that changed after the export are found by shape check and verification."""
    with torch.no_grad():
        network.classify.bias[0] += 1
    with pytest.raises(SluiceError, match="differs"):
        check_probes(network, exported / "model.onnx")
    verification = verify_graph(
        exported / "model.onnx", network, encoded(60), precision="fp32", batching="batched"
    )
    with pytest.raises(SluiceError, match="limit for fp32"):
        require_faithful(verification, "fp32", "toy")


def test_a_network_that_diverged_is_refused(network: Classifier, exported: Path, tmp_path: Path) -> None:
    """Logits that are not numbers pass no check, and the error names the network and what to do."""
    with torch.no_grad():
        network.classify.bias[0] = torch.nan
    with pytest.raises(SluiceError, match=r"student: its logits are not finite.*\n.*lower learning_rate"):
        export_onnx(network, tmp_path / "model.onnx", name="student")
    assert not list(tmp_path.iterdir())
    with pytest.raises(SluiceError, match="logits are not finite"):
        verify_graph(exported / "model.onnx", network, encoded(9), precision="fp32", batching="batched")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_graph_whose_answers_are_not_finite_is_refused(
    network: Classifier, exported: Path, tmp_path: Path, value: float
) -> None:
    """A copy that overflows where its network does not passes neither the probes nor the verification."""
    model = onnx.load(exported / "model.onnx")
    bias = next(item for item in model.graph.initializer if item.name.endswith("classify.bias"))
    bias.CopyFrom(numpy_helper.from_array(np.full(3, value, dtype=np.float32), bias.name))
    onnx.save(model, tmp_path / "broken.onnx")
    with pytest.raises(SluiceError, match="student: its exported graph differs"):
        check_probes(network, tmp_path / "broken.onnx", name="student")
    with pytest.raises(SluiceError, match=r"half: its fp16 graph's logits are not finite.*\n.*method"):
        verify_graph(
            tmp_path / "broken.onnx", network, encoded(9), precision="fp16", batching="batched", name="half"
        )


def test_int8_keeps_most_answers(network: Classifier, exported: Path) -> None:
    """INT8 replaces constant MatMuls, is smaller in its layers, and mostly agrees with its source."""
    target = exported / "int8.onnx"
    kinds = [node.op_type for node in onnx.load(target).graph.node]
    assert kinds.count("MatMulInteger") >= 4 * 3
    verification = verify_graph(target, network, encoded(100), precision="int8-dynamic", batching="single")
    assert verification.label_agreement > 0.9
    assert verification.max_logit_error > 0
    assert verification.batched_agreement is not None
    assert sorted(p.name for p in exported.iterdir()) == ["int8.onnx", "model.onnx"]


def test_single_batching_hides_batchmates(exported: Path) -> None:
    """Served singly, an INT8 answer is the same to the last bit whoever comes along."""
    from runtime.onnx_model import OnnxRuntime

    target = exported / "int8.onnx"
    texts = [text for text, _ in toy_texts(20)]
    encoder = WordPieceEncoder(toy_tokenizer().to_str().encode(), max_length=24)
    runtime = OnnxRuntime(target, encoder=encoder.sha256, batching="single")
    together = runtime.logits(encoder.encode(texts))
    alone = np.concatenate([runtime.logits(encoder.encode([text])) for text in texts])
    assert np.array_equal(together, alone)
