"""From a family on disk to variants that answer: hashes checked, encoders shared."""

from __future__ import annotations

from pathlib import Path

from contract.errors import FamilyError
from contract.family import Family, Variant
from contract.files import check_sha256, inside
from contract.machine import Provider
from runtime.api import LoadedVariant, Runtime
from runtime.encoders import load_encoder
from runtime.fake import FakeRuntime, read_fake
from runtime.linear import LinearRuntime, read_linear
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
    return LoadedVariant(
        name=name,
        artifact_sha256=variant.artifact.sha256,
        labels=family.labels,
        temperature=variant.temperature,
        encoder=encoder,
        runtime=_runtime(path, variant, family, encoder.sha256, provider, threads),
    )


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
    behaviour = read_fake(path)
    if behaviour.labels != family.labels:
        raise FamilyError("the fake has other labels than its family", where=path)
    return FakeRuntime(behaviour)
