"""The ONNX runtime on a toy graph."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from contract.errors import EnvironmentProblem, FamilyError
from contract.family import Batching
from contract.machine import Provider
from runtime import onnx_model
from runtime.api import Logits
from runtime.onnx_model import Feeds, OnnxRuntime, check_provider
from runtime.wordpiece import INPUT_IDS, WordPieceEncoder, read_wordpiece

TEXTS = ["good", "bad bad films", "", "very good films good", "bad", "good bad"]


@pytest.fixture
def encoder(tokenizer_path: Path) -> WordPieceEncoder:
    """The toy encoder."""
    return read_wordpiece(tokenizer_path, max_length=16)


@pytest.mark.parametrize("batching", ["single", "batched"])
def test_answers_keep_the_order_of_the_texts(
    graph_path: Path, encoder: WordPieceEncoder, batching: Batching
) -> None:
    """Each row holds the logits of its own text, whatever groups they were run in."""
    runtime = OnnxRuntime(graph_path, encoder=encoder.sha256, batching=batching)
    logits = runtime.logits(encoder.encode(TEXTS))
    assert logits.dtype == np.float32
    assert logits.tolist() == [[0, 1], [2, 0], [0, 0], [0, 2], [1, 0], [1, 1]]


def test_single_runs_see_no_padding(
    graph_path: Path, encoder: WordPieceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With batching `single` every run is one text of its own length, also one taken out of many."""
    runtime = OnnxRuntime(graph_path, encoder=encoder.sha256, batching="single")
    encoded = encoder.encode(TEXTS)
    shapes: list[tuple[int, ...]] = []
    run = runtime._run

    def spy(feeds: Feeds) -> Logits:
        shapes.append(feeds[INPUT_IDS].shape)
        return run(feeds)

    monkeypatch.setattr(runtime, "_run", spy)
    runtime.logits(encoded)
    assert sorted(shapes) == sorted((1, int(n)) for n in encoded.lengths)
    shapes.clear()
    runtime.logits(encoded.take([0]))
    assert shapes == [(1, int(encoded.lengths[0]))]


def test_many_texts_run_in_groups_of_like_length(graph_path: Path, encoder: WordPieceEncoder) -> None:
    """Groups are bounded, waste little padding, and hold every text once."""
    runtime = OnnxRuntime(graph_path, encoder=encoder.sha256)
    lengths = np.random.default_rng(0).integers(2, 128, 300)
    groups = list(runtime._groups(lengths))
    assert sorted(np.concatenate(groups).tolist()) == list(range(300))
    for rows in groups:
        assert len(rows) == 1 or lengths[rows].max() * len(rows) <= 256
        assert lengths[rows].max() * len(rows) <= 1.15 * lengths[rows].sum() + 1e-9


def test_token_types_are_fed_only_where_declared(
    graph_with_token_types: Path, encoder: WordPieceEncoder
) -> None:
    """A graph with `token_type_ids` gets zeros."""
    runtime = OnnxRuntime(graph_with_token_types, encoder=encoder.sha256)
    assert runtime.logits(encoder.encode(["good", "bad bad"])).tolist() == [[0, 1], [2, 0]]


def test_input_of_another_encoder_is_refused(
    graph_path: Path, encoder: WordPieceEncoder, tokenizer_path: Path
) -> None:
    """Encoder hashes must match."""
    other = read_wordpiece(tokenizer_path, max_length=4)
    runtime = OnnxRuntime(graph_path, encoder=encoder.sha256)
    with pytest.raises(FamilyError, match="encoder hashes differ"):
        runtime.logits(other.encode(["good"]))


def test_a_broken_graph_is_refused_by_name(tmp_path: Path) -> None:
    """A file that is no graph is a FamilyError naming the file."""
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a graph")
    with pytest.raises(FamilyError, match=r"model\.onnx"):
        OnnxRuntime(path, encoder="x")


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_is_not_there_names_what_to_install(provider: Provider) -> None:
    """Asking for a GPU provider without the GPU build says which extra to install."""
    import onnxruntime

    if onnx_model._PROVIDERS[provider] in onnxruntime.get_available_providers():
        check_provider(provider)
        return
    with pytest.raises(EnvironmentProblem, match=r"sluicegate\[gpu\]"):
        check_provider(provider)


def test_two_builds_of_onnx_runtime_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime beside onnxruntime-gpu stops at once with a clear message."""
    monkeypatch.setattr(metadata, "distribution", lambda name: name)
    with pytest.raises(EnvironmentProblem, match="both installed"):
        check_provider("cpu")
