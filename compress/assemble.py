"""From finished steps to a family folder: artifacts, predictions, costs, held-out texts and the manifest."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.data import DATA, Dataset, read_dataset, write_dataset
from compress.encoders import encoder_spec
from compress.measuring import HELD_OUT, LOGITS
from compress.predict import confidences
from compress.quality import Quality, quality_of
from compress.recipe import Limits, Recipe
from compress.store import Finished
from contract.errors import FamilyError, RecipeError
from contract.family import (
    Artifact,
    EncoderSpec,
    Family,
    Latency,
    Training,
    Variant,
    VariantKind,
    Verification,
    artifact_of,
    artifacts_of,
    read_family,
    write_family,
)
from contract.files import atomic_path, sha256_of_file, sha256_of_json
from contract.formulas import gco2e
from contract.machine import Machine
from contract.predictions import Cost, Predictions, VariantPredictions, write_costs, write_predictions
from contract.prices import load_grid

ROUTED = ("tune", "certify", "test")
VARIANTS = "variants"
KINDS: dict[str, VariantKind] = {
    "distil": "distilled",
    "prune": "pruned",
    "quantize": "quantized",
    "linear": "linear",
}
TIERS = (("critical", 0.005), ("high", 0.01), ("medium", 0.03))


def assemble_family(recipe: Recipe, out: Path, finished: Mapping[str, Finished], machine: Machine) -> Family:
    """Write everything that the finished steps allow into a family folder; the manifest comes last.

    Artifacts carry a part of their hash in their names, so that a family in use stays whole while a newer
    one is written beside it; files of the family before stay until the next change, for a gateway
    that still starts replicas from it. When nothing has changed the manifest stays as it is.

    Raises:
        RecipeError: when the teacher has not been measured.
    """
    parts = _parts(recipe)
    done = [name for name in parts if f"{name}.measure" in finished]
    if recipe.teacher.name not in done:
        raise RecipeError("the teacher is not measured yet", hint="sluice compress without --only")
    data = read_dataset(finished["data"].file(DATA))
    held = data.of(*HELD_OUT)
    logits = {name: np.load(finished[f"{name}.measure"].file(LOGITS)) for name in done}
    test = held.of("test")
    on_test = {name: logits[name][held.rows("test")].argmax(1) for name in done}

    encoders: dict[str, EncoderSpec] = {}
    variants = []
    for name in done:
        kind, parent = parts[name]
        made = _artifact_step(finished, name)
        key, spec = _encoder(out, made)
        encoders[key] = spec
        quality = quality_of(
            test,
            on_test[name],
            None if name == recipe.teacher.name else on_test[recipe.teacher.name],
            seed=recipe.seed,
        )
        variant = _variant(name, kind, parent, finished, out, key, quality)
        variants.append(variant)
    teacher = next(v for v in variants if v.name == recipe.teacher.name)
    variants = [_against_teacher(v, teacher, recipe.limits) for v in variants]

    routed = held.of(*ROUTED)
    write_dataset(out / DATA, routed)
    _write_predictions(
        out, routed, {name: found[held.rows(*ROUTED)] for name, found in logits.items()}, variants
    )
    write_costs(out / "costs.json", {v.name: _cost(v) for v in variants})
    family = Family(
        name=recipe.name,
        labels=data.labels,
        teacher=recipe.teacher.name,
        splits=data.records(),
        encoders=encoders,
        variants=tuple(variants),
        predictions=artifact_of(out, out / "predictions.parquet"),
        costs=artifact_of(out, out / "costs.json"),
        data=artifact_of(out, out / DATA),
        recipe_sha256=sha256_of_json(recipe.model_dump(mode="json")),
        machine=machine,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    before = _written(out)
    if before is not None and before.sha256 == family.sha256:
        return before
    write_family(out, family)
    _remove_strangers(out, family, before)
    return family


def _written(out: Path) -> Family | None:
    """Return the family that lies there, if one can be read."""
    try:
        return read_family(out, verify=False)
    except FamilyError:
        return None


def _parts(recipe: Recipe) -> dict[str, tuple[VariantKind, str | None]]:
    found: dict[str, tuple[VariantKind, str | None]] = {recipe.teacher.name: ("teacher", None)}
    for variant in recipe.variants:
        found[variant.name] = (KINDS[variant.kind], variant.parent)
    return found


def _artifact_step(finished: Mapping[str, Finished], name: str) -> Finished:
    return finished.get(f"{name}.export") or finished[name]


def _encoder(out: Path, made: Finished) -> tuple[str, EncoderSpec]:
    spec = encoder_spec(made)
    if spec.artifact is not None:
        placed = _place(out, made.folder / spec.artifact.path, "tokenizer", spec.artifact.sha256)
        spec = spec.model_copy(update={"artifact": placed})
    return f"{spec.kind}-{spec.sha256[:8]}", spec


def _place(out: Path, source: Path, name: str, sha256: str) -> Artifact:
    """Put a file of a finished step into the family under a name that tells its content."""
    target = out / VARIANTS / f"{name}-{sha256[:12]}{source.suffix}"
    if not target.is_file() or sha256_of_file(target) != sha256:
        with atomic_path(target) as temporary:
            try:
                os.link(source, temporary)
            except OSError:
                shutil.copyfile(source, temporary)
    return artifact_of(out, target)


def _variant(
    name: str,
    kind: VariantKind,
    parent: str | None,
    finished: Mapping[str, Finished],
    out: Path,
    encoder: str,
    quality: Quality,
) -> Variant:
    made, measured = _artifact_step(finished, name), finished[f"{name}.measure"].result
    result = made.result
    artifact = str(result["artifact"])
    verification = result.get("verification")
    return Variant(
        name=name,
        kind=kind,
        parent=parent,
        step=finished[name].key,
        runtime=result["runtime"],
        precision=result["precision"],
        batching=result["batching"],
        artifact=_place(out, made.file(artifact), name, made.files[artifact]),
        encoder=encoder,
        parameters=result.get("parameters"),
        flops_per_text=result.get("flops_per_text"),
        temperature=measured["temperature"],
        ece_before=measured["ece_before"],
        ece_after=measured["ece_after"],
        latency=tuple(Latency.model_validate(item) for item in measured["latency"]),
        cpu_seconds_per_1k=measured["cpu_seconds_per_1k"],
        peak_memory_bytes=measured["peak_memory_bytes"],
        energy_wh_per_1k=measured["energy_wh_per_1k"],
        energy_provenance=measured["energy_provenance"],
        usd_per_1k=measured["usd_per_1k"],
        verification=None if verification is None else Verification.model_validate(verification),
        training=_training(finished[name].cost),
        accuracy=quality.accuracy,
        accuracy_interval=quality.accuracy_interval,
        accuracy_delta=quality.accuracy_delta,
        accuracy_delta_interval=quality.accuracy_delta_interval,
        macro_f1=quality.macro_f1,
        macro_f1_interval=quality.macro_f1_interval,
        per_class=quality.per_class,
        accuracy_per_slice=quality.accuracy_per_slice,
    )


def _training(cost: Mapping[str, Any]) -> Training:
    energy = cost.get("energy_wh")
    return Training(
        seconds=cost["seconds"],
        energy_wh=energy,
        gco2e=None if energy is None else gco2e(energy, load_grid().intensity()),
        energy_provenance=cost.get("provenance", "none"),
    )


def _against_teacher(variant: Variant, teacher: Variant, limits: Limits) -> Variant:
    own, base = variant.latency_at(), teacher.latency_at()
    speed_up = None if own is None or base is None or not own.p50_ms else base.p50_ms / own.p50_ms
    drop = -(variant.accuracy_delta or 0.0)
    return variant.model_copy(
        update={
            "speed_up": speed_up,
            "tier": next((name for name, limit in TIERS if drop < limit), None),
            "failed_limits": tuple(_failures(variant, teacher, limits)),
        }
    )


def _failures(variant: Variant, teacher: Variant, limits: Limits) -> list[str]:
    found = []
    check = variant.verification
    if check is not None and check.label_agreement < check.agreement_limit:
        found.append(
            f"agrees with its source on {check.label_agreement:.1%}, limit {check.agreement_limit:.1%}"
        )
    drop = -(variant.accuracy_delta or 0.0)
    if limits.accuracy_drop is not None and drop > limits.accuracy_drop:
        found.append(f"accuracy drop {drop:.4f}, limit {limits.accuracy_drop:g}")
    f1_drop = (teacher.macro_f1 or 0.0) - (variant.macro_f1 or 0.0)
    if limits.macro_f1_drop is not None and f1_drop > limits.macro_f1_drop:
        found.append(f"macro-F1 drop {f1_drop:.4f}, limit {limits.macro_f1_drop:g}")
    for name, limit in limits.slices.items():
        if name not in teacher.accuracy_per_slice:
            found.append(f"the slice {name!r} has no rows in the test split")
            continue
        slice_drop = teacher.accuracy_per_slice[name] - variant.accuracy_per_slice[name]
        if slice_drop > limit:
            found.append(f"slice {name!r}: accuracy drop {slice_drop:.4f}, limit {limit:g}")
    measured = variant.latency_at()
    if limits.latency_p99_ms is not None and measured and measured.p99_ms > limits.latency_p99_ms:
        found.append(f"p99 {measured.p99_ms:.2f} ms, limit {limits.latency_p99_ms:g} ms")
    return found


def _write_predictions(
    out: Path, routed: Dataset, logits: Mapping[str, NDArray[np.float32]], variants: list[Variant]
) -> None:
    names = sorted({name for row in routed.slices for name in row})
    table = Predictions(
        labels=routed.labels,
        label=routed.targets,
        variants={
            v.name: VariantPredictions(
                prediction=logits[v.name].argmax(1).astype(np.int64),
                confidence=confidences(logits[v.name], v.temperature),
                logits=logits[v.name],
            )
            for v in variants
        },
        split=np.array(routed.split, dtype=np.str_),
        slices={name: np.array([name in row for row in routed.slices]) for name in names},
    )
    write_predictions(out / "predictions.parquet", table)


def _cost(variant: Variant) -> Cost:
    latency = variant.latency_at()
    return Cost(
        usd_per_1k=variant.usd_per_1k or 0.0,
        latency_ms=None if latency is None else latency.p50_ms,
        energy_wh_per_1k=variant.energy_wh_per_1k,
    )


def _remove_strangers(out: Path, *families: Family | None) -> None:
    """Remove variant files that no manifest given names; folders are somebody else's and stay."""
    named = {artifact.path for family in families if family is not None for artifact in artifacts_of(family)}
    for path in (out / VARIANTS).iterdir():
        if path.is_file() and path.relative_to(out).as_posix() not in named:
            path.unlink()
