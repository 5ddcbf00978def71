"""The cells of a policy: parts of the traffic, each with a bound on its loss, to be weighed by any mix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from contract.records import Frozen

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
UNSEEN = -1


class Cell(Frozen):
    """A part of the traffic, told by what the first stage says of a text, or by the text's true label.

    Attributes:
        labels: predicted (or, of cells by label, true) classes; None is every class that no other cell names.
        low, high: scores from `low` up to, but without, `high`.
        n, plus, minus: rows certified with, and how many of them counted +1 and -1 when answered here.
        share: of those rows among all that were certified with.
        accepted: whether the first stage answers texts of this cell; of cells by label, some of them.
        bound: the loss of a text of this cell is at most this on average; 0 where all of them escalate. None
            of cells by label, which are certified together.
        answered: share of the cell's rows that the first stage answers.
    """

    name: str
    labels: tuple[str, ...] | None = None
    low: float = 0.0
    high: float = 2.0
    n: int = Field(ge=0)
    plus: int = Field(ge=0)
    minus: int = Field(ge=0)
    share: float = Field(ge=0, le=1)
    accepted: bool
    bound: float | None
    answered: float = Field(ge=0, le=1)


@dataclass(frozen=True)
class MixBound:
    """What a policy loses at most under one mix.

    Attributes:
        n: texts counted.
        bound: on their mean loss; None where nothing was counted.
        worst: on the mean loss under any mix of the cells.
        answered: share of the texts that fell into accepted cells.
        unseen: share of them that fell into no cell; they escalate.
        shares: of the texts, cell by cell.
    """

    n: int
    bound: float | None
    worst: float
    answered: float | None
    unseen: float | None
    shares: tuple[float, ...]


class Mix(Frozen):
    """Cells with bounds that hold together with probability 1 - delta, so that any mix may be asked about.

    Attributes:
        by: what tells a text's cell: its predicted class and score, its score alone, or its true label.
        variant: the first stage, whose answers and scores tell the cell.
        epsilon: what the mean loss stays under, in every accepted cell; of cells by label, at every share
            of the first cell up to `most`.
        most: of cells by label, the share that texts of that label may grow to.
    """

    by: Literal["class", "score", "label"]
    variant: str
    epsilon: float
    delta: float = Field(gt=0, lt=1)
    cells: tuple[Cell, ...] = Field(min_length=1)
    most: float | None = Field(default=None, ge=0, le=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.by == "label" and (len(self.cells) != 2 or self.most is None):
            raise ValueError("cells by label are two, and say to which share the first may grow")
        if self.by != "label" and any(cell.bound is None for cell in self.cells):
            raise ValueError("a cell has no bound")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_said(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        told: dict[str, Any] = dump(self)
        if told["most"] is None:
            del told["most"]
        return told

    @property
    def worst(self) -> float:
        """The bound under the worst mix that is covered: that of the worst accepted cell, or of any share."""
        if not any(cell.accepted for cell in self.cells):
            return 0.0
        return self.epsilon if self.by == "label" else max(cell.bound or 0.0 for cell in self.cells)

    @property
    def reference(self) -> float:
        """The bound under the mix that was certified with."""
        if self.by == "label":
            return self.worst
        return sum(cell.share * (cell.bound or 0.0) for cell in self.cells)

    def under(self, counts: Sequence[int]) -> MixBound:
        """Return the bound under the mix of counted texts, which need no labels.

        The mean loss of those texts is the sum over cells of (share of the cell) x (its mean loss), and a
        text that escalates loses nothing. That the mean loss of a cell is what it was is assumed.

        Args:
            counts: texts by cell, in the cells' order; a last one more counts texts of no cell.

        Raises:
            ValueError: another number of counts, one below 0, or cells that only labels tell.
        """
        if self.by == "label":
            raise ValueError("only labels tell these cells: no mix of them can be counted without")
        unseen = counts[-1] if len(counts) == len(self.cells) + 1 else 0
        if len(counts) not in {len(self.cells), len(self.cells) + 1} or min(counts) < 0:
            raise ValueError(f"a mix needs a count of 0 or more for each of {len(self.cells)} cells")
        n = sum(counts)
        if n == 0:
            return MixBound(0, None, self.worst, None, None, ())
        pairs = list(zip(self.cells, counts, strict=False))
        return MixBound(
            n=n,
            bound=sum((cell.bound or 0.0) * count for cell, count in pairs) / n,
            worst=self.worst,
            answered=sum(cell.answered * count for cell, count in pairs) / n,
            unseen=unseen / n,
            shares=tuple(count / n for _, count in pairs),
        )

    def places(self, predicted: Sequence[str], score: FloatArray) -> IntArray:
        """Return the index of each text's cell [N], UNSEEN where it falls into none.

        Args:
            predicted: what the first stage said, as text.
            score: [N] how sure it was.
        """
        owned = {label for cell in self.cells for label in cell.labels or ()}
        said = np.asarray(predicted, dtype=object)
        found = np.full(len(said), UNSEEN, dtype=np.int64)
        for index, cell in enumerate(self.cells):
            others = cell.labels is None
            named = owned if cell.labels is None else set(cell.labels)
            inside = np.fromiter(((label in named) != others for label in said), bool, len(said))
            found[inside & (score >= cell.low) & (score < cell.high)] = index
        return found

    def counts(self, predicted: Sequence[str], score: FloatArray) -> list[int]:
        """Return how many texts fall into each cell, and last how many into none."""
        places = self.places(predicted, score)
        slots = np.where(places == UNSEEN, len(self.cells), places)
        found = np.bincount(slots, minlength=len(self.cells) + 1)
        return [int(count) for count in found]
