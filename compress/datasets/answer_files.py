"""Answers that a teacher gave elsewhere, read from files: labels, logits or probabilities."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.datasets.recorded import Recorded, hash_of
from compress.datasets.sources import Row, located, source_records
from compress.recipes.answers_part import AnswersPart
from compress.recipes.data_part import SOURCES, DataPart
from contract.errors import DataError, RecipeError
from tables.files import Columns, Record
from tables.labelled import ABSENT, checked, value_at
from tables.labels import label_name, shown
from tables.problems import refuse

# Probabilities rounded to two decimals sum to 1 within this; one of 0 has no finite logarithm.
SUM_TOLERANCE = 0.01
LEAST = 1e-6
WHERE = "teacher.answers"


@dataclass(frozen=True)
class ReadAnswers:
    """What was read: the answers by text, and how many rows had none, repeated another or contradicted it."""

    recorded: Recorded
    empty: int = 0
    repeated: int = 0
    contradicting: int = 0


def read_answers(
    part: AnswersPart, data: DataPart, labels: Sequence[str], means: Mapping[str, str]
) -> ReadAnswers:
    """Read a teacher's answers, as logits in the order of the data's labels.

    A row whose answer is empty gives none. Texts are cut as the data's are.

    Args:
        part: where the answers lie.
        data: of the recipe; its own sources are read where the part names no file.
        labels: the label set.
        means: data's label by the teacher's name for it, where they differ.

    Raises:
        RecipeError: columns or an order that name other labels than the data's.
        DataError: a missing file or column, a label that the data lack, a number that is not finite,
            probabilities that are none, one text with several answers; names file, row and rule.
    """
    reader = _Reader.of(part, labels, means)
    found: dict[bytes, _Heard] = {}
    empty = 0
    problems: list[tuple[str, str]] = []
    for place, text, values in _rows(part, data):
        try:
            answer = reader.probabilities(values)
        except ValueError as problem:
            problems.append((place, str(problem)))
            continue
        if answer is None:
            empty += 1
            continue
        found.setdefault(hash_of(text), _Heard(place)).add(place, answer)
    source = part.file or "the data"
    refuse(problems, where=source, hint=_hint(part, labels))
    disputed = {key: heard for key, heard in found.items() if heard.others}
    if part.conflicts == "refuse":
        refuse(
            [(other, h.contradiction) for h in disputed.values() for other in h.others],
            where=source,
            hint="decide on one answer, or set teacher.answers.conflicts: remove or mean",
        )
    answers = {
        key: heard.logits for key, heard in found.items() if part.conflicts == "mean" or key not in disputed
    }
    if not answers:
        raise DataError("no row has an answer", where=source, hint=f"columns read: {', '.join(part.columns)}")
    return ReadAnswers(
        Recorded(tuple(labels), answers),
        empty=empty,
        repeated=sum(len(heard.said) - 1 for heard in found.values()),
        contradicting=sum(len(heard.others) for heard in disputed.values()),
    )


class _Heard:
    """All answers to one text."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.said: list[NDArray[np.float64]] = []
        self.others: list[str] = []

    def add(self, place: str, answer: NDArray[np.float64]) -> None:
        if self.said and not np.allclose(answer, self.said[0], rtol=0, atol=LEAST):
            self.others.append(place)
        self.said.append(answer)

    @property
    def contradiction(self) -> str:
        return f"the same text, as far as it is kept, has another answer in {self.place}"

    @property
    def logits(self) -> NDArray[np.float32]:
        mean = np.mean(self.said, axis=0) if self.others else self.said[0]
        return np.log(np.maximum(mean, np.finfo(np.float32).tiny)).astype(np.float32)


