"""Adds a model behind HTTP to a family: asked for its held-out rows, measured, priced.

No torch: whoever has a family and an address can do it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from compress.asking.figures import measured_of, untold_note, usd_per_1k_of
from compress.datasets.data import Dataset
from compress.measurement.limits import tier_of
from compress.measurement.predict import answers_of
from compress.measurement.quality import quality_of
from contract.costs import COSTS, Cost, read_costs, write_costs
from contract.errors import FamilyError, InputError, TargetNotMet
from contract.family import (
    MANIFEST,
    Family,
    Latency,
    StepCost,
    Variant,
    artifact_of,
    artifacts_of,
    read_family,
    write_family,
)
from contract.files import inside, sha256_of_json, write_json
from contract.formulas import exact_quantile, quantile_interval
from contract.predictions import OUTSIDE, PREDICTIONS, Predictions, VariantPredictions, write_predictions
from contract.remote import RemoteModel
from router.tune.calibrate import expected_calibration_error, fit_temperature
from runtime.remote.answered import logits_of
from runtime.remote.asking import NONE, Asked, ask_texts
from runtime.remote.estimate import Estimate, estimate
from runtime.remote.kept import KeptAnswers
from runtime.remote.record import REMOTE_ENCODER
from tables.predictions import read_predictions

ANSWERS = "answers"
ENCODER = "remote"
FOLDER = "variants"
NEW = ".new"
_LEAST_ALONE = 20
_ERRORS = 0.01
"""Share of rows that may stay without a reply, for reasons that no other try takes away."""
_DIGITS = 9


@dataclass(frozen=True)
class RemoteAddition:
    """What is to be added.

    Attributes:
        name: of the variant; one of that name that is remote too is replaced.
        model: how it is asked.
        reference: whether it becomes the teacher that all variants are compared with.
        answers: folder of the answers that are kept.
        max_usd: that the answers may cost in all; None where they cost nothing.
        alone: rows asked one at a time, to time a request alone.
        seed: of the bootstrap.
    """

    name: str
    model: RemoteModel
    answers: Path
    reference: bool = False
    max_usd: float | None = None
    alone: int = 100
    seed: int = 0


def held_out(folder: Path, family: Family) -> Dataset:
    """Return the labelled texts beneath a family's predictions. Raises FamilyError."""
    if family.data is None or family.predictions is None or family.costs is None:
        raise FamilyError(
            "it lacks held-out texts, predictions or costs, which a variant is added to",
            where=folder,
            hint="sluice compress RECIPE --out FAMILY",
        )
    try:
        table = pq.read_table(inside(folder, family.data.path))
        columns = {name: table[name].to_pylist() for name in ("text", "label", "split")}
        slices = table["slice"].to_pylist() if "slice" in table.column_names else [()] * len(table)
    except (OSError, pa.ArrowException, KeyError) as problem:
        raise FamilyError(f"its held-out texts cannot be read: {problem}", where=folder) from None
    return Dataset(
        labels=family.labels,
        texts=tuple(columns["text"]),
        label=tuple(columns["label"]),
        split=tuple(columns["split"]),
        slices=tuple(tuple(names or ()) for names in slices),
    )


def cost_of(folder: Path, wanted: RemoteAddition) -> Estimate:
    """Return what adding it would cost; asks nothing. Raises FamilyError, InputError."""
    family = read_family(folder)
    _check_name(family, wanted, folder)
    texts = held_out(folder, family).texts
    return estimate(wanted.model, family.labels, texts, wanted.answers)


def add_remote(
    folder: Path,
    wanted: RemoteAddition,
    out: Path,
    progress: Callable[[int, int, float], None] = lambda *_: None,
) -> Family:
    """Ask a model for a family's held-out rows and write the family with it as one more variant.

    Answers are kept beside the family: after a failure, the same call goes on from there.

    Args:
        folder: the family.
        wanted: what is added.
        out: where the family is written; `folder` itself changes it in place, the manifest last.
        progress: told of rows answered, all rows, and USD so far.

    Raises:
        FamilyError: the family is not whole, or the name is taken.
        InputError: the record does not fit the labels.
        EnvironmentProblem: its key is not to be found here.
        TargetNotMet: not every row could be asked, or requests failed for good, which says nothing of the
            model; says why, and what has been answered is kept.
    """
    family = read_family(folder)
    _check_name(family, wanted, folder)
    data = held_out(folder, family)
    began = time.monotonic()
    asked = ask_texts(
        wanted.model,
        family.labels,
        data.texts,
        wanted.answers,
        max_usd=wanted.max_usd,
        alone=wanted.alone,
        progress=progress,
    )
    if asked.stopped is not None:
        raise TargetNotMet(
            f"{len(data) - asked.unanswered:,} of {len(data):,} rows are answered, for {asked.usd:,.4g} USD, "
            f"and are kept; it stopped: {asked.stopped}"
        )
    failed = sum(asked.errors.values())
    if asked.may_come or failed > _ERRORS * len(data):
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in asked.errors.items())
        raise TargetNotMet(
            f"{failed:,} texts got no reply ({kinds}), which says nothing of the model; the "
            f"others are answered, for {asked.usd:,.4g} USD, and are kept",
            hint="the same command again asks for these alone",
        )
    if (asked.labels == NONE).all():
        raise TargetNotMet(f"no row got an answer: {_counted(asked)}")
    answers, temperature = _answers(data, asked)
    table = read_predictions(inside(folder, _path(family.predictions)), labels=family.labels)
    variants = {name: one for name, one in table.variants.items() if name != wanted.name}
    table = Predictions(
        table.labels, table.label, {**variants, wanted.name: answers}, table.split, table.slices
    )
    _copy(folder, out, family)
    variant = _variant(out, wanted, data, asked, temperature)
    kept = [one for one in family.variants if one.name != wanted.name]
    teacher = wanted.name if wanted.reference else family.teacher
    judged = _judged((*kept, variant), teacher, data, table, wanted, family)
    step = StepCost(name=wanted.name, kind="remote", seconds=time.monotonic() - began)
    return _write(folder, out, family, table, judged, teacher, step)


