"""Tables of a family in parts: its slices and classes, its steps, their faithfulness and their files."""

from __future__ import annotations

from collections.abc import Sequence

from contract.family import Family, SliceQuality, StepCost, Variant
from report.format.figures import (
    UNKNOWN,
    duration,
    percent,
    points,
    points_interval,
    short_hash,
    significant,
    size,
)
from report.format.tables import Row, Table
from report.sections.frontier import best_by

MOST_COLUMNS = 8


def slices_table(family: Family) -> Table | None:
    """Return accuracy per slice and variant, with its paired delta to the teacher, or None without slices.

    The fewer of the two are the columns.
    """
    names = sorted({name for v in family.variants for name in v.per_slice})
    if not names:
        return None
    counts = {
        name: next((v.per_slice[name].n for v in family.variants if name in v.per_slice), None)
        for name in names
    }
    heads = [name if counts[name] is None else f"{name} (n = {counts[name]:,})" for name in names]
    cells = {
        (v.name, head): _beside_teacher(v.per_slice.get(name))
        for v in family.variants
        for name, head in zip(names, heads, strict=True)
    }
    note = "Accuracy on the test rows of each slice, then points against the teacher, paired, 95% intervals."
    if len(heads) > len(family.variants):
        rows = [Row((head, *(cells[name, head] for name in family.names))) for head in heads]
        return Table("slices", "Accuracy per slice", ("slice", *family.names), tuple(rows), (note,))
    rows = [
        Row((name, *(cells[name, head] for head in heads)), "strong" if name == family.teacher else "")
        for name in family.names
    ]
    return Table("slices", "Accuracy per slice", ("variant", *heads), tuple(rows), (note,))


def _beside_teacher(found: SliceQuality | None) -> str:
    if found is None:
        return UNKNOWN
    if found.accuracy_delta is None:
        return percent(found.accuracy)
    return f"{percent(found.accuracy)} {points_interval(found.accuracy_delta, found.accuracy_delta_interval)}"


def losses_table(family: Family) -> Table | None:
    """Return per variant its worst class, the class that it loses most of, and how many it loses much of.

    None when recalls were not measured.
    """
    rows = []
    for variant in family.variants:
        if not variant.per_class:
            continue
        recalls = _recalls(variant)
        if not recalls:
            continue
        deltas = _recall_deltas(variant, family.variant(family.teacher))
        worst = min(recalls, key=lambda label: recalls[label])
        cells = [variant.name, worst, percent(recalls[worst]), "", "", ""]
        if deltas:
            lost = min(deltas, key=lambda label: deltas[label])
            cells[3:] = [lost, points(deltas[lost]), f"{sum(delta <= -0.05 for delta in deltas.values()):,}"]
        rows.append(Row(tuple(cells), "strong" if variant.name == family.teacher else ""))
    if not rows:
        return None
    columns = (
        "variant",
        "worst class",
        "recall",
        "loses most of",
        "recall (points)",
        "classes that lose 5 points",
    )
    words = frozenset({"worst class", "loses most of"})
    return Table("losses", "What each variant loses by class", columns, tuple(rows), (), words)


def _recall_deltas(variant: Variant, teacher: Variant) -> dict[str, float]:
    base = {} if variant.name == teacher.name else _recalls(teacher)
    return {
        label: variant.per_class[label].get("recall_delta", recall - base.get(label, 0.0))
        for label, recall in _recalls(variant).items()
        if "recall_delta" in variant.per_class[label] or label in base
    }


def _recalls(variant: Variant) -> dict[str, float]:
    """Return the recall of every class that has test rows."""
    found = variant.per_class.items()
    return {label: each["recall"] for label, each in found if "recall" in each and each.get("n") != 0}


def classes_table(family: Family) -> Table | None:
    """Return recall per class, with its delta to the teacher, or None when it was not measured.

    Of many variants only those that nothing beats in accuracy and latency are shown, the fastest first.
    """
    measured = [v for v in family.variants if v.per_class]
    if not measured:
        return None
    shown = _few(measured, family)
    teacher = family.variant(family.teacher)
    rows = []
    for label in family.labels:
        n = next((v.per_class[label].get("n") for v in measured if label in v.per_class), None)
        cells = []
        for variant in shown:
            recall = _recalls(variant).get(label)
            delta = _recall_deltas(variant, teacher).get(label)
            cells.append(percent(recall) if delta is None else f"{percent(recall)} {points(delta)}")
        rows.append(Row((label, UNKNOWN if n is None else f"{n:,}", *cells)))
    notes = ["Recall, then points against the teacher."]
    if len(shown) < len(measured):
        notes.append(f"{len(measured) - len(shown)} variants more are in family.json.")
    columns = ("class", "n", *(v.name for v in shown))
    return Table("classes", "Recall per class", columns, tuple(rows), tuple(notes))


