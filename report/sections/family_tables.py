"""Tables of a family's variants: what they reach, what they take, and what beats them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from contract.family import Family, Variant
from contract.heard import Agreement
from report.format.figures import (
    UNKNOWN,
    percent,
    percent_interval,
    points,
    points_interval,
    significant,
    times,
    usd_per_million,
)
from report.format.tables import Row, Table, fit
from report.sections.frontier import AXES, beaten_by, best_by, megabytes

COLUMNS = (
    "variant", "kind", "tier", "accuracy", "delta (points)", "agrees", "speed-up", "macro-F1",
    "F1 (points)", "ECE", "p50 ms", "p99 ms", "MB", "zipped MB", "zeros", "memory MB", "CPU s/1k", "USD/1M",
    "Wh/1k", "best by", "beaten by", "fails",
)  # fmt: skip
QUALITY = (
    "variant", "kind", "tier", "accuracy", "delta (points)", "agrees", "speed-up", "macro-F1", "ECE",
    "p50 ms", "p99 ms", "best by",
)  # fmt: skip
VERDICT = ("variant", "tier", "best by", "beaten by", "fails")
RESOURCES = ("variant", "MB", "zipped MB", "zeros", "memory MB", "CPU s/1k", "USD/1M", "Wh/1k")
WORDS = frozenset({"kind", "beaten by", "fails"})
TERMINAL = (
    "variant", "tier", "accuracy", "delta (points)", "agrees", "speed-up", "F1 (points)", "p50 ms", "p99 ms",
    "MB", "USD/1M", "Wh/1k", "best by", "fails",
)  # fmt: skip
SPARE = ("USD/1M", "p99 ms", "F1 (points)", "Wh/1k", "MB", "best by")
BEST_BY = "Best by: the costs at which nothing is both as accurate and cheaper; rows without any are muted."


def variants_table(family: Family) -> Table:
    """Return every variant with its accuracy delta beside its speed-up; dominated ones are muted."""
    n = f" (n = {family.splits['test'].n:,})" if "test" in family.splits else ""
    note = (
        f"Accuracy and macro-F1 on the test split{n}, 95% intervals; then points against the teacher. "
        "Tier: critical below half a point lost, high below one, medium below three. "
        "Latency: one text alone, encoding included. ECE: on the test split, after temperature."
    )
    notes = (note, *heard_notes(family), *asked_notes(family), BEST_BY)
    return _table(family, "variants", f"Variants of {family.name}", QUALITY, notes)


def verdicts_table(family: Family) -> Table | None:
    """Return what beats each variant and which limits it breaks, or None where neither happens."""
    table = _table(family, "verdicts", "What is dominated, and what fails", VERDICT, ())
    said = [i for i, name in enumerate(table.columns) if name in {"beaten by", "fails"}]
    rows = tuple(row for row in table.rows if any(row.cells[i] for i in said))
    if not rows:
        return None
    notes = (
        "Beaten by: others as accurate and no dearer at any cost. Fails: the recipe's limits, or every tier.",
    )
    return replace(table, rows=rows, notes=notes)


def resources_table(family: Family) -> Table:
    """Return what each variant takes: size, memory, CPU time, money and energy."""
    notes = [_energy_note(family)] if any(v.energy_wh_per_1k is not None for v in family.variants) else []
    if any(v.sparsity is not None for v in family.variants):
        notes.append(
            "Zeros: share of weights set to zero, which makes the file smaller once zipped, not faster."
        )
    return _table(family, "resources", "What each variant takes", RESOURCES, tuple(notes))


def inspect_table(family: Family, *, width: int = 80) -> Table:
    """Return the columns that fit a terminal of so many characters, the most telling ones first."""
    notes = (*heard_notes(family), *asked_notes(family), _energy_note(family), BEST_BY)
    return fit(_table(family, "variants", f"Variants of {family.name}", TERMINAL, notes), width, SPARE)


def heard_notes(family: Family) -> tuple[str, ...]:
    """Return what to know of a teacher of which only answers are known; nothing where it is a variant."""
    heard = family.heard
    if heard is None:
        return ()
    said = f"the teacher ({heard.name}) is not in the family: only its answers are known, "
    if heard.accuracy is None:
        said += "none of them to test texts. "
    else:
        shown = percent_interval(heard.accuracy, heard.accuracy_interval)
        said += f"right on {shown} of {heard.n:,} test texts; agrees: with these. "
    against = "those answers" if heard.deltas else family.teacher
    said += f"Points are against {against}; {family.teacher} stands in its place where requests escalate."
    return (said[0].upper() + said[1:], *heard.notes)


def asked_notes(family: Family) -> tuple[str, ...]:
    """Return what to know of a teacher behind HTTP and of data without labels, if anything."""
    asked, notes = family.asked, []
    if family.truth == "teacher":
        notes.append(
            "The data have no labels: accuracy, macro-F1 and points are counted against the answers of "
            f"{family.teacher}, which is therefore always right."
        )
    if asked is not None:
        answered, of = (sum(counts) for counts in zip(*asked.answered.values(), strict=True))
        said = f"The teacher ({family.teacher}) is {asked.model} at {asked.url}: it answered {answered:,} of "
        said += f"{of:,} texts for {asked.usd:,.4g} USD"
        silent = sum(asked.declined.values()), sum(asked.errors.values())
        said += "".join(
            f"; {count:,} {words}"
            for count, words in zip(silent, ("got no label", "got no reply"), strict=True)
            if count
        )
        notes.append(said + ".")
    return tuple(notes)


def _agreed(found: Agreement | None) -> str:
    return "" if found is None else percent_interval(found.share, found.interval)


def _energy_note(family: Family) -> str:
    known = sorted({v.energy_provenance for v in family.variants if v.energy_wh_per_1k is not None})
    return f"Energy: {', '.join(known) or 'not measured'}."


def _table(family: Family, key: str, title: str, columns: tuple[str, ...], notes: tuple[str, ...]) -> Table:
    beaten, best = beaten_by(family), best_by(family)
    rows = tuple(
        _variant_row(v, beaten.get(v.name, ()), best.get(v.name), family.teacher) for v in family.variants
    )
    return Table(key, title, COLUMNS, rows, notes, WORDS).pick(columns).without_empty_columns()


def _variant_row(variant: Variant, beaten: Sequence[str], best: Sequence[str] | None, teacher: str) -> Row:
    alone = variant.latency_at()
    own = variant.name == teacher
    alone_judged = own and variant.accuracy_delta is None
    cells = (
        variant.name,
        variant.kind if variant.precision == "fp32" else variant.precision,
        "" if variant.accuracy_delta is None else variant.tier or "none",
        percent_interval(variant.accuracy, variant.accuracy_interval),
        "" if alone_judged else points_interval(variant.accuracy_delta, variant.accuracy_delta_interval),
        _agreed(variant.agreement),
        "" if own else times(variant.speed_up),
        percent(variant.macro_f1)
        + ("" if variant.macro_f1_delta is None else f" {points(variant.macro_f1_delta)}"),
        "" if alone_judged else points(variant.macro_f1_delta),
        significant(variant.ece_after, 2),
        significant(alone.p50_ms) if alone else UNKNOWN,
        significant(alone.p99_ms) if alone else UNKNOWN,
        significant(megabytes(variant)),
        significant(None if variant.compressed_bytes is None else variant.compressed_bytes / 1e6),
        percent(variant.sparsity, 0),
        significant(None if variant.peak_memory_bytes is None else variant.peak_memory_bytes / 1e6),
        significant(variant.cpu_seconds_per_1k),
        significant(usd_per_million(variant.usd_per_1k), 2),
        significant(variant.energy_wh_per_1k, 2),
        _best_by(best or ()),
        ", ".join(beaten[:2]) + (f" and {len(beaten) - 2} more" if len(beaten) > 2 else ""),
        "; ".join(variant.failed_limits),
    )
    return Row(cells, "strong" if own else "muted" if best == () else "")


def _best_by(best: Sequence[str]) -> str:
    units = [axis.unit for axis in AXES if axis.key in best]
    return "all" if len(units) == len(AXES) else " ".join(units)


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