def _check_name(family: Family, wanted: RemoteAddition, folder: Path) -> None:
    wanted.model.names(family.labels)
    if wanted.reference and family.truth == "teacher" and family.teacher != wanted.name:
        raise FamilyError(
            f"its labels are the answers of {family.teacher}, so no other can be its reference",
            where=folder,
            hint="without --reference; or `teacher: {remote: ...}` in a recipe",
        )
    there = next((one for one in family.variants if one.name == wanted.name), None)
    if there is not None and there.runtime != "remote":
        raise FamilyError(
            f"it has a variant {wanted.name!r} already, which is no remote one", where=folder,
            hint="another --name",
        )  # fmt: skip
    if any(family.encoders[v.encoder].kind == "pixels" for v in family.variants) != (
        wanted.model.inputs == "image"
    ):
        what = "images" if wanted.model.inputs == "text" else "texts"
        raise InputError(
            f"the family classifies {what}, and the record says `inputs: {wanted.model.inputs}`",
            hint="inputs: image" if what == "images" else "inputs: text",
        )


def _answers(data: Dataset, asked: Asked) -> tuple[VariantPredictions, float]:
    """Return what the table holds of the answers, and the temperature that fits the rows to tune on.

    Without a row to tune on with a label it is 1. Where a row has no answer there are no logits.
    """
    classes = len(data.labels)
    there = asked.labels != NONE
    labels = np.where(there, asked.labels, 0)
    probabilities = asked.probabilities
    if probabilities is not None:
        untold = np.isnan(probabilities[:, 0])
        probabilities = np.where(untold[:, None], np.eye(classes)[labels], probabilities)
    logits = logits_of(labels, probabilities, classes)
    rows = there & (data.targets >= 0) & np.isin(np.array(data.split), ("tune",))
    temperature = fit_temperature(logits[rows], data.targets[rows]) if rows.any() else 1.0
    found = answers_of(logits, temperature)
    if there.all():
        return found, temperature
    return (
        VariantPredictions(
            np.where(there, found.prediction, OUTSIDE), np.where(there, found.confidence, 0.0)
        ),
        temperature,
    )


def _variant(out: Path, wanted: RemoteAddition, data: Dataset, asked: Asked, temperature: float) -> Variant:
    record = wanted.model.dump()
    path = out / FOLDER / f"{wanted.name}-{sha256_of_json(record)[:12]}.json"
    write_json(path, record)
    texts = list(dict.fromkeys(data.texts))
    with KeptAnswers(wanted.answers, wanted.model, data.labels) as kept:
        replies = [one for text in texts if (one := kept.get(text)) is not None]
        spent = sum(map(kept.spent, texts))
    failures = {str(kind): n for kind, n in asked.failures.items()}
    notes = [f"{asked.unanswered:,} of {len(data):,} rows have no answer of it"] if asked.unanswered else []
    latency, note = _latency(wanted, asked)
    return Variant(
        name=wanted.name,
        kind="remote",
        technique="remote",
        runtime="remote",
        artifact=artifact_of(out, path),
        encoder=ENCODER,
        temperature=temperature,
        latency=latency,
        usd_per_1k=usd_per_1k_of(wanted.model, replies),
        remote=measured_of(replies, len(texts), asked.calls, failures, spent),
        notes=(*notes, *note, *untold_note(wanted.model, replies)),
    )


