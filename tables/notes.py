"""What a user should know of the labels of a file: lines that are told, and keep nobody from going on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from tables.labels import look_alikes, shown

ABSENCES = frozenset({"NA", "N/A", "#N/A", "<NA>", "NULL", "null", "None", "NaT", "\\N"})


def notes_on(odd: Counter[str], labels: Iterable[str | None]) -> tuple[str, ...]:
    """Return what there is to tell of labels, of which some (`odd`) were read in another spelling."""
    notes = []
    if odd:
        names = ", ".join(f"{name} ({count})" for name, count in sorted(odd.items())[:20])
        notes.append(
            f"{sum(odd.values()):,} labels were written in another way (Unicode form, unseen characters, "
            f"True, 1.0) and read as: {names}"
        )
    if (absent := absence_note(labels)) is not None:
        notes.append(absent)
    alike = look_alike_problem({label for label in labels if label is not None})
    return (*notes, alike) if alike else tuple(notes)


def lone_labels_note(splits: Mapping[str, set[str]]) -> str | None:
    """Return which labels occur in one split alone, given the splits of each, None where none does."""
    lone = {label: next(iter(found)) for label, found in splits.items() if len(found) == 1}
    if not lone or len(set().union(*splits.values())) == 1:
        return None
    names = ", ".join(f"{label} ({split})" for label, split in sorted(lone.items())[:20])
    return f"{len(lone)} of {len(splits)} labels occur in one split alone: {names}"


def look_alike_problem(labels: Iterable[str]) -> str | None:
    """Return what is wrong with labels of which some only look different, None where none do."""
    groups = look_alikes(labels)
    if not groups:
        return None
    listed = "; ".join(" and ".join(map(shown, group)) for group in groups[:20])
    return f"labels that differ in case or blanks alone are classes of their own: {listed}"


def absence_note(labels: Iterable[str | None]) -> str | None:
    """Return which labels are names that stand for a missing value elsewhere, None where there are none."""
    counts = Counter(label for label in labels if label in ABSENCES)
    if not counts:
        return None
    names = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
    return (
        f"labels that stand for a missing value elsewhere are classes here: {names}; leave the cell empty "
        "where there is no label"
    )
