"""What each technique brought: every variant beside the one that it differs from by that technique alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contract.family import Family, Variant
from contract.formulas import Interval, paired_counts, paired_difference_interval
from contract.predictions import Predictions
from report.format.figures import UNKNOWN, percent, percent_interval, points_interval, significant, times
from report.format.tables import Row, Table

TWIN = "-twin"
AND = " + "
DRAWS = 2000
SEED = 0


@dataclass(frozen=True)
class Change:
    """One technique: a variant with it beside one without, all else equal."""

    technique: str
    variant: Variant
    without: Variant


def changes(family: Family) -> tuple[Change, ...]:
    """Return what the family can tell about its techniques, in the order of its variants.

    A variant is held against the nearest variant that it was made from by another technique, so that every
    link of a chain is held against where the chain began. Where both that variant and its source were
    quantized alike, the two quantized ones are compared as well: pruning is judged at equal precision. So is
    a quantized variant whose FP32 form is not listed, which differs from its source by more than one
    technique: only what is of the same precision is held against it.
    """
    found = []
    for variant in family.variants:
        source = _source(family, variant)
        if source is None:
            continue
        *skipped, last = _technique(variant).split(AND)
        if not skipped or source.precision == variant.precision:
            found.append(Change(_technique(variant), variant, source))
        if variant.kind != "quantized":
            continue
        before = source if skipped else _source(family, source)
        technique = AND.join(skipped) if skipped else _technique(source)
        for other in family.variants:
            if before is not None and other.parent == before.name and _alike(other, variant, last):
                found.append(Change(f"{technique}, both {variant.precision}", variant, other))
    return tuple(found)


def _source(family: Family, variant: Variant) -> Variant | None:
    known = {v.name: v for v in family.variants}
    source = known.get(variant.parent or "")
    while source is not None and source.technique == variant.technique != "" and source.parent in known:
        source = known[source.parent]
    return source


def _technique(variant: Variant) -> str:
    return variant.technique or variant.kind


def _alike(one: Variant, other: Variant, technique: str) -> bool:
    """Return whether one was made by that technique alone, in the precision and settings of another."""
    same = (one.kind, one.precision, one.lowering) == (other.kind, other.precision, other.lowering)
    return same and one.technique == technique


def ablation_table(family: Family, predictions: Predictions | None = None) -> Table | None:
    """Return what each technique brought in accuracy, speed, size and energy, or None without two variants.

    With predictions the differences of accuracy have paired intervals (Newcombe 1998) on the test rows.
    """
    rows = []
    for change in changes(family):
        own, base = change.variant, change.without
        if own.accuracy is None or base.accuracy is None:
            continue
        interval = None if predictions is None else _interval(predictions, own.name, base.name)
        cells = (
            own.name,
            change.technique,
            base.name,
            points_interval(own.accuracy - base.accuracy, interval),
            times(_ratio(_p50(base), _p50(own))),
            times(_ratio(base.artifact.bytes, own.artifact.bytes)),
            times(_ratio(base.energy_wh_per_1k, own.energy_wh_per_1k)),
        )
        rows.append(Row(cells))
    if not rows:
        return None
    columns = ("variant", "technique", "against", "accuracy (points)", "faster", "smaller", "less energy")
    note = (
        "Each row differs from the variant it is held against by one technique. Latency: one text alone, p50."
    )
    words = frozenset({"technique", "against"})
    table = Table("ablation", "With and without it", columns, tuple(rows), (note,), words)
    return table.without_empty_columns()


def _p50(variant: Variant) -> float | None:
    found = variant.latency_at()
    return None if found is None else found.p50_ms


def _ratio(before: float | None, after: float | None) -> float | None:
    return None if not before or not after else before / after


def _interval(predictions: Predictions, own: str, base: str) -> Interval | None:
    rows = _test_rows(predictions)
    if rows is None or not {own, base} <= set(rows.names):
        return None
    return paired_difference_interval(*paired_counts(rows.correct(own), rows.correct(base)))


def _test_rows(predictions: Predictions) -> Predictions | None:
    if predictions.split is None or not predictions.labelled:
        return None
    rows = predictions.rows_of("test")
    return rows if len(rows) else None


def recovered(student: float, twin: float, teacher: float) -> float | None:
    """Return the share of the way from twin to teacher that a student goes; None where there is no way.

    (student - twin) / (teacher - twin) of accuracies: 1 is a student as good as its teacher, 0 one that
    learnt nothing more than from the labels alone.
    """
    return None if teacher <= twin else (student - twin) / (teacher - twin)


def recovered_table(family: Family, predictions: Predictions | None = None) -> Table | None:
    """Return how much of what labels alone leave out each distilled student recovers, or None without twins.

    A twin is the same network trained from scratch on labels. With predictions there is an interval, by
    bootstrap over the test rows (percentiles; Efron 1979).
    """
    known, teacher = {v.name: v for v in family.variants}, family.variant(family.teacher)
    rows = []
    for name, student in known.items():
        twin = known.get(f"{name}{TWIN}")
        if name == teacher.name:
            continue
        if twin is None or None in (student.accuracy, twin.accuracy, teacher.accuracy):
            continue
        share = recovered(student.accuracy or 0.0, twin.accuracy or 0.0, teacher.accuracy or 0.0)
        interval = (
            None if predictions is None else _recovered_interval(predictions, name, twin.name, teacher.name)
        )
        cells = (
            name, percent(student.accuracy), percent(twin.accuracy), percent(teacher.accuracy),
            percent_interval(share, interval, 0), significant(student.parameters, 3),
        )  # fmt: skip
        rows.append(Row(cells))
    if not rows:
        return None
    columns = ("student", "accuracy", "from labels alone", "teacher", "quality recovered", "parameters")
    note = (
        "Quality recovered: (student - twin) / (teacher - twin), where the twin is the same network trained "
        f"from random weights on labels alone. {UNKNOWN}: the twin is as good as the teacher."
    )
    return Table("recovered", "Quality recovered", columns, tuple(rows), (note,)).without_empty_columns()


def _recovered_interval(predictions: Predictions, student: str, twin: str, teacher: str) -> Interval | None:
    rows = _test_rows(predictions)
    if rows is None or not {student, twin, teacher} <= set(rows.names):
        return None
    own, base, best = (rows.correct(name).astype(np.int64) for name in (student, twin, teacher))
    cells = np.bincount(4 * own + 2 * base + best, minlength=8)
    draws = np.random.default_rng(SEED).multinomial(len(rows), cells / len(rows), DRAWS)
    sums = [draws[:, [c for c in range(8) if c & bit]].sum(axis=1) for bit in (4, 2, 1)]
    return _share_interval(*sums)


def _share_interval(
    own: NDArray[np.int64], base: NDArray[np.int64], best: NDArray[np.int64]
) -> Interval | None:
    """Return the middle 95% of the shares, or None where a twin beats its teacher in more than one in 40."""
    gap = best - base
    if (gap <= 0).mean() > 0.025:
        return None
    shares = (own - base)[gap > 0] / gap[gap > 0]
    return float(np.quantile(shares, 0.025)), float(np.quantile(shares, 0.975))