def _latency(wanted: RemoteAddition, asked: Asked) -> tuple[tuple[Latency, ...], list[str]]:
    """Return the time of one request alone, or as near to that as is known, and under the record's load."""
    alone = asked.seconds[asked.alone & np.isfinite(asked.seconds)] * 1e3
    others = asked.seconds[~asked.alone & np.isfinite(asked.seconds)] * 1e3
    most, note = wanted.model.max_concurrency, []
    if len(alone) < _LEAST_ALONE:
        alone, others = np.concatenate([alone, others]), others[:0]
        note = [f"its latency is of requests of which up to {most} were out at a time"]
    found = [_timed(alone, 1, 1)]
    batch = wanted.model.oip.batch if wanted.model.form == "oip" else 1
    if len(others) and (batch, most) != (1, 1):
        found.append(_timed(others, batch, most))
    return tuple(found), note


def _timed(times_ms: NDArray[np.float64], batch: int, concurrency: int) -> Latency:
    return Latency(
        batch=batch,
        concurrency=concurrency,
        threads=1,
        provider="remote",
        n=len(times_ms),
        p50_ms=exact_quantile(times_ms, 0.5),
        p99_ms=exact_quantile(times_ms, 0.99),
        p99_interval_ms=quantile_interval(times_ms, 0.99),
    )


def _judged(
    variants: tuple[Variant, ...],
    teacher: str,
    data: Dataset,
    table: Predictions,
    wanted: RemoteAddition,
    family: Family,
) -> tuple[Variant, ...]:
    """Return the variants with their figures on the test split: the new one's; all, where the teacher is new.

    A family whose teacher was known by its answers alone keeps its deltas against these.
    """
    rows = data.rows("test")
    test = data.take(rows)
    if not len(rows) or (test.targets < 0).any():
        return variants
    said = {name: one.prediction[rows] for name, one in table.variants.items()}
    new_teacher = teacher != family.teacher or family.variant(teacher).runtime == "remote"
    base = next(one for one in variants if one.name == teacher).latency_at()
    found = []
    for one in variants:
        if one.name != wanted.name and not new_teacher:
            found.append(one)
            continue
        quality = quality_of(
            test, said[one.name], None if one.name == teacher else said[teacher], seed=wanted.seed
        )
        own = one.latency_at()
        told: dict[str, Any] = vars(quality) | {
            "speed_up": None if own is None or base is None or not own.p50_ms else base.p50_ms / own.p50_ms,
            "tier": tier_of(round(-(quality.accuracy_delta or 0.0), _DIGITS)),
        }
        if one.name == wanted.name:
            told |= _calibration(table.variants[one.name], rows, test.targets)
        found.append(one.model_copy(update=told))
    return tuple(found)


def _calibration(
    answers: VariantPredictions, rows: NDArray[np.int64], targets: NDArray[np.int64]
) -> dict[str, float | None]:
    right = answers.prediction[rows] == targets
    before = None
    if answers.logits is not None:
        plain = answers_of(answers.logits[rows], 1.0).confidence
        before = expected_calibration_error(plain, right)
    return {
        "ece_before": before,
        "ece_after": expected_calibration_error(answers.confidence[rows], right),
    }


def _copy(folder: Path, out: Path, family: Family) -> None:
    """Put the family's files into another folder, if it is another."""
    if out.resolve() == folder.resolve():
        return
    for artifact in artifacts_of(family):
        target = out / artifact.path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(inside(folder, artifact.path), target)


def _write(
    folder: Path,
    out: Path,
    family: Family,
    table: Predictions,
    variants: tuple[Variant, ...],
    teacher: str,
    step: StepCost,
) -> Family:
    """Write predictions and costs, then the manifest, each in one move."""
    costs = read_costs(inside(folder, _path(family.costs)))
    for one in variants:
        if one.runtime == "remote":
            alone = one.latency_at()
            costs[one.name] = Cost(one.usd_per_1k or 0.0, None if alone is None else alone.p50_ms)
    new = out / NEW
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    write_predictions(new / PREDICTIONS, table)
    write_costs(new / COSTS, costs)
    told = family.dump() | {
        "teacher": teacher,
        **({} if teacher == family.teacher else {"heard": None, "asked": None}),
        "encoders": {**family.encoders, ENCODER: REMOTE_ENCODER},
        "variants": variants,
        "steps": (*(one for one in family.steps if one.name != step.name), step),
        "predictions": artifact_of(new, new / PREDICTIONS),
        "costs": artifact_of(new, new / COSTS),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    found = Family.model_validate(told)
    write_family(new, found)
    for name in (PREDICTIONS, COSTS, MANIFEST):
        (new / name).replace(out / name)
    new.rmdir()
    return found


def _path(artifact: Any) -> str:
    return str(artifact.path)


def _counted(asked: Asked) -> str:
    told = ", ".join(f"{n:,} times {kind}" for kind, n in asked.failures.items()) or "none was asked"
    return told + (f"; it names {', '.join(map(repr, asked.examples))}" if asked.examples else "")
