"""From a family on disk to variants that answer: hashes checked, encoders shared."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from weakref import WeakValueDictionary

from contract.errors import FamilyError
from contract.family import EncoderSpec, Family, Variant
from contract.files import check_sha256, inside
from contract.machine import Provider
from runtime.api import Encoder, LoadedVariant, Runtime
from runtime.fake import FakeEncoder, FakeRuntime, read_fake
from runtime.linear import LinearRuntime, read_linear
from runtime.ngrams import NgramEncoder, ngram_options
from runtime.onnx_model import OnnxRuntime, check_provider
from runtime.wordpiece import read_wordpiece

_encoders: WeakValueDictionary[str, Encoder] = WeakValueDictionary()
_encoders_lock = threading.Lock()


def check_family_runs(family: Family, provider: Provider = "cpu") -> None:
    """Raise EnvironmentProblem if this machine lacks what the family's variants need to run."""
    if provider != "cpu" or any(variant.runtime == "onnx" for variant in family.variants):
        check_provider(provider)


def load_variant(
    folder: Path, family: Family, name: str, *, provider: Provider = "cpu", threads: int = 1
) -> LoadedVariant:
    """Return a variant ready to answer.

    Args:
        folder: the family's folder.
        family: its manifest.
        name: which variant.
        provider: where ONNX graphs run; other runtimes use the processor.
        threads: threads of one call.

    Raises:
        FamilyError: unknown name, altered or missing artifact, encoder that is not what the manifest says.
        EnvironmentProblem: a library or the provider is missing.
    """
    variant = family.variant(name)
    path = inside(folder, variant.artifact.path)
    check_sha256(path, variant.artifact.sha256)
    encoder = load_encoder(folder, family.encoders[variant.encoder])
    return LoadedVariant(
        name=name,
        artifact_sha256=variant.artifact.sha256,
        labels=family.labels,
        temperature=variant.temperature,
        encoder=encoder,
        runtime=_runtime(path, variant, family, encoder.sha256, provider, threads),
    )


def load_variants(
    folder: Path, family: Family, names: Iterable[str], *, provider: Provider = "cpu", threads: int = 1
) -> dict[str, LoadedVariant]:
    """Return several variants by name. Raises as `load_variant`."""
    return {n: load_variant(folder, family, n, provider=provider, threads=threads) for n in names}


def load_encoder(folder: Path, spec: EncoderSpec) -> Encoder:
    """Return the encoder of a manifest record; equal encodings share one object while it is in use.

    Raises:
        FamilyError: when the encoder built from the record has another identity than the record says.
        EnvironmentProblem: the tokenizers library is missing.
    """
    with _encoders_lock:
        found = _encoders.get(spec.sha256)
        if found is None:
            found = _build_encoder(folder, spec)
            if found.sha256 != spec.sha256:
                raise FamilyError(
                    f"the {spec.kind} encoder is {found.sha256[:12]}…, the manifest says "
                    f"{spec.sha256[:12]}…: made by another version or altered",
                    where=folder,
                    hint="build the family again with `sluice compress`",
                )
            _encoders[spec.sha256] = found
    return found


def _build_encoder(folder: Path, spec: EncoderSpec) -> Encoder:
    if spec.kind == "wordpiece":
        if spec.artifact is None or spec.max_length is None:
            raise FamilyError("a wordpiece encoder needs a tokenizer file and max_length", where=folder)
        path = inside(folder, spec.artifact.path)
        check_sha256(path, spec.artifact.sha256)
        return read_wordpiece(path, max_length=spec.max_length)
    if spec.kind == "ngrams":
        return NgramEncoder(ngram_options(spec))
    return FakeEncoder()


def _runtime(
    path: Path, variant: Variant, family: Family, encoder: str, provider: Provider, threads: int
) -> Runtime:
    if variant.runtime == "onnx":
        return OnnxRuntime(
            path, encoder=encoder, provider=provider, threads=threads, batching=variant.batching
        )
    if variant.runtime == "linear":
        model = read_linear(path)
        if model.encoder != encoder or model.bias.size != len(family.labels):
            raise FamilyError("the linear model was trained for another encoder or label set", where=path)
        return LinearRuntime(model)
    behaviour = read_fake(path)
    if behaviour.labels != family.labels:
        raise FamilyError("the fake has other labels than its family", where=path)
    return FakeRuntime(behaviour)
