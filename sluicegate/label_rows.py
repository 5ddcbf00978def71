"""Between a table, its draw, and the file of rows to label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from contract.errors import DataError, FamilyError, PredictionsError
from contract.files import inside
from contract.labels import NO_LABEL_FITS, RowToLabel, Sampling
from contract.predictions import UNLABELLED, Predictions
from router.decide.scores import IntArray
from router.labels.certify import UNKNOWN
from router.labels.draw import Draw, draw_rows
from router.labels.pair import Pair, make_pair
from router.labels.result import loss_of
from router.tune.settings import TuneSettings, data_hash
from sluicegate.inputs import Table
from tables.columnar import PARQUET
from tables.rows_to_label import RowsToLabel


@dataclass(frozen=True, eq=False)
class Drawn:
    """A table's rows to label.

    Attributes:
        predictions: the table, without labels that are only the teacher's answers.
        pair, draw: what is compared, and which rows were drawn.
        sampling: how.
        texts: [N] of the table, None where it keeps none.
    """

    predictions: Predictions
    pair: Pair
    draw: Draw
    sampling: Sampling
    texts: Sequence[str] | None

    @property
    def labels(self) -> tuple[str, ...]:
        """The label set, as texts."""
        return tuple(str(label) for label in self.predictions.labels)

    def rows(self) -> list[RowToLabel]:
        """Return the rows to label, in the order of the draw, without labels."""
        found = []
        for place in self.draw.places.tolist():
            row = int(self.pair.rows[place])
            cheap, reference = (self._answer(name, row) for name in (self.pair.cheap, self.pair.reference))
            text = None if self.texts is None else self.texts[row]
            score = float(self.pair.scores[place])
            found.append(RowToLabel(row, cheap, reference, score, self.draw.probability, text=text))
        return found

    def _answer(self, variant: str, row: int) -> str | None:
        index = int(self.predictions.variants[variant].prediction[row])
        return self.labels[index] if index >= 0 else None

    def losses(self, labels: Mapping[int, str]) -> IntArray:
        """Return [K] in the order of the draw what the labels, by row of the table, say of each row.

        A row that was left out among labelled ones counts as if only the reference were right, the worst
        that it can be: what people leave out is not left out at random. Rows after the last labelled one are
        UNKNOWN.
        """
        number = {name: index for index, name in enumerate(self.labels)}
        number.setdefault(NO_LABEL_FITS, UNLABELLED)
        losses = np.full(len(self.draw), UNKNOWN, dtype=np.int64)
        for index, row in enumerate(self.pair.rows[self.draw.places].tolist()):
            if row not in labels:
                continue
            label = number[labels[row]]
            said = [
                int(self.predictions.variants[n].prediction[row])
                for n in (self.pair.cheap, self.pair.reference)
            ]
            losses[index] = 0 if label < 0 else loss_of(label, said[0], said[1])
        given = np.flatnonzero(losses != UNKNOWN)
        if len(given):
            before = losses[: given[-1]]
            before[before == UNKNOWN] = 1
        return losses


def unlabelled(table: Table) -> Predictions:
    """Return the predictions, without labels where these are only what the teacher said."""
    predictions = table.predictions
    if table.family is not None and table.family.truth == "teacher":
        return replace(predictions, label=np.full(len(predictions), UNLABELLED))
    return predictions


def sampling_of(predictions: Predictions, pair: Pair, budget: int, epsilon: float, seed: int) -> Sampling:
    """Return how rows are drawn, for the file."""
    data = data_hash(predictions)
    return Sampling(pair.cheap, pair.reference, pair.model.name, seed, budget, epsilon, data)


def drawn_rows(
    table: Table, settings: TuneSettings, budget: int, epsilon: float, *, cheap: str | None = None
) -> Drawn:
    """Draw the rows to label of a table. Raises as `make_pair`."""
    predictions = unlabelled(table)
    pair = make_pair(predictions, table.costs, settings, epsilon, cheap=cheap)
    sampling = sampling_of(predictions, pair, budget, epsilon, settings.seed)
    return Drawn(predictions, pair, draw_rows(pair, budget, settings.seed), sampling, texts_of(table))


def redrawn(table: Table, settings: TuneSettings, read: RowsToLabel) -> Drawn:
    """Draw the rows of a file again, and see that the file has none but these, unchanged.

    Raises:
        DataError: a row that was not drawn or was changed, or another table, naming file and row.
    """
    sampling = read.sampling
    if sampling is None:
        raise DataError(
            "it does not say how its rows were drawn: the column `sample` is missing or empty",
            where=read.where,
            hint="leave that column as `sluice label ... --out` wrote it",
        )
    predictions = unlabelled(table)
    data = data_hash(predictions)
    if data[:16] != sampling.data_sha256[:16]:
        raise DataError(
            f"its rows were drawn from other predictions ({sampling.data_sha256[:12]}…, these are "
            f"{data[:12]}…)",
            where=read.where,
            hint="give the family or table that they were drawn from, or draw anew",
        )
    again = replace(settings, reference=sampling.reference, seed=sampling.seed, score=sampling.score)
    drawn = drawn_rows(table, again, sampling.budget, sampling.epsilon, cheap=sampling.cheap)
    wanted = {row.row: row for row in drawn.rows()}
    for index, row in enumerate(read.rows):
        place = read.place(index)
        if row.row not in wanted:
            raise DataError(
                f"row {row.row} of the table was not drawn", where=place, hint="delete it from the file"
            )
        _require_same(row, wanted[row.row], sampling, place)
    return drawn


def _require_same(row: RowToLabel, drawn: RowToLabel, sampling: Sampling, place: str) -> None:
    for name, said, is_so in (
        (f"{sampling.cheap}/prediction", row.cheap, drawn.cheap),
        (f"{sampling.reference}/prediction", row.reference, drawn.reference),
    ):
        if (said or "") != (is_so or ""):
            raise DataError(
                f"`{name}` is {said!r} and was {is_so!r} when the row was drawn: the row was changed",
                where=place,
                hint="only the column `label` is yours to fill; take the others from a fresh --out",
            )
    if row.text is not None and drawn.text is not None and row.text.split() != drawn.text.split():
        raise DataError(
            "its text is not the one that was drawn: the row was changed, or rows were sorted in part",
            where=place,
            hint="only the column `label` is yours to fill; take the others from a fresh --out",
        )
    if abs(row.probability - drawn.probability) > 1e-6:
        raise DataError(
            f"`inclusion_probability` is {row.probability:g} and was {drawn.probability:g} when the row "
            f"was drawn",
            where=place,
            hint="only the column `label` is yours to fill; take the others from a fresh --out",
        )


def texts_of(table: Table) -> Sequence[str] | None:
    """Return [N] the texts of a family's held-out rows or a table's column `text`, None where there are none.

    Raises:
        FamilyError, PredictionsError: they cannot be read, or are not as many as the predictions.
    """
    family, path = table.family, table.where
    if family is not None:
        if family.data is None or any(spec.kind == "pixels" for spec in family.encoders.values()):
            return None
        path = inside(table.where, family.data.path)
    elif path.suffix.lower() not in PARQUET or not path.is_file():
        return None
    try:
        if "text" not in pq.read_schema(path).names:
            return None
        found: list[str] = pq.read_table(path, columns=["text"])["text"].to_pylist()
    except (OSError, pa.ArrowException) as problem:
        error = PredictionsError if family is None else FamilyError
        raise error(f"its texts cannot be read: {problem}", where=path) from None
    if len(found) != len(table.predictions):
        raise FamilyError(f"{len(found)} texts have {len(table.predictions)} predictions", where=path)
    return found


def file_of(table: Table) -> Path:
    """Return where labels that are given one by one are kept: beside the table."""
    folder = table.where if table.where.is_dir() else table.where.parent
    return folder / "labels.csv"
