"""Tables of a family: its variants, their latency, slices, classes, and what each step cost."""

from __future__ import annotations

from collections.abc import Sequence

from contract.family import Family, Variant
from report.figures import (
    UNKNOWN,
    duration,
    percent,
    percent_interval,
    points,
    points_interval,
    short_hash,
    significant,
    size,
    times,
    usd_per_million,
)
from report.frontier import beaten_by
from report.tables import Row, Table

COLUMNS = (
    "variant", "kind", "accuracy", "delta (points)", "speed-up", "macro-F1", "ECE", "p50 ms", "p99 ms",
    "MB", "memory MB", "CPU s/1k", "USD/1M", "Wh/1k", "beaten by",
)  # fmt: skip
QUALITY = (
    "variant", "kind", "accuracy", "delta (points)", "speed-up", "macro-F1", "ECE", "p50 ms", "p99 ms",
    "beaten by",
)  # fmt: skip
RESOURCES = ("variant", "MB", "memory MB", "CPU s/1k", "USD/1M", "Wh/1k")
WORDS = frozenset({"kind", "beaten by"})
NARROW = ("variant", "accuracy", "delta (points)", "speed-up", "p50 ms", "p99 ms", "MB", "USD/1M", "Wh/1k")


def variants_table(family: Family) -> Table:
    """Return every variant with its accuracy delta beside its speed-up; dominated ones are muted."""
    n = f" (n = {family.splits['test'].n:,})" if "test" in family.splits else ""
    note = (
        f"Accuracy and macro-F1 on the test split{n}, 95% intervals. Delta: points against the teacher. "
        "Latency: one text alone, encoding included. ECE: after temperature."
    )
    return _table(family, "variants", f"Variants of {family.name}", QUALITY, (note,))


def resources_table(family: Family) -> Table:
    """Return what each variant takes: size, memory, CPU time, money and energy."""
    notes = (_energy_note(family),) if any(v.energy_wh_per_1k is not None for v in family.variants) else ()
    return _table(family, "resources", "What each variant takes", RESOURCES, notes)


def inspect_table(family: Family) -> Table:
    """Return the columns that fit a terminal."""
    return _table(family, "variants", f"Variants of {family.name}", NARROW, (_energy_note(family),))


def _energy_note(family: Family) -> str:
    known = sorted({v.energy_provenance for v in family.variants if v.energy_wh_per_1k is not None})
    return f"Energy: {', '.join(known) or 'not measured'}."


def _table(family: Family, key: str, title: str, columns: tuple[str, ...], notes: tuple[str, ...]) -> Table:
    beaten = beaten_by(family)
    rows = tuple(_variant_row(v, beaten.get(v.name, ()), family.teacher) for v in family.variants)
    return Table(key, title, COLUMNS, rows, notes, WORDS).pick(columns).without_empty_columns()


def _variant_row(variant: Variant, beaten: Sequence[str], teacher: str) -> Row:
    alone = variant.latency_at()
    own = variant.name == teacher
    cells = (
        variant.name,
        variant.kind if variant.precision == "fp32" else variant.precision,
        percent_interval(variant.accuracy, variant.accuracy_interval),
        "" if own else points_interval(variant.accuracy_delta, variant.accuracy_delta_interval),
        "" if own else times(variant.speed_up),
        percent(variant.macro_f1),
        significant(variant.ece_after, 2),
        significant(alone.p50_ms) if alone else UNKNOWN,
        significant(alone.p99_ms) if alone else UNKNOWN,
        significant(variant.artifact.bytes / 1e6),
        significant(None if variant.peak_memory_bytes is None else variant.peak_memory_bytes / 1e6),
        significant(variant.cpu_seconds_per_1k),
        significant(usd_per_million(variant.usd_per_1k), 2),
        significant(variant.energy_wh_per_1k, 2),
        ", ".join(beaten[:2]) + (f" and {len(beaten) - 2} more" if len(beaten) > 2 else ""),
    )
    return Row(cells, "strong" if own else "muted" if beaten else "")