def _few(variants: Sequence[Variant], family: Family) -> list[Variant]:
    if len(variants) <= MOST_COLUMNS:
        return list(variants)
    best = best_by(family)
    teacher = [v for v in variants if v.name == family.teacher]
    kept = [v for v in variants if v not in teacher and "latency" in best.get(v.name, ())]
    kept.sort(key=lambda v: -(v.accuracy or 0.0))
    return teacher + kept[: MOST_COLUMNS - len(teacher)]


def steps_table(family: Family) -> Table | None:
    """Return what each step of the recipe cost, or None when nothing is recorded."""
    steps = family.steps or _from_variants(family.variants)
    if not steps:
        return None
    rows = [
        Row(
            (
                s.name,
                s.kind,
                duration(s.seconds),
                significant(s.energy_wh),
                significant(s.gco2e),
                _paid(s.usd),
            )
        )
        for s in steps
    ]
    said = [f"{duration(sum(s.seconds for s in steps))} in all"]
    if all(s.energy_wh is not None for s in steps):
        said.append(f"{significant(sum(s.energy_wh or 0 for s in steps))} Wh")
    if all(s.gco2e is not None for s in steps):
        said.append(f"{significant(sum(s.gco2e or 0 for s in steps))} gCO2e")
    if any(s.usd is not None for s in steps):
        said.append(f"{significant(sum(s.usd or 0 for s in steps))} USD paid to others")
    kinds = sorted({s.energy_provenance for s in steps if s.energy_wh is not None})
    known = ", ".join(kinds) or "not known"
    notes = (f"{', '.join(said)}. Energy of the whole machine while the step ran: {known}.",)
    columns = ("step", "kind", "time", "Wh", "gCO2e", "USD paid")
    table = Table("steps", "What each step cost", columns, tuple(rows), notes, frozenset({"kind"}))
    return table.without_empty_columns()


def _paid(usd: float | None) -> str:
    return "" if usd is None else significant(usd)


def _from_variants(variants: Sequence[Variant]) -> tuple[StepCost, ...]:
    """Return what the first manifests tell: one training per variant."""
    return tuple(
        StepCost(
            name=v.name,
            kind=v.kind,
            seconds=v.training.seconds,
            energy_wh=v.training.energy_wh,
            gco2e=v.training.gco2e,
            energy_provenance=v.training.energy_provenance,
        )
        for v in variants
        if v.training is not None
    )


def making_table(family: Family) -> Table | None:
    """Return what making each variant from its parent took, or None when that is not recorded."""
    rows = []
    for variant in family.variants:
        training = variant.training
        if training is None:
            continue
        cells = (
            variant.name,
            variant.technique or variant.kind,
            variant.parent or UNKNOWN,
            duration(training.seconds),
            significant(training.energy_wh),
            significant(training.gco2e),
            _paid(training.usd),
        )
        rows.append(Row(cells))
    if not rows:
        return None
    columns = ("variant", "technique", "from", "time", "Wh", "gCO2e", "USD paid")
    notes = ("Sums over the steps that made a variant from its parent, without its export and measurement.",)
    words = frozenset({"technique", "from"})
    table = Table("making", "How each variant was made", columns, tuple(rows), notes, words)
    return table.without_empty_columns()


def faithfulness_table(family: Family) -> Table | None:
    """Return how close each artifact is to the network it was exported from, or None if none was checked."""
    rows = []
    for variant in family.variants:
        check = variant.verification
        if check is None:
            continue
        cells = (
            variant.name,
            percent(check.label_agreement, 2),
            percent(check.agreement_limit, 1),
            significant(check.max_logit_error, 2),
            significant(check.error_limit, 2),
            percent(check.batched_agreement, 2),
            f"{check.n:,}",
        )
        rows.append(Row(cells))
    if not rows:
        return None
    columns = (
        "variant", "agrees", "at least", "largest logit error", "at most", "agrees in batches", "texts"
    )  # fmt: skip
    note = (
        "Agrees: share of texts that get the same label as from the network it was exported from; "
        "in batches: as when asked alone."
    )
    table = Table("faithfulness", "How faithful each artifact is", columns, tuple(rows), (note,))
    return table.without_empty_columns()


def artifacts_table(family: Family) -> Table:
    """Return the hashes that name what was measured."""
    rows = [
        Row((v.name, v.artifact.path, size(v.artifact.bytes), short_hash(v.artifact.sha256)))
        for v in family.variants
    ]
    columns = ("variant", "file", "size", "sha256")
    return Table("artifacts", "Artifacts", columns, tuple(rows))
