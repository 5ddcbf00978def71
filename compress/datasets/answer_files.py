"""Answers that a teacher gave elsewhere, read from files: labels, logits or probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.datasets.recorded import Recorded, hash_of
from compress.datasets.scores import (
    LEAST,
    ScoreProblem,
    are_shares,
    is_empty,
    list_in,
    number_of,
    of_logits,
    of_probabilities,
)
from compress.datasets.sources import Row, located, source_records
from compress.recipes.answers_part import AnswersPart
from compress.recipes.data_part import SOURCES, DataPart
from contract.errors import DataError, RecipeError
from tables.files import Columns, Record
from tables.labelled import ABSENT, checked, value_at
from tables.labels import label_name, shown
from tables.problems import refuse

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
            probabilities that are none or are named logits, one text with several answers; names file, row
            and rule.
    """
    reader = _Reader.of(part, labels, means)
    found: dict[bytes, _Heard] = {}
    empty = 0
    problems: list[tuple[str, str]] = []
    hint = _hint_of_labels(labels)
    for place, text, values in _rows(part, data):
        try:
            answer = reader.probabilities(values)
        except ValueError as problem:
            if isinstance(problem, ScoreProblem) and not problems:
                hint = problem.hint
            problems.append((place, str(problem)))
            continue
        if answer is None:
            empty += 1
            continue
        found.setdefault(hash_of(text), _Heard(place)).add(place, answer)
    source = part.file or "the data"
    refuse(problems, where=source, hint=hint)
    if reader.shares and not reader.others:
        raise DataError(
            f"the logits of all {reader.shares:,} rows are probabilities: none is below 0, and they sum to 1",
            where=source,
            hint="name them `probabilities` in teacher.answers",
        )
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


@dataclass
class _Reader:
    """Reads the answer of one row, and counts what was named logits: rows like probabilities, and others."""

    part: AnswersPart
    labels: tuple[str, ...]
    means: Mapping[str, str]
    order: tuple[int, ...] = ()
    shares: int = 0
    others: int = 0

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
            raw = list_in(value_at(values, scores), scores)
            if raw is not None and len(raw) != len(self.labels):
                raise ScoreProblem(
                    f"`{scores}` holds {len(raw)} numbers, the order names {len(self.labels)}",
                    "`order` names the labels as the lists have them",
                )
            columns = [scores] * len(self.labels)
        else:
            raw, columns = [value_at(values, column) for column in scores.values()], [*scores.values()]
        if raw is None or all(is_empty(value) for value in raw):
            alone = self.part.label_column
            return None if alone is None else self._of_label(value_at(values, alone))
        numbers = np.array([number_of(v, c) for v, c in zip(raw, columns, strict=True)])[list(self.order)]
        if self.part.probabilities is not None:
            return of_probabilities(numbers)
        if are_shares(numbers):
            self.shares += 1
        else:
            self.others += 1
        return of_logits(numbers)

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
    """Yield place, text as it is kept, and answer cells of every row that may hold an answer."""
    own = part.file is None
    sources = [getattr(data, name) for name in SOURCES] if own else [part.file]
    text, known = part.text or data.text, False
    for source in dict.fromkeys(source for source in sources if source is not None):
        watched = _Watched(part.columns)
        records = watched(source_records(source, Columns(text, None, more=part.columns)))
        rows = checked(records, Columns(text, None), where=source, split=located(source)[1])
        if watched.missing and own:
            continue
        if watched.missing:
            raise _no_column(watched, source)
        known = True
        for place, written in zip(rows.places, rows.texts, strict=True):
            row = Row(written, "", (), place)
            kept = row.text if data.max_words is None else row.cut(data.max_words).text
            yield place, kept, watched.cells[place]
    if not known:
        raise DataError(
            f"no source of the data has the column {', '.join(map(repr, part.columns))}",
            where=WHERE,
            hint="teacher.answers.file names a file of their own",
        )


class _Watched:
    """Records that pass by, of which the cells of some columns are kept by place."""

    def __init__(self, columns: Sequence[str]) -> None:
        self.cells: dict[str, dict[str, Any]] = {}
        self.missing = list(columns)
        self.names: tuple[str, ...] = ()

    def __call__(self, records: Iterator[Record]) -> Iterator[Record]:
        columns = tuple(self.missing)
        for record in records:
            found = {name: value_at(record.values, name) for name in columns}
            if self.missing:
                self.missing = [name for name in self.missing if found[name] is ABSENT]
                self.names = self.names or tuple(map(str, record.values))
            self.cells[record.place] = found
            yield record


def _no_column(watched: _Watched, source: str) -> DataError:
    have = ", ".join(watched.names)
    return DataError(
        f"there is no column {watched.missing[0]!r}",
        where=source,
        hint=f"columns: {have}; teacher.answers.label, logits or probabilities names another",
    )


def _hint_of_labels(labels: Sequence[str]) -> str:
    return f"labels: {', '.join(labels)}; teacher.labels says which names of the teacher mean which"


def _label(name: str, means: Mapping[str, str]) -> str | None:
    known = label_name(name)
    return known if known is None else means.get(known, known)
