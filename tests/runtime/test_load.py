"""Loading variants from a family on disk."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path

import numpy as np
import pytest

from contract.errors import EnvironmentProblem, FamilyError
from contract.family import Family, Variant, artifact_of, read_family, write_family
from runtime.encoders import load_encoder
from runtime.load import check_family_runs, load_variant
from runtime.ngrams.encoder import NgramOptions, ngram_spec
from runtime.ngrams.linear import LinearModel, write_linear
from runtime.wordpiece import wordpiece_spec

OPTIONS = NgramOptions(bits=12)


@pytest.fixture
def folder(tmp_path: Path, tokenizer_path: Path, graph_path: Path) -> Path:
    """A family of two ONNX variants that share a tokenizer, and a linear one."""
    shutil.copy(tokenizer_path, tmp_path / "tokenizer.json")
    shutil.copy(graph_path, tmp_path / "model.onnx")
    linear = LinearModel(
        buckets=np.arange(4, dtype=np.uint32),
        weights=np.zeros((4, 2), dtype=np.float32),
        idf=np.ones(4, dtype=np.float32),
        bias=np.array([0, 1], dtype=np.float32),
        encoder=OPTIONS.sha256,
        bits=OPTIONS.bits,
    )
    write_linear(tmp_path / "linear.npz", linear)
    graph = artifact_of(tmp_path, tmp_path / "model.onnx")
    variants = (
        Variant(name="teacher", kind="teacher", runtime="onnx", artifact=graph, encoder="tokens"),
        Variant(
            name="small",
            kind="quantized",
            runtime="onnx",
            artifact=graph,
            encoder="tokens",
            batching="single",
            temperature=2.0,
        ),
        Variant(
            name="linear",
            kind="linear",
            runtime="linear",
            artifact=artifact_of(tmp_path, tmp_path / "linear.npz"),
            encoder="ngrams",
        ),
    )
    tokens = wordpiece_spec(artifact_of(tmp_path, tmp_path / "tokenizer.json"), 16)
    write_family(
        tmp_path,
        Family(
            name="toy",
            labels=("bad", "good"),
            teacher="teacher",
            encoders={"tokens": tokens, "ngrams": ngram_spec(OPTIONS)},
            variants=variants,
        ),
    )
    return tmp_path


def test_every_kind_of_variant_loads_and_answers(folder: Path) -> None:
    """ONNX and linear variants answer through one seam, encoders shared, manifest facts kept."""
    family = read_family(folder)
    loaded = {name: load_variant(folder, family, name) for name in family.names}
    assert loaded["teacher"].encoder is loaded["small"].encoder
    assert loaded["small"].temperature == 2.0
    assert loaded["teacher"].logits(["good", "bad bad"]).tolist() == [[0, 1], [2, 0]]
    assert loaded["linear"].logits(["good", ""]).tolist() == [[0, 1], [0, 1]]
    assert loaded["linear"].artifact_sha256 == family.variant("linear").artifact.sha256


def test_encoders_are_freed_with_their_last_user(folder: Path) -> None:
    """The shared encoder lives as long as somebody holds it."""
    family = read_family(folder)
    spec = family.encoders["tokens"]
    first = load_encoder(folder, spec)
    assert load_encoder(folder, spec) is first
    del first
    gc.collect()
    shutil.move(folder / "tokenizer.json", folder / "elsewhere.json")
    with pytest.raises(FamilyError, match=r"tokenizer\.json"):
        load_encoder(folder, spec)


def test_an_altered_artifact_is_refused(folder: Path) -> None:
    """A wrong hash stops the load, naming the file."""
    family = read_family(folder)
    with (folder / "linear.npz").open("ab") as file:
        file.write(b"x")
    with pytest.raises(FamilyError, match=r"linear\.npz.*sha256"):
        load_variant(folder, family, "linear")


def test_an_encoder_of_another_version_is_refused(folder: Path) -> None:
    """A manifest whose encoder hash is not what its options give does not load."""
    family = read_family(folder)
    spec = family.encoders["ngrams"].model_copy(update={"sha256": "0" * 64})
    with pytest.raises(FamilyError, match="ngrams encoder is"):
        load_encoder(folder, spec)


def test_a_linear_model_of_another_encoder_is_refused(folder: Path) -> None:
    """A linear variant must come with the encoder that it was trained on."""
    family = read_family(folder)
    other = family.model_copy(
        update={"encoders": {**family.encoders, "ngrams": ngram_spec(NgramOptions(bits=13))}}
    )
    with pytest.raises(FamilyError, match="another encoder"):
        load_variant(folder, other, "linear")


def test_unknown_variants_are_refused_by_name(folder: Path) -> None:
    """The error lists what there is."""
    with pytest.raises(FamilyError, match="teacher, small, linear"):
        load_variant(folder, read_family(folder), "huge")


def test_a_provider_that_is_missing_stops_the_start(folder: Path) -> None:
    """The check needs no artifact to be loaded."""
    import onnxruntime

    family = read_family(folder)
    check_family_runs(family, "cpu")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(EnvironmentProblem, match="CUDAExecutionProvider"):
            check_family_runs(family, "cuda")
