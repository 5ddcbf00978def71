"""The file of rows to label: what both variants say, the chance each was drawn with, and its label."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlencode

from contract.errors import DataError
from contract.files import write_text

ROW, TEXT, SCORE, PROBABILITY, LABEL, SAMPLE = (
    "row",
    "text",
    "score",
    "inclusion_probability",
    "label",
    "sample",
)
NO_LABEL_FITS = "-"
"""In place of a label: none of the label set is right, so both variants are wrong."""


@dataclass(frozen=True)
class Sampling:
    """How rows were drawn: with the table it says all that drawing them again needs.

    Attributes:
        cheap, reference: the variants compared.
        score: of the cheap variant.
        seed, budget: of the draw.
        epsilon: the accuracy drop that it was planned for.
        data_sha256: of the predictions.
    """

    cheap: str
    reference: str
    score: str
    seed: int
    budget: int
    epsilon: float
    data_sha256: str

    def token(self) -> str:
        """Return it as one cell of the file."""
        return urlencode(
            {
                "cheap": self.cheap,
                "reference": self.reference,
                "score": self.score,
                "seed": self.seed,
                "budget": self.budget,
                "drop": repr(self.epsilon),
                "data": self.data_sha256[:16],
            }
        )

    @classmethod
    def parse(cls, token: str, *, where: object) -> Sampling:
        """Return the sampling of a cell. Raises DataError where it is none."""
        try:
            told = {key: values[0] for key, values in parse_qs(token, strict_parsing=True).items()}
            return cls(
                told["cheap"],
                told["reference"],
                told["score"],
                int(told["seed"]),
                int(told["budget"]),
                float(told["drop"]),
                told["data"],
            )
        except (ValueError, KeyError):
            raise DataError(
                f"the cell `{SAMPLE}` does not say how rows were drawn",
                where=where,
                hint="leave that column as `sluice label ... --out` wrote it",
            ) from None


@dataclass(frozen=True)
class RowToLabel:
    """One row of the file.

    Attributes:
        row: place in the predictions table, from 0.
        cheap, reference: the answers; None is one outside the label set.
        probability: of having been drawn.
        label: None where not given yet.
        text: None where the family keeps none.
    """

    row: int
    cheap: str | None
    reference: str | None
    score: float
    probability: float
    label: str | None = None
    text: str | None = None


def write_rows_to_label(path: Path, rows: Sequence[RowToLabel], sampling: Sampling) -> None:
    """Write the file atomically, as CSV."""
    with_text = any(row.text is not None for row in rows)
    answers = [f"{sampling.cheap}/prediction", f"{sampling.reference}/prediction"]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([ROW, *([TEXT] if with_text else []), *answers, SCORE, PROBABILITY, LABEL, SAMPLE])
    for row in rows:
        told = [row.cheap or "", row.reference or "", repr(row.score), repr(row.probability), row.label or ""]
        writer.writerow([row.row, *([row.text or ""] if with_text else []), *told, sampling.token()])
    write_text(path, buffer.getvalue())
