"""From a family on disk to variants that answer: hashes checked, encoders shared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from contract.errors import FamilyError
from contract.family import Family, Variant
from contract.files import check_sha256, inside
from contract.machine import Provider
from runtime.api import Encoder, LoadedVariant, Logits, Runtime
from runtime.encoders import load_encoder
from runtime.fake import FakeRuntime, read_fake
from runtime.ngrams.deep_table import DeepTableRuntime, read_deep_table
from runtime.ngrams.encoder import NgramEncoder
from runtime.ngrams.features import NgramRuntime
from runtime.ngrams.linear import LinearRuntime, read_linear
from runtime.onnx_model import OnnxRuntime, check_provider
from runtime.remote.record import read_remote


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
    runtime = _runtime(path, variant, family, encoder.sha256, provider, threads)
    return LoadedVariant(
        name=name,
        artifact_sha256=variant.artifact.sha256,
        labels=family.labels,
        temperature=variant.temperature,
        encoder=encoder,
        runtime=runtime,
        direct=_direct(encoder, runtime),
    )


def _direct(encoder: Encoder, runtime: Runtime) -> Callable[[Sequence[str]], Logits] | None:
    """Return what gives the answers of both in one call, where that is compiled."""
    if isinstance(encoder, NgramEncoder) and isinstance(runtime, NgramRuntime):
        return runtime.compiled(encoder.options)
    return None


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
    if variant.runtime == "remote":
        from runtime.remote.variant import RemoteRuntime  # httpx takes a while to import

        return RemoteRuntime(read_remote(path), family.labels)
    if variant.runtime == "deep_table":
        table = read_deep_table(path)
        if table.encoder != encoder or table.bias.size != len(family.labels):
            raise FamilyError("the deep table was trained for another encoder or label set", where=path)
        return DeepTableRuntime(table)
    behaviour = read_fake(path)
    if behaviour.labels != family.labels:
        raise FamilyError("the fake has other labels than its family", where=path)
    return FakeRuntime(behaviour)
