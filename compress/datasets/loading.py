"""From the sources of a recipe to a data set: checked, without duplicates, divided into disjoint splits."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from compress.datasets.data import Dataset
from compress.datasets.duplicates import Removed, repeat_of, text_key, without_repeats
from compress.datasets.images import read_images
from compress.datasets.sources import Row, read_source, read_unlabelled
from compress.recipes.data_part import EXTRA, SPLITS, UNLABELLED, DataPart, SliceRule
from contract.errors import DataError
from tables.notes import look_alike_problem
from tables.problems import refuse

FEWEST_ROWS = 3


def load_data(part: DataPart, *, seed: int) -> Dataset:
    """Read, check and divide the data of a recipe.

    Raises:
        DataError: naming file, row and rule.
        EnvironmentProblem: when a package or the network that a source needs is missing.
    """
    if part.file is not None:
        rows = _read(part.file, part)
        kept, removed = without_repeats(rows, part.file, conflicts=part.conflicts)
        _check_classes(kept, part.file)
        _check_counts(kept, part.file)
        if part.max_examples is not None and part.max_examples < len(kept):
            drawn = divide([row.label for row in kept], {"in": part.max_examples / len(kept)}, seed=seed)
            kept = [row for row, name in zip(kept, drawn, strict=True) if name == "in"]
        split = divide([row.label for row in kept], part.shares.as_dict(), seed=seed)
    else:
        kept, split, removed = _from_sources(part, seed)
    _check_splits(kept, split, part)
    if part.stretches and part.max_words:
        extra = _stretches(kept, split, part.max_words, part.stretches)
        kept, split = kept + extra, split + [EXTRA] * len(extra)
    labels = tuple(sorted({row.label for row in kept}))
    alike = None if part.lookalikes == "keep" else look_alike_problem(labels)
    if alike is not None:
        raise DataError(
            alike,
            where=part.file or part.train,
            hint="write each label in one way, or set data.lookalikes: keep where they are meant apart",
        )
    for name, rule in part.slices.items():
        if rule.label is not None and rule.label not in labels:
            raise DataError(
                f"data.slices.{name}: no text has the label {rule.label!r}",
                where=part.file or part.train,
                hint=f"labels: {', '.join(labels)}",
            )
    if part.unlabelled is not None:
        more = unlabelled_rows(part, kept)
        kept, split = kept + more, split + [UNLABELLED] * len(more)
    return Dataset(
        labels=labels,
        texts=tuple(row.text for row in kept),
        label=tuple(row.label for row in kept),
        split=tuple(split),
        slices=tuple(slices_of(row, part.slices) for row in kept),
        removed=removed.in_full,
        removed_after_cut=removed.after_cut,
        removed_in_conflict=removed.in_conflict,
    )


def divide(labels: Sequence[str], shares: dict[str, float], *, seed: int) -> list[str]:
    """Return a part name for every label: stratified, shuffled with a seed, disjoint.

    Rows beyond the sum of the shares get the name "".
    """
    rng = np.random.default_rng(seed)
    names, array = [*shares, ""], np.array(labels)
    given: list[str] = [""] * len(labels)
    borders = np.cumsum(list(shares.values()))
    for label in sorted(set(labels)):
        rows = rng.permutation(np.flatnonzero(array == label))
        offset = rng.random()
        cuts = np.floor(borders * len(rows) + offset).astype(int)
        if abs(borders[-1] - 1) < 1e-6:
            cuts[-1] = len(rows)
        for place, row in enumerate(rows):
            given[row] = names[int(np.searchsorted(cuts, place, side="right"))]
    return given


def _from_sources(part: DataPart, seed: int) -> tuple[list[Row], list[str], Removed]:
    found: dict[str, tuple[Row, str]] = {}
    removed = Removed()
    train = _read(part.train or "", part)
    _check_classes(train, part.train)
    known = {row.label for row in train}
    for name in ("test", "certify", "tune", "validation", "train"):
        source = getattr(part, name)
        if source is None:
            continue
        rows = train if name == "train" else _read(source, part)
        unique, repeats = without_repeats(rows, source, conflicts=part.conflicts)
        removed += repeats
        refuse(
            [
                (row.place, f"the label {row.label!r} does not occur in the training data")
                for row in unique
                if row.label not in known
            ],
            where=source,
            hint=f"the training data say {', '.join(sorted(known)[:10])}{', ...' if len(known) > 10 else ''}",
        )
        shared = []
        for row in unique:
            earlier = found.setdefault(text_key(row), (row, name))
            if earlier[0] is row:
                continue
            if part.duplicates == "remove":
                removed += repeat_of(earlier[0], row)
            else:
                rule = f"the text is also in {earlier[0].place}: it would be in {name} and {earlier[1]}"
                shared.append((row.place, rule))
        refuse(
            shared,
            where=source,
            hint="remove one, or set `data.duplicates: remove` to leave the earlier split's out",
        )
    kept = [row for row, _ in found.values()]
    split = [name for _, name in found.values()]
    if part.tune is None:
        places = [i for i, name in enumerate(split) if name == "validation"]
        parts = divide(
            [kept[i].label for i in places], {"validation": 0.4, "tune": 0.2, "certify": 0.4}, seed=seed
        )
        for place, name in zip(places, parts, strict=True):
            split[place] = name
    return kept, split, removed


def _read(source: str, part: DataPart) -> list[Row]:
    rows = read_images(source, part) if part.input == "image" else read_source(source, part)
    if part.max_words is None:
        return rows
    return [row.cut(part.max_words) for row in rows]


def _stretches(rows: list[Row], split: list[str], words: int, count: int) -> list[Row]:
    """Return later stretches of the training texts, those left out that equal a text of any split."""
    known = {text_key(row) for row in rows}
    found = []
    for row, name in zip(rows, split, strict=True):
        if name != "train":
            continue
        parts = row.rest.split()
        for start in range(0, min(len(parts), count * words), words):
            stretch = " ".join(parts[start : start + words])
            made = Row(stretch, row.label, (), row.place)
            if 2 * len(parts[start : start + words]) >= words and text_key(made) not in known:
                known.add(text_key(made))
                found.append(made)
    return found


def unlabelled_rows(part: DataPart, known: list[Row]) -> list[Row]:
    """Return the distinct texts of `data.unlabelled` that equal none of the texts known."""
    found: dict[str, Row] = {}
    keys = {text_key(row) for row in known}
    for row in read_unlabelled(part.unlabelled or "", part):
        cut = row if part.max_words is None else row.cut(part.max_words)
        if text_key(cut) not in keys:
            found.setdefault(text_key(cut), cut)
    return list(found.values())


def _check_classes(rows: list[Row], source: object) -> None:
    labels = sorted({row.label for row in rows})
    if len(labels) < 2:
        raise DataError(
            f"a classifier needs two classes or more; all rows are {labels[0]!r}" if labels else "no rows",
            where=source,
        )


def _check_counts(rows: list[Row], source: object) -> None:
    counts = Counter(row.label for row in rows)
    problems = {
        row.label: (
            row.place,
            f"the label {row.label!r} has {counts[row.label]} of the {FEWEST_ROWS} rows that it needs",
        )
        for row in rows
        if counts[row.label] < FEWEST_ROWS
    }
    refuse([*problems.values()], where=source, hint="give more rows of these labels, or drop them")


def _check_splits(rows: list[Row], split: list[str], part: DataPart) -> None:
    for name in SPLITS:
        if name in split:
            continue
        if part.file is None:
            raise DataError(
                f"the split {name!r} is empty",
                where=getattr(part, name) or part.validation,
                hint="give it more rows that are in no other split",
            )
        few = f"{len(rows)} rows" + (" (`data.max_examples`)" if part.max_examples is not None else "")
        raise DataError(
            f"the split {name!r} is empty: {few} are too few for these shares",
            where=part.file,
            hint="raise `data.max_examples`, or give other `data.shares`"
            if part.max_examples is not None
            else "give more rows, or other `data.shares`",
        )
    trained = {row.label for row, name in zip(rows, split, strict=True) if name == "train"}
    for row, part_of in zip(rows, split, strict=True):
        if row.label not in trained:
            raise DataError(
                f"the label {row.label!r} ({part_of}) has no row in the training split",
                where=row.place,
                hint="give more rows of that label, or drop it",
            )


def slices_of(row: Row, rules: dict[str, SliceRule]) -> tuple[str, ...]:
    """Return the names of the slices that a row is in."""
    words = len(row.text.split())
    named = [*row.slices]
    for name, rule in rules.items():
        if (
            (rule.matches is None or re.search(rule.matches, row.text))
            and (rule.label is None or rule.label == row.label)
            and (rule.min_words is None or words >= rule.min_words)
            and (rule.max_words is None or words <= rule.max_words)
        ):
            named.append(name)
    return tuple(dict.fromkeys(named))
