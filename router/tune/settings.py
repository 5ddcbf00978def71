"""How to tune: the settings, checked against the data, and which rows serve which purpose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from contract.costs import Cost
from contract.errors import InputError, PredictionsError
from contract.files import sha256_of_bytes
from contract.predictions import Predictions
from router.decide.scores import SCORE_NAMES
from router.tune.targets import Method


@dataclass(frozen=True)
class TuneSettings:
    """How to tune.

    Attributes:
        reference: the variant that drops are counted against; None is the teacher, else the dearest variant.
        teacher: the family's teacher, which is the reference unless another is named.
        stands_for: the teacher in whose place that variant stands, where only its answers are known.
        variants: which variants may take part; None is all.
        confidence: 1 - delta of the certificate.
        certified: False picks the empirical optimum (`--uncertified`).
        score: one of router.scores.SCORE_NAMES.
        method: of drops: the exact trinomial test of the net loss, betting on it, exact binomial on harm, or
        on disagreement with the reference (needs no labels).
        per_class: "auto" lets a stage's threshold and next stage depend on its predicted class where that
        pays. certify_share: share of rows kept for the certificate where the table has no split column.
        gears: whether the policy carries a ladder for load; overload_drop: what its overload gears may lose.
        abstain: whether what no variant is sure of is left to a person, and what 1,000 answers of that person
        cost; None: any text that may be answered is.
        artifact_sha256: hash of each variant's artifact, bound into the certificate.
        machine: where the answers were given, put into the certificate.
        created_at: text put into the certificate (this module has no clock).
    """

    reference: str | None = None
    teacher: str | None = None
    stands_for: str | None = None
    variants: tuple[str, ...] | None = None
    confidence: float = 0.9
    certified: bool = True
    score: str = "max_probability"
    method: Method = "trinomial"
    per_class: Literal["auto", "never"] = "auto"
    max_stages: int | None = None
    seed: int = 0
    certify_share: float = 0.6
    allow_always_escalate: bool = False
    abstain: bool = False
    abstain_usd_per_1k: float | None = None
    gears: bool = False
    overload_drop: float | None = None
    artifact_sha256: Mapping[str, str] = field(default_factory=dict)
    machine: str | None = None
    created_at: str = ""


def split_parts(predictions: Predictions, settings: TuneSettings) -> tuple[Predictions, Predictions | None]:
    """Return the rows to tune on and to certify with; `test` is never read.

    Without a certificate all of both are for tuning.
    """
    if predictions.split is not None:
        if settings.certified:
            return predictions.rows_of("tune"), predictions.rows_of("certify")
        present = [name for name in ("tune", "certify") if (predictions.split == name).any()]
        return predictions.rows_of(*(present or ["tune"])), None
    if not settings.certified:
        return predictions, None
    rows = np.random.default_rng(settings.seed).permutation(len(predictions))
    cut = len(rows) - round(settings.certify_share * len(rows))
    if not 0 < cut < len(rows):
        raise PredictionsError(
            f"{len(rows)} rows at a certify share of {settings.certify_share:g} leave a part empty",
            hint="give more rows, or another --certify-share",
        )
    return predictions.take(np.sort(rows[:cut])), predictions.take(np.sort(rows[cut:]))


@dataclass(frozen=True)
class Reference:
    """The variant that drops are counted against, and why it is that one, in words."""

    name: str
    why: str


def chosen_reference(
    predictions: Predictions, costs: Mapping[str, Cost], settings: TuneSettings
) -> Reference:
    """Return the reference: the one named, else the family's teacher, else the dearest variant of the table.

    Labels play no part in it: a handful of rows must not decide what a drop is a drop from. `variants` does
    not either, so that a cheap variant is never compared with itself alone. Of equally dear variants the
    slower one (latency_ms) is taken, then the one that needs more energy, then the last in the table.

    Raises:
        PredictionsError: the table or the costs lack the variant.
    """
    named = settings.reference or settings.teacher
    if named is not None:
        if named not in predictions.variants:
            raise PredictionsError(
                f"there is no variant {named!r} in the predictions",
                hint=f"variants: {', '.join(predictions.names)}",
            )
        return Reference(named, _why_named(settings))
    known = [name for name in predictions.names if name in costs]
    if not known:
        raise PredictionsError(
            "the costs name no variant of the predictions",
            where="costs",
            hint=f"variants: {', '.join(predictions.names)}; costs: {', '.join(costs)}",
        )

    def rank(name: str) -> tuple[float, float, float, int]:
        cost = costs[name]
        return (cost.usd_per_1k, cost.latency_ms or 0.0, cost.energy_wh_per_1k or 0.0, known.index(name))

    best = max(known, key=rank)
    usd = costs[best].usd_per_1k
    equals = [name for name in known if costs[name].usd_per_1k == usd and name != best]
    among = f", of those equally dear ({', '.join(equals)}) the slowest, else the last" if equals else ""
    return Reference(best, f"the dearest variant ({usd:.4g} USD per 1,000{among}); --reference names another")


def _why_named(settings: TuneSettings) -> str:
    if settings.reference and settings.reference != settings.teacher:
        return "as asked"
    if settings.stands_for is None:
        return "as asked" if settings.reference else "the family's teacher; --reference names another"
    return (
        f"it stands in the place of the teacher {settings.stands_for!r}, of which only answers are known and "
        f"which nothing can escalate to: drops are from {settings.teacher!r}, and what that loses against "
        "the teacher is in `sluice inspect`; --reference names another"
    )


def checked_names(
    predictions: Predictions, costs: Mapping[str, Cost], settings: TuneSettings, reference: str
) -> tuple[str, ...]:
    """Return the variants that take part, the reference among them.

    Raises:
        PredictionsError: a variant or its cost is missing. InputError: a setting out of range.
    """
    names = settings.variants or predictions.names
    for name in (*names, reference):
        if name not in predictions.variants:
            raise PredictionsError(
                f"there is no variant {name!r} in the predictions",
                hint=f"variants: {', '.join(predictions.names)}",
            )
    missing = [name for name in dict.fromkeys((*names, reference)) if name not in costs]
    if missing:
        raise PredictionsError(
            f"the costs lack variant {', '.join(map(repr, missing))}",
            where="costs",
            hint=f"costs are known of: {', '.join(costs)}; or leave it out with --variants",
        )
    if reference not in names:
        names = (*names, reference)
    if len(set(names)) != len(names):
        raise InputError("a variant is named twice")
    if not 0.5 <= settings.confidence < 1.0:
        raise InputError(f"the confidence is {settings.confidence:g}; it must be at least 0.5 and under 1")
    if settings.score not in SCORE_NAMES:
        raise InputError(f"there is no score {settings.score!r}", hint=f"scores: {', '.join(SCORE_NAMES)}")
    return names


def labelled_rows(predictions: Predictions, part: str) -> Predictions:
    """Return the rows with a label. Raises PredictionsError where none has one."""
    known = predictions.label >= 0
    if known.all():
        return predictions
    if not known.any():
        raise PredictionsError(f"no row of the {part} part has a label")
    return predictions.take(known)


def data_hash(predictions: Predictions) -> str:
    """Return the hash that certificates name their rows by: of the file, else of what is in memory."""
    return predictions.sha256 or content_hash(predictions)


def content_hash(predictions: Predictions) -> str:
    """Return the hash of everything that predictions built in memory hold."""
    parts = [repr(predictions.labels).encode(), predictions.label.tobytes()]
    for name, variant in predictions.variants.items():
        parts += [name.encode(), variant.prediction.tobytes(), variant.confidence.tobytes()]
        if variant.logits is not None:
            parts.append(variant.logits.tobytes())
    if predictions.split is not None:
        parts.append("\n".join(predictions.split.tolist()).encode())
    for name, mask in predictions.slices.items():
        parts += [name.encode(), mask.tobytes()]
    return sha256_of_bytes(b"\0".join(parts))