def latency_table(family: Family) -> Table | None:
    """Return every latency measurement beyond batch 1 alone, or None when there is none."""
    shapes = sorted({(m.batch, m.concurrency) for v in family.variants for m in v.latency})
    if len(shapes) < 2:
        return None
    rows = []
    for variant in family.variants:
        found = [variant.latency_at(batch=b, concurrency=c) for b, c in shapes]
        rows.append(
            Row(
                (
                    variant.name,
                    *(f"{significant(m.p50_ms)} / {significant(m.p99_ms)}" if m else UNKNOWN for m in found),
                )
            )
        )
    threads = sorted({m.threads for v in family.variants for m in v.latency})
    texts = [v for v in family.variants if family.encoders[v.encoder].kind == "wordpiece"]
    tokens = sorted({round(m.mean_tokens) for v in texts for m in v.latency if m.mean_tokens})
    note = f"p50 / p99 in ms per call; threads: {', '.join(map(str, threads))}"
    note += f"; mean length: {', '.join(map(str, tokens))} tokens." if tokens else "."
    columns = ("variant", *(f"batch {b}, {c} at once" for b, c in shapes))
    return Table("latency", "Latency under load", columns, tuple(rows), (note,))


def slices_table(family: Family) -> Table | None:
    """Return accuracy per slice and variant, with its delta to the teacher, or None without slices."""
    names = sorted({name for v in family.variants for name in v.accuracy_per_slice})
    if not names:
        return None
    teacher = family.variant(family.teacher)
    rows = [
        Row(
            (
                name,
                *(_beside_teacher(v.accuracy_per_slice.get(name), teacher, v, name) for v in family.variants),
            )
        )
        for name in names
    ]
    columns = ("slice", *family.names)
    return Table(
        "slices", "Accuracy per slice", columns, tuple(rows), ("In brackets: points against the teacher.",)
    )


def _beside_teacher(value: float | None, teacher: Variant, variant: Variant, name: str) -> str:
    base = teacher.accuracy_per_slice.get(name)
    if value is None or base is None or variant.name == teacher.name:
        return percent(value)
    return f"{percent(value)} ({points(value - base)})"


def classes_table(family: Family) -> Table | None:
    """Return recall per class and variant, or None when it was not measured."""
    if not any(v.per_class for v in family.variants):
        return None
    rows = []
    for label in family.labels:
        n = next((v.per_class[label].get("n") for v in family.variants if label in v.per_class), None)
        recalls = [v.per_class.get(label, {}).get("recall") for v in family.variants]
        rows.append(Row((label, UNKNOWN if n is None else f"{n:,}", *(percent(r) for r in recalls))))
    return Table("classes", "Recall per class", ("class", "n", *family.names), tuple(rows))


def steps_table(family: Family) -> Table | None:
    """Return what each step cost to make and how faithful its export is, or None when nothing is recorded."""
    made = [v for v in family.variants if v.training or v.verification]
    if not made:
        return None
    rows = []
    for variant in made:
        training, check = variant.training, variant.verification
        rows.append(
            Row(
                (
                    variant.name,
                    variant.parent or UNKNOWN,
                    duration(training.seconds if training else None),
                    significant(training.energy_wh if training else None),
                    significant(training.gco2e if training else None),
                    percent(check.label_agreement, 2) if check else UNKNOWN,
                    significant(check.max_logit_error, 2) if check else UNKNOWN,
                    percent(check.batched_agreement, 2) if check else UNKNOWN,
                )
            )
        )
    total = sum(v.training.seconds for v in made if v.training)
    columns = (
        "variant", "from", "time", "Wh", "gCO2e", "export agrees", "largest logit error", "agrees in batches"
    )  # fmt: skip
    notes = (
        f"{duration(total)} in all. Agreement: share of texts that get the same label as from the model it "
        "was exported from, and as when asked alone.",
    )
    words = frozenset({"from"})
    return Table("steps", "What each step cost", columns, tuple(rows), notes, words).without_empty_columns()


def artifacts_table(family: Family) -> Table:
    """Return the hashes that name what was measured."""
    rows = [
        Row((v.name, v.artifact.path, size(v.artifact.bytes), short_hash(v.artifact.sha256)))
        for v in family.variants
    ]
    columns = ("variant", "file", "size", "sha256")
    return Table("artifacts", "Artifacts", columns, tuple(rows))
