"""CLINC150 with its out-of-scope queries as a class of their own, as files that both sides read."""

from __future__ import annotations

import csv
import random
from pathlib import Path

from contract.files import atomic_path

OUT_OF_SCOPE = "oos"
HELD_OUT = ("tune", "certify", "test")
VALIDATION_ROWS = 1_100
SHARES = (0.2, 0.3, 0.5)

Row = tuple[str, str]


def prepare(data: Path, out: Path) -> None:
    """Write train, validation, tune, certify and test.csv (text, label), each in an order drawn once.

    The last three are one pool of the rows that nothing is learnt from: the test files and what of the
    validation files is beyond VALIDATION_ROWS. A text stands in one file alone. What the large model said of
    the training texts goes into answers.csv (text, answer).

    Raises SystemExit naming a file that `data` lacks.
    """
    held = _rows(data, "test")
    seen = {text for text, _ in held}
    validation = [row for row in _rows(data, "validation") if row[0] not in seen]
    seen |= {text for text, _ in validation}
    train = [row for row in _rows(data, "train") if row[0] not in seen]
    held += validation[VALIDATION_ROWS:]
    random.Random("held out").shuffle(held)
    parts = {"train": train, "validation": validation[:VALIDATION_ROWS]}
    start = 0
    for name, share in zip(HELD_OUT, SHARES, strict=True):
        count = round(share * len(held))
        parts[name] = held[start : start + count]
        start += count
    for name, rows in parts.items():
        _write(out / f"{name}.csv", [("text", "label"), *rows])
    _write(out / "answers.csv", [("text", "answer"), *train])


def read(path: Path) -> tuple[list[str], list[str]]:
    """Return the texts and labels of a file that `prepare` wrote."""
    rows = _read(path)
    return [row["text"] for row in rows], [row["label"] for row in rows]


def _rows(data: Path, split: str) -> list[Row]:
    """Return the distinct texts of one split of the data with their labels, shuffled."""
    rows = {row["text"]: row["label"] for row in _read(data / f"{split}.csv")}
    rows |= {row["text"]: OUT_OF_SCOPE for row in _read(data / f"out_of_scope_{split}.csv")}
    found = list(rows.items())
    random.Random(split).shuffle(found)
    return found


def _write(path: Path, rows: list[Row]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def _read(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise SystemExit(f"{path} is missing: --data names a folder with CLINC150 and its out-of-scope files")
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
