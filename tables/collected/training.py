"""What was collected of one question, as data to learn from: one row a text, with what was answered to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from contract.collected import Question
from contract.errors import DataError
from contract.files import atomic_path
from tables.collected.store import CollectedStore
from tables.labelled import text_rule
from tables.labels import label_name

_COLUMNS = ("at_s", "text_sha256", "text", "answer", "probabilities", "usd", "upstream", "model")
_LATELY = 200
"""Newest answers, of which the model most asked is the one that is asked now."""


@dataclass(frozen=True)
class Counts:
    """How much there is of one question.

    Attributes:
        rows: answers.
        texts: distinct texts.
        kept_texts: of them, those that can be learnt: kept, readable, and answered by the model asked now.
        contradicted: texts that got more than one answer.
        per_label: rows by answer.
        first_s, last_s: Unix seconds of the oldest and the newest row; 0 where there is none.
        usd: what the answers have cost, as far as prices are known.
        priced: rows with a price.
    """

    rows: int
    texts: int
    kept_texts: int
    contradicted: int
    per_label: dict[str, int]
    first_s: float
    last_s: float
    usd: float
    priced: int

    @property
    def usd_per_1k(self) -> float | None:
        """Price of 1,000 answers; None where none has one."""
        return 1000 * self.usd / self.priced if self.priced else None

    @property
    def days(self) -> float:
        """From the oldest row to the newest."""
        return max(0.0, self.last_s - self.first_s) / 86400


@dataclass(frozen=True)
class TrainingRows:
    """N distinct texts with one answer each.

    Attributes:
        question: that was answered; `labels` below are its.
        texts: [N].
        answers: [N] index of the label.
        probabilities: [N, C]; a row of NaN where the answer came without.
        model: that answered.
    """

    question: Question
    texts: tuple[str, ...]
    answers: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    model: str = ""

    def __len__(self) -> int:
        return len(self.texts)


def count(store: CollectedStore, sha256: str) -> Counts:
    """Return how much there is of a question."""
    rows = store.rows(sha256, [name for name in _COLUMNS if name != "probabilities"])
    texts, answers = rows["text_sha256"].to_pylist(), rows["answer"].to_pylist()
    said: dict[str, set[str]] = {}
    for text, answer in zip(texts, answers, strict=True):
        said.setdefault(text, set()).add(answer)
    now = newest(rows)
    pairs = zip(now["text_sha256"].to_pylist(), now["text"].to_pylist(), strict=True)
    kept = {sha256 for sha256, text in pairs if text_rule(text, "text") is None}
    at_s = np.asarray(rows["at_s"])
    prices = [usd for usd in rows["usd"].to_pylist() if usd is not None]
    return Counts(
        rows=len(rows),
        texts=len(said),
        kept_texts=len(kept),
        contradicted=sum(len(found) > 1 for found in said.values()),
        per_label=dict(Counter(answers)),
        first_s=float(at_s.min()) if len(at_s) else 0.0,
        last_s=float(at_s.max()) if len(at_s) else 0.0,
        usd=float(sum(prices)),
        priced=len(prices),
    )


def training_rows(store: CollectedStore, sha256: str) -> TrainingRows:
    """Return the texts of a question that were kept, each with one answer.

    Of several answers to one text the mean of the probabilities counts, so that its label is the likeliest by
    them, unless all name another; where one came without, the answer given most often, of equals the newest.
    Answers of another upstream or model than is asked now are left out, and texts that are blank or no text.

    Raises:
        DataError: no text was kept.
    """
    question = store.question(sha256)
    rows = newest(store.rows(sha256, _COLUMNS)).sort_by("at_s")
    places = {label: place for place, label in enumerate(question.labels)}
    heard: dict[str, _Heard] = {}
    for row in rows.select(["text_sha256", "text", "answer", "probabilities"]).to_pylist():
        if text_rule(row["text"], "text") is None and row["answer"] in places:
            one = heard.setdefault(row["text_sha256"], _Heard(row["text"]))
            one.answers.append(places[row["answer"]])
            one.probabilities.append(row["probabilities"])
    if not heard:
        raise DataError(
            f"of {len(rows):,} answers no text was kept, so nothing can learn from them",
            where=store.folder,
            hint="--keep-texts keeps them from now on",
        )
    found = [one.settled(len(question.labels)) for one in heard.values()]
    return TrainingRows(
        question=question,
        texts=tuple(one.text for one in heard.values()),
        answers=np.array([answer for answer, _ in found], dtype=np.int64),
        probabilities=np.array([shares for _, shares in found], dtype=np.float32),
        model=rows["model"][-1].as_py() or "",
    )


def newest(rows: pa.Table) -> pa.Table:
    """Return the rows of the upstream that answered last, and of its model that was asked most of late."""
    if not len(rows):
        return rows
    ordered = rows.sort_by([("at_s", "descending")])
    upstream = ordered["upstream"].fill_null("")
    ordered = ordered.filter(pc.equal(upstream, upstream[0]))
    models = ordered["model"].fill_null("")
    most = Counter(models[:_LATELY].to_pylist()).most_common(1)[0][0]
    return ordered.filter(pc.equal(models, most))


def not_learnable(question: Question) -> str:
    """Return why no family can be made for a question; empty where one can."""
    if question.kind != "choice" or question.booleans:
        return "only choices among texts are learnt"
    if question.reworded:
        return "a redaction rule changes the words of the question itself, so it cannot be asked as it was"
    for label in question.labels:
        try:
            name = label_name(label)
        except ValueError:
            name = None
        if name != label:
            return f"the choice {label[:60]!r} cannot be the name of a label: offer another value"
    return ""


def write_training(path: Path, rows: TrainingRows) -> None:
    """Write rows as Parquet atomically: `text`, `answer`, and `probabilities` in the order of the labels.

    `probabilities` is null where an answer came without.
    """
    known = ~np.isnan(rows.probabilities[:, 0])
    shares: Sequence[list[float] | None] = [
        row.tolist() if there else None for row, there in zip(rows.probabilities, known, strict=True)
    ]
    table = pa.table(
        {
            "text": pa.array(rows.texts, pa.string()),
            "answer": pa.array([rows.question.labels[answer] for answer in rows.answers], pa.string()),
            "probabilities": pa.array(shares, pa.list_(pa.float32())),
        }
    )
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


class _Heard:
    """All answers to one text, oldest first."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.answers: list[int] = []
        self.probabilities: list[list[float] | None] = []

    def settled(self, classes: int) -> tuple[int, NDArray[np.float64]]:
        """Return the one answer, and its probabilities [C], NaN where they are not known."""
        told = [shares for shares in self.probabilities if shares is not None]
        if len(told) == len(self.answers):
            mean = np.mean(np.array(told, dtype=np.float64), axis=0)
            mean /= mean.sum()
            best = int(mean.argmax())
            if len(set(self.answers)) > 1 or best == self.answers[0]:
                return best, mean
        counts = Counter(reversed(self.answers))
        return counts.most_common(1)[0][0], np.full(classes, np.nan)
