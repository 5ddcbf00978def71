"""Asking for labels one by one on a terminal; every answer is kept at once."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import click

from contract.errors import DataError
from contract.labels import NO_LABEL_FITS, RowToLabel, write_rows_to_label
from router.labels.certify import certify
from sluicegate.common import progress_console
from sluicegate.label_rows import Drawn
from tables.labels import label_name
from tables.rows_to_label import read_rows_to_label

KEYS = 9
LONGEST = 2000
UNDO, QUIT, SKIP = "u", "q", "s"


def ask(drawn: Drawn, path: Path, confidence: float) -> dict[int, str]:
    """Ask for the labels of a draw, safest row first, and return those given so far, by row of the table.

    It ends when all are given, when the user says so, or when a threshold has failed, since no later label
    can change what is certified then.
    """
    rows, labels = drawn.rows(), _kept(drawn, path)
    order: list[int] = [row.row for row in rows if row.row in labels]
    _say(
        f"{len(rows)} rows to label, {len(labels)} done; kept in {path}. Type a number or a label; "
        f"{NO_LABEL_FITS} where "
        f"none is right, {SKIP} to skip (counts as a loss), {UNDO} to undo, {QUIT} to stop."
    )
    skipped: set[int] = set()
    while True:
        row = next((row for row in rows if row.row not in labels and row.row not in skipped), None)
        if row is None or _decided(drawn, labels, confidence):
            break
        said = _asked(drawn, row, f"[{len(labels) + len(skipped) + 1}/{len(rows)}]")
        if said == QUIT:
            break
        if said == UNDO:
            if order:
                last = order.pop()
                labels.pop(last, None)
                skipped.discard(last)
        elif said == SKIP:
            skipped.add(row.row)
            order.append(row.row)
            continue
        else:
            labels[row.row] = said
            order.append(row.row)
        write_rows_to_label(path, [replace(r, label=labels.get(r.row)) for r in rows], drawn.sampling)
    return labels


def _kept(drawn: Drawn, path: Path) -> dict[int, str]:
    if not path.exists():
        return {}
    read = read_rows_to_label(path, drawn.labels)
    if read.sampling is None or read.sampling.token() != drawn.sampling.token():
        raise DataError(
            "it holds labels of another draw (another budget, seed, drop, pair or table)",
            where=path,
            hint="ask for that draw again, or move the file away",
        )
    return {row.row: row.label for row in read.rows if row.label is not None}


def _decided(drawn: Drawn, labels: dict[int, str], confidence: float) -> bool:
    found = certify(drawn.pair, drawn.draw, drawn.losses(labels), drawn.sampling.epsilon, 1.0 - confidence)
    if found.steps and not found.steps[-1].passed:
        _say("A threshold failed: later labels of this draw can change nothing any more.")
        return True
    return False


def _asked(drawn: Drawn, row: RowToLabel, progress: str) -> str:
    """Return a label of the set, or one of the commands."""
    likely = _likely(drawn, row)
    shown = f"row {row.row}" if row.text is None else row.text[:LONGEST]
    click.echo(f"\n{progress} {shown}")
    click.echo("   ".join(f"{key}: {label}" for key, label in enumerate(likely, start=1)))
    while True:
        said = str(click.prompt("label", prompt_suffix="> ")).strip()
        if said in {UNDO, QUIT, SKIP, NO_LABEL_FITS} and said not in drawn.labels:
            return said
        if said.isdecimal() and 1 <= int(said) <= len(likely) and said not in drawn.labels:
            return likely[int(said) - 1]
        try:
            name = label_name(said)
        except ValueError:
            name = None
        if name in drawn.labels:
            return str(name)
        near = [label for label in drawn.labels if label.lower().startswith(said.lower())]
        if len(near) == 1:
            return near[0]
        click.echo(f"no such label: {said!r}" + (f" ({', '.join(near[:10])}?)" if near else ""))


def _likely(drawn: Drawn, row: RowToLabel) -> list[str]:
    """Return the labels that have keys: both answers, in an order that hides whose is whose, then others."""
    answers = [label for label in (row.cheap, row.reference) if label is not None]
    random.Random(row.row).shuffle(answers)
    others = [label for label in drawn.labels if label not in answers]
    return [*answers, *others][:KEYS]


def _say(line: str) -> None:
    progress_console.print(line, highlight=False, markup=False, soft_wrap=True)
