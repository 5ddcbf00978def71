"""A trained head and the data's labels: which row answers which label, or why the head goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contract.errors import RecipeError
from tables.labels import label_name

SHOWN = 8


@dataclass(frozen=True)
class Head:
    """What becomes of a trained head.

    Attributes:
        order: for each label of the data its row in the head; None where the head is dropped, or none is.
        notes: what a person must be told of it.
        hint: how to keep a head that is dropped.
    """

    order: tuple[int, ...] | None
    notes: tuple[str, ...] = ()
    hint: str | None = None


def match_head(
    config: Mapping[str, Any],
    rows: int | None,
    labels: Sequence[str],
    said: Mapping[str, str] | None,
    source: str,
) -> Head:
    """Return which row of a trained head answers each label of the data.

    A head is kept where its names are the data's labels, or where the recipe says of every name which label
    it means. It is never kept on a guess.

    Args:
        config: of the model, with `id2label`.
        rows: of the head that the weights hold; None where they hold none.
        labels: of the data.
        said: `teacher.labels` of the recipe: names, or numbers of rows, to labels.
        source: for errors.

    Raises:
        RecipeError: when what the recipe says fits neither the head nor the data.
    """
    if rows is None:
        if said:
            raise RecipeError("teacher.labels: these weights have no trained head to name", where=source)
        return Head(None)
    by_row = said is not None and bool(said) and all(name.isdigit() for name in said)
    names = _names({} if by_row else config, rows, source)
    notes = _contradictions(config, names)
    if said:
        return Head(_as_said(said, names, labels, source), notes)
    if len(set(names)) == len(names) and set(names) == set(labels):
        return Head(tuple(names.index(label) for label in labels), notes)
    hint = _how_to_keep(names, labels)
    dropped = (
        f"the trained head is dropped: it says {_some(names)}, the data {_some(labels)}; "
        f"a new head starts from random weights. {hint}"
    )
    return Head(None, (*notes, dropped), hint)


def _names(config: Mapping[str, Any], rows: int, source: str) -> list[str]:
    """Return the name of every row; LABEL_0 and so on where the configuration names none."""
    named = config.get("id2label")
    if not named:
        inverse = {int(row): _name(name) for name, row in (config.get("label2id") or {}).items()}
        return [inverse.get(row, f"LABEL_{row}") for row in range(rows)]
    try:
        pairs = enumerate(named) if isinstance(named, list) else named.items()
        by_row = {int(row): _name(name) for row, name in pairs}
    except (ValueError, AttributeError):
        raise RecipeError("config.json: the keys of `id2label` are not numbers", where=source) from None
    if sorted(by_row) != list(range(rows)):
        said = f"names {len(by_row)} labels" if len(by_row) != rows else f"counts rows from {min(by_row)}"
        raise RecipeError(
            f"config.json: `id2label` {said}, the head has {rows} rows, from 0",
            where=source,
            hint="teacher.labels: {0: ..., 1: ...} says which row of the head means which label",
        )
    return [by_row[row] for row in range(rows)]


def _name(value: Any) -> str:
    """Return the name of a label as data would have it: without blanks at its ends, true for True."""
    try:
        return label_name(value) or ""
    except ValueError:
        return str(value)


def _contradictions(config: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    inverse = config.get("label2id") or {}
    for name, row in ((_name(written), row) for written, row in inverse.items()):
        if name in names and str(row).isdigit() and names[int(row) % len(names)] != name:
            return (
                f"config.json contradicts itself: id2label has {name!r} at {names.index(name)}, label2id at "
                f"{row}; id2label counts, as it does in transformers",
            )
    return ()


def _as_said(
    said: Mapping[str, str], names: Sequence[str], labels: Sequence[str], source: str
) -> tuple[int, ...]:
    rows: dict[str, int] = {}
    for name, label in said.items():
        if name in names:
            if names.count(name) > 1:
                raise RecipeError(
                    f"teacher.labels: two rows of the head are named {name!r}",
                    where=source,
                    hint="name rows by their numbers, from 0",
                )
            row = names.index(name)
        elif name.isdigit() and int(name) < len(names):
            row = int(name)
        else:
            raise RecipeError(
                f"teacher.labels: the head has no {name!r}", where=source, hint=f"it says {_some(names)}"
            )
        if label not in labels:
            raise RecipeError(
                f"teacher.labels: {label!r} is no label of the data",
                where=source,
                hint=f"they are {_some(labels)}",
            )
        if label in rows or row in rows.values():
            raise RecipeError(f"teacher.labels: {name!r} or {label!r} is named twice", where=source)
        rows[label] = row
    unnamed = [label for label in labels if label not in rows]
    left = [name for row, name in enumerate(names) if row not in rows.values()]
    if unnamed or left:
        raise RecipeError(
            "teacher.labels must name every row of the head and every label of the data; missing: "
            + _some([*left, *unnamed]),
            where=source,
        )
    return tuple(rows[label] for label in labels)


def _how_to_keep(names: Sequence[str], labels: Sequence[str]) -> str:
    """Return what to write into a recipe to keep a head, as far as names tell."""
    if len(names) != len(labels):
        return f"It has {len(names)} labels, the data {len(labels)}"
    plain = {_plain(label): label for label in labels}
    if len(plain) == len(labels) and {_plain(name) for name in names} == set(plain):
        pairs = ", ".join(f"{name}: {plain[_plain(name)]}" for name in names[:SHOWN])
        more = ", ..." if len(names) > SHOWN else ""
        return f"If the two mean the same, keep it with teacher.labels: {{{pairs}{more}}}"
    told = names if len(set(names)) == len(names) else list(map(str, range(len(names))))
    pairs = ", ".join(f"{name}: ..." for name in told[:SHOWN])
    more = ", ..." if len(names) > SHOWN else ""
    return f"To keep it, say which name means which label: teacher.labels: {{{pairs}{more}}}"


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _some(names: Sequence[str]) -> str:
    told = ", ".join(str(name) for name in names[:SHOWN])
    return told + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