@dataclass(frozen=True)
class _Reader:
    """Reads the answer of one row."""

    part: AnswersPart
    labels: tuple[str, ...]
    means: Mapping[str, str]
    order: tuple[int, ...] = ()

    @classmethod
    def of(cls, part: AnswersPart, labels: Sequence[str], means: Mapping[str, str]) -> _Reader:
        """Return the reader. Raises RecipeError unless scores are named for every label, and no other."""
        scores = part.scores
        if scores is None:
            return cls(part, tuple(labels), means)
        named = [_label(name, means) for name in (part.order if isinstance(scores, str) else scores)]
        if sorted(map(str, named)) != sorted(labels):
            strange = sorted({str(name) for name in named} - set(labels))
            missing = sorted(set(labels) - {str(name) for name in named})
            said = [f"no label of the data is {', '.join(strange)}"] if strange else []
            said += [f"none is named for {', '.join(missing)}"] if missing else []
            raise RecipeError(
                f"scores are needed for every label of the data: {'; '.join(said) or 'one is named twice'}",
                where=WHERE,
                hint=_hint_of_labels(labels),
            )
        return cls(part, tuple(labels), means, tuple(named.index(label) for label in labels))

    def probabilities(self, values: Mapping[str, Any]) -> NDArray[np.float64] | None:
        """Return the answer of a row [C], None where it is empty. Raises ValueError with the rule."""
        scores = self.part.scores
        if scores is None:
            return self._of_label(value_at(values, str(self.part.label_column)))
        if isinstance(scores, str):
            raw = _as_list(value_at(values, scores), scores)
            if raw is not None and len(raw) != len(self.labels):
                raise ValueError(f"`{scores}` holds {len(raw)} numbers, the order names {len(self.labels)}")
            columns = [scores] * len(self.labels)
        else:
            raw, columns = [value_at(values, column) for column in scores.values()], [*scores.values()]
        if raw is None or all(_is_empty(value) for value in raw):
            return None
        numbers = np.array([_number(v, c) for v, c in zip(raw, columns, strict=True)])[list(self.order)]
        return _distribution(numbers) if self.part.probabilities is None else _checked(numbers)

    def _of_label(self, written: Any) -> NDArray[np.float64] | None:
        column = self.part.label_column
        try:
            name = None if written is ABSENT else label_name(written)
        except ValueError as problem:
            raise ValueError(f"`{column}` {problem}") from None
        if name is None:
            return None
        label = self.means.get(name, name)
        if label not in self.labels:
            raise ValueError(f"`{column}` is {shown(name)}, which is no label of the data")
        answer = np.full(len(self.labels), (1 - self.part.certainty) / (len(self.labels) - 1))
        answer[self.labels.index(label)] = self.part.certainty
        return answer


def _rows(part: AnswersPart, data: DataPart) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield place, text as it is kept, and values of every row that may hold an answer."""
    own = part.file is None
    sources = [getattr(data, name) for name in SOURCES] if own else [part.file]
    text, known = part.text or data.text, False
    for source in dict.fromkeys(source for source in sources if source is not None):
        columns = Columns(text, None, more=part.columns)
        records = list(source_records(source, columns))
        missing = [name for name in part.columns if not any(_has(record, name) for record in records)]
        if missing and own:
            continue
        if missing and records:
            raise _no_column(missing[0], records[0], source)
        known = True
        places = {record.place: record.values for record in records}
        rows = checked(records, Columns(text, None), where=source, split=located(source)[1])
        for place, written in zip(rows.places, rows.texts, strict=True):
            row = Row(written, "", (), place)
            yield place, row.text if data.max_words is None else row.cut(data.max_words).text, places[place]
    if not known:
        raise DataError(
            f"no source of the data has the column {', '.join(map(repr, part.columns))}",
            where=WHERE,
            hint="teacher.answers.file names a file of their own",
        )


def _has(record: Record, name: str) -> bool:
    return value_at(record.values, name) is not ABSENT


def _no_column(name: str, record: Record, source: str) -> DataError:
    have = ", ".join(str(key) for key in record.values)
    return DataError(
        f"there is no column {name!r}",
        where=source,
        hint=f"columns: {have}; teacher.answers.label, logits or probabilities names another",
    )


def _hint(part: AnswersPart, labels: Sequence[str]) -> str:
    if part.scores is not None:
        return "leave the cells of a text empty where the teacher has no answer"
    return _hint_of_labels(labels)


def _hint_of_labels(labels: Sequence[str]) -> str:
    return f"labels: {', '.join(labels)}; teacher.labels says which names of the teacher mean which"


def _label(name: str, means: Mapping[str, str]) -> str | None:
    known = label_name(name)
    return known if known is None else means.get(known, known)


def _as_list(value: Any, column: str) -> Sequence[Any] | None:
    """Return the numbers of one cell: a list, or one written as JSON; None where it is empty."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError(f"`{column}` is {shown(value)}, no list of numbers") from None
    if _is_empty(value):
        return None
    if not isinstance(value, list | tuple | np.ndarray):
        raise ValueError(f"`{column}` is {shown(value)}, no list of numbers")
    return list(value)


def _is_empty(value: Any) -> bool:
    return value is None or value is ABSENT or (isinstance(value, str) and not value.strip())


def _number(value: Any, column: str) -> float:
    if _is_empty(value):
        raise ValueError(f"`{column}` is empty, other scores of the row are not")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"`{column}` is {shown(value)}, no number") from None
    if isinstance(value, bool) or not math.isfinite(number):
        raise ValueError(f"`{column}` is {shown(value)}, no finite number")
    return number


def _distribution(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    odds: NDArray[np.float64] = np.exp(logits - logits.max())
    odds /= odds.sum()
    return odds


def _checked(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return probabilities that sum to 1. Raises ValueError where they are none."""
    if values.min() < -LEAST or values.max() > 1 + LEAST:
        raise ValueError(
            f"a probability lies between 0 and 1, not at {values[np.abs(values - 0.5).argmax()]:g}"
        )
    if abs(values.sum() - 1) > SUM_TOLERANCE + 1e-9:
        raise ValueError(f"the probabilities sum to {values.sum():.4g}, not to 1")
    kept = np.maximum(values, LEAST)
    shares: NDArray[np.float64] = kept / kept.sum()
    return shares
