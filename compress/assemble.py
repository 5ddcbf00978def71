"""From finished steps to a family folder: artifacts, predictions, costs, held-out texts and the manifest."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.costs import step_costs, training_of
from compress.datasets.data import DATA, Dataset, read_dataset, write_dataset
from compress.encoders import encoder_spec
from compress.heard import hear, reference_of
from compress.lineage import KINDS, Lineage, lineages_of, lowerings_of
from compress.measurement.limits import judged
from compress.measurement.measure_step import HELD_OUT, LOGITS
from compress.measurement.predict import answers_of
from compress.measurement.quality import quality_of, slice_rows
from compress.recipes.recipe import Recipe
from compress.steps import Step
from compress.store import Finished
from contract.costs import COSTS, Cost, write_costs
from contract.errors import FamilyError
from contract.family import (
    MANIFEST,
    Artifact,
    EncoderSpec,
    Family,
    Latency,
    Training,
    Variant,
    Verification,
    artifact_of,
    artifacts_of,
    read_family,
    write_family,
)
from contract.files import atomic_path, sha256_of_file, sha256_of_json
from contract.heard import AskedTeacher
from contract.machine import Machine
from contract.predictions import PREDICTIONS, Predictions, write_predictions
from router.tune.calibrate import expected_calibration_error
from runtime.api import Logits

ROUTED = ("tune", "certify", "test")
VARIANTS = "variants"
NEW = ".new"


def assemble_family(
    recipe: Recipe, out: Path, steps: Sequence[Step], finished: Mapping[str, Finished], machine: Machine
) -> Family:
    """Write everything that the finished steps allow into a family folder; the manifest comes last.

    Artifacts carry a part of their hash in their names, so that a family in use stays whole while a newer
    one is written beside it; files of the family before stay until the next change, for a gateway
    that still starts replicas from it. When nothing has changed the manifest stays as it is.

    Args:
        recipe: what was asked for.
        out: the family's folder.
        steps: the plan, which says what was made from what.
        finished: its finished steps by name.
        machine: that all was measured on.

    Raises:
        RecipeError: when the teacher has not been measured, nor a variant that could stand in its place.
    """
    lineages, lowered = lineages_of(recipe), lowerings_of(recipe)
    done = [name for name in lineages if f"{name}.measure" in finished]
    own, elected = reference_of(recipe, done, finished)
    data = read_dataset(finished["data"].file(DATA))
    held = data.of(*HELD_OUT)
    logits = {name: np.load(finished[f"{name}.measure"].file(LOGITS)) for name in done}
    test, rows = held.of("test"), held.rows("test")
    heard = hear(finished[recipe.teacher.name], test, elected) if recipe.teacher.only_heard else None
    by_heard = heard is not None and heard.record.deltas
    taught = heard.said if heard is not None and by_heard else logits[own][rows].argmax(1)
    costs = step_costs(steps, finished)

    encoders: dict[str, EncoderSpec] = {}
    measured = []
    for name in done:
        key, encoders[key] = _encoder(out, _artifact_step(finished, name))
        said = logits[name][rows].argmax(1)
        quality = quality_of(test, said, taught if name != own or by_heard else None, seed=recipe.seed)
        variant = _variant(
            name, lineages[name], finished, out, key, training_of(name, lineages, steps, costs)
        )
        before, after = _calibration_errors(logits[name][rows], test.targets, variant.temperature)
        told: dict[str, Any] = {"lowering": lowered.get(name, {}), "ece_before": before, "ece_after": after}
        if heard is not None:
            told["agreement"] = heard.agreement_of(said)
        measured.append(variant.model_copy(update=vars(quality) | told))
    teacher = next(variant for variant in measured if variant.name == own)
    limits = recipe.limits if recipe.data.label is not None else recipe.limits.as_asked
    variants = tuple(judged(variant, teacher, limits) for variant in measured)

    routed, rows = held.of(*ROUTED), held.rows(*ROUTED)
    if recipe.data.label is None:
        routed = replace(routed, label=("",) * len(routed))
    answers = {v.name: (logits[v.name][rows], v.temperature) for v in variants}
    new = out / NEW
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    write_dataset(new / DATA, routed)
    write_predictions(new / PREDICTIONS, predictions_of(routed, answers))
    write_costs(new / COSTS, {v.name: _cost(v) for v in variants})
    family = Family(
        name=recipe.name,
        labels=data.labels,
        teacher=own,
        heard=None if heard is None else heard.record,
        asked=_asked(recipe, finished),
        truth="labels" if recipe.data.label is not None else "teacher",
        splits=data.records(),
        encoders=encoders,
        variants=variants,
        steps=costs,
        predictions=artifact_of(new, new / PREDICTIONS),
        costs=artifact_of(new, new / COSTS),
        data=artifact_of(new, new / DATA),
        recipe_sha256=sha256_of_json(recipe.model_dump(mode="json")),
        machine=machine,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return _put_in_place(family, new, out)


def _asked(recipe: Recipe, finished: Mapping[str, Finished]) -> AskedTeacher | None:
    """Return what asking a teacher behind HTTP came to; None where it is another kind of teacher."""
    if recipe.teacher.remote is None:
        return None
    return AskedTeacher.model_validate(finished[recipe.teacher.name].result["asked"])


def _put_in_place(family: Family, new: Path, out: Path) -> Family:
    """Move a complete new family over the one before, and return the one that is there then."""
    before = _written(out)
    unchanged = before is not None and before.sha256 == family.sha256
    if not unchanged:
        write_family(new, family)
    # The manifest names the hashes of the other three: all are complete before the first takes its place.
    for name in (DATA, PREDICTIONS, COSTS, MANIFEST):
        if (new / name).is_file():
            (new / name).replace(out / name)
    new.rmdir()
    if not unchanged:
        _remove_strangers(out, family, before)
    return before if before is not None and unchanged else family


def _calibration_errors(
    logits: Logits, targets: NDArray[np.int64], temperature: float
) -> tuple[float, float]:
    """Return the expected calibration error of answers [N, C] at temperature 1 and at the one given."""
    right = logits.argmax(1) == targets
    before, after = (
        expected_calibration_error(answers_of(logits, value).confidence, right)
        for value in (1.0, temperature)
    )
    return before, after


def _written(out: Path) -> Family | None:
    """Return the family that lies there, if one can be read."""
    try:
        return read_family(out, verify=False)
    except FamilyError:
        return None


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
    name: str, origin: Lineage, finished: Mapping[str, Finished], out: Path, encoder: str, training: Training
) -> Variant:
    made, measured = _artifact_step(finished, name), finished[f"{name}.measure"].result
    result, learnt = made.result, finished[name].result
    artifact = str(result["artifact"])
    verification = result.get("verification")
    return Variant(
        name=name,
        kind=KINDS[origin.technique],
        parent=origin.parent,
        technique=origin.told,
        step=finished[name].key,
        runtime=result["runtime"],
        precision=result["precision"],
        batching=result["batching"],
        artifact=_place(out, made.file(artifact), name, made.files[artifact]),
        encoder=encoder,
        parameters=result.get("parameters"),
        flops_per_text=result.get("flops_per_text"),
        sparsity=learnt.get("sparsity", result.get("sparsity")),
        compressed_bytes=learnt.get("compressed_bytes", result.get("compressed_bytes")),
        temperature=measured["temperature"],
        latency=tuple(Latency.model_validate(item) for item in measured["latency"]),
        cpu_seconds_per_1k=measured["cpu_seconds_per_1k"],
        peak_memory_bytes=measured["peak_memory_bytes"],
        energy_wh_per_1k=measured["energy_wh_per_1k"],
        energy_provenance=measured["energy_provenance"],
        usd_per_1k=measured["usd_per_1k"],
        verification=None if verification is None else Verification.model_validate(verification),
        remote=result.get("remote"),
        training=training,
        notes=tuple(learnt.get("notes", ())),
    )


def predictions_of(data: Dataset, answers: Mapping[str, tuple[Logits, float]]) -> Predictions:
    """Return the table of all variants' answers to N labelled texts, with their splits and slices.

    Args:
        data: the texts, labelled.
        answers: logits [N, C] and temperature by variant.
    """
    return Predictions(
        labels=data.labels,
        label=data.targets,
        variants={name: answers_of(logits, temperature) for name, (logits, temperature) in answers.items()},
        split=np.array(data.split, dtype=np.str_),
        slices=slice_rows(data),
    )


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
