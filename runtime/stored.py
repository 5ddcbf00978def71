"""Whether this machine gives a family's answers: some of its own rows are run again, and compared.

Products of INT8 saturate on processors without VNNI or AMX, so one and the same graph can give other answers
there, while thresholds and certificates are about the answers that were measured.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from contract.errors import FamilyError
from contract.family import Family, Variant
from contract.files import inside
from contract.machine import Machine
from contract.probabilities import softmax
from runtime.api import Logits
from runtime.load import load_variant

NOT_RUN = ("fake", "remote")
"""Runtimes that compute nothing here: fakes, and servers elsewhere, whose answers cost money."""
ROWS = 16
# The most that a probability may move, and a logit as a share of the logits' span: a sure model's
# probabilities hardly move whatever its logits do. Arithmetic in another order moves FP32 by less than a
# millionth; a rounding border that is crossed in INT8 costs a little more.
FULL_PRECISION_LIMIT = 0.001
LOWERED_LIMIT = 0.005
MOST_BY_MATES = 0.5


@dataclass(frozen=True)
class StoredRows:
    """N rows that the family was measured on: texts, and logits [N, C] by variant, where they were kept."""

    texts: tuple[str, ...]
    logits: dict[str, Logits]


@dataclass(frozen=True)
class Repeated:
    """How a variant's answers to stored rows are here, beside those that were measured.

    Attributes:
        variant: its name.
        n: rows.
        other_labels: rows that get another label.
        change: the most that a probability has moved, at the variant's temperature.
        logit_change: the most that a logit has moved, as a share of the span of those measured.
        limit, logit_limit: the most that either may, not below what other batchmates do.
        seconds: that loading and answering took.
    """

    variant: str
    n: int
    other_labels: int
    change: float
    logit_change: float
    limit: float
    logit_limit: float
    seconds: float

    @property
    def same(self) -> bool:
        """Whether the answers are those that were measured."""
        return self.change <= self.limit and self.logit_change <= self.logit_limit

    @property
    def told(self) -> str:
        """The result in words."""
        moved = f"probabilities move by {self.change:.2g}, logits by {self.logit_change:.2g} of their span"
        if self.same:
            return f"answers as measured ({moved} at most)"
        labels = f"; {self.other_labels} of {self.n} labels differ" if self.other_labels else ""
        limits = [f"{value:.3g}" for value in dict.fromkeys((self.limit, self.logit_limit))]
        return f"gives other answers: {moved}, limit {' and '.join(limits)}{labels}"


def repeat_answers(
    folder: Path, family: Family, *, threads: Mapping[str, int] | None = None
) -> Iterator[Repeated]:
    """Run stored rows through every variant on the processor, one after the other, and compare.

    What computes nothing here is left out, and so is what has no logits stored.

    Args:
        folder: the family's folder.
        family: its manifest.
        threads: of one call, by variant; 1 for others.

    Raises:
        FamilyError, EnvironmentProblem: as `load_variant`.
    """
    rows = stored_rows(folder, family)
    for variant in family.variants:
        wanted = rows.logits.get(variant.name)
        if wanted is None or not len(wanted):
            continue
        started = time.perf_counter()
        loaded = load_variant(folder, family, variant.name, threads=(threads or {}).get(variant.name, 1))
        found = loaded.logits(rows.texts)
        loaded.runtime.close()
        yield _compared(variant, wanted, found, time.perf_counter() - started)


def stored_rows(folder: Path, family: Family, n: int = ROWS) -> StoredRows:
    """Return n rows of a family's held-out texts, and the logits measured there.

    They are rows that the family holds anyway, beneath its predictions: half of them those that its variants
    are least sure of, where thresholds lie, and the rest spread over all. None where it holds neither.

    Raises:
        FamilyError: when texts and predictions do not belong together.
    """
    if family.data is None or family.predictions is None:
        return StoredRows((), {})
    texts = inside(folder, family.data.path)
    predictions = inside(folder, family.predictions.path)
    names = [v.name for v in family.variants if v.runtime not in NOT_RUN]
    wanted = {f"{name}/{column}" for name in names for column in ("logits", "confidence")}
    try:
        there = pq.read_schema(predictions).names
        table = pq.read_table(predictions, columns=[name for name in there if name in {*wanted, "label"}])
        said = pq.read_table(texts, columns=["text"])["text"]
    except (OSError, pa.ArrowException, KeyError) as problem:
        raise FamilyError(
            f"its held-out texts or predictions cannot be read: {problem}", where=folder
        ) from None
    if len(said) != len(table):
        raise FamilyError(f"{len(said)} held-out texts have {len(table)} predictions", where=folder)
    chosen = pa.array(_chosen(table, names, n))
    logits = {
        name: np.array(table[f"{name}/logits"].take(chosen).to_pylist(), dtype=np.float32)
        for name in names
        if f"{name}/logits" in there
    }
    return StoredRows(tuple(said.take(chosen).to_pylist()), logits)


def _chosen(table: pa.Table, names: Sequence[str], n: int) -> NDArray[np.int64]:
    """Return n rows, ascending: half of them the least certain on average, the rest spread."""
    columns = [table[name] for name in table.column_names if name in {f"{one}/confidence" for one in names}]
    certain = np.zeros(len(table))
    for column in columns:
        certain += column.fill_null(1.0).to_numpy()
    order = np.argsort(certain, kind="stable")
    unsure, others = order[: n // 2], np.sort(order[n // 2 :])
    places = np.linspace(0, max(len(others) - 1, 0), min(n - len(unsure), len(others))).astype(np.int64)
    return np.sort(np.concatenate([unsure, others[places]]))


def other_processor(made: Machine | None, here: Machine) -> str | None:
    """Return how this machine's instruction sets differ from those that a family was measured with."""
    if made is None or set(made.isa) == set(here.isa):
        return None
    lacks = [name for name in made.isa if name not in here.isa]
    has = [name for name in here.isa if name not in made.isa]
    said = [f"lacks {', '.join(lacks)}"] if lacks else []
    said += [f"has {', '.join(has)} besides"] if has else []
    return f"the family was measured on {made.cpu}; this machine ({here.cpu}) {' and '.join(said)}"


def _compared(variant: Variant, wanted: Logits, found: Logits, seconds: float) -> Repeated:
    own = LOWERED_LIMIT if variant.precision != "fp32" else FULL_PRECISION_LIMIT
    span, mates = max(float(np.ptp(wanted)), float(np.finfo(np.float32).tiny)), _moved_by_mates(variant)
    temperature = variant.temperature
    moved = np.abs(softmax(wanted, temperature) - softmax(found, temperature))
    logits = np.abs(wanted - found) / span
    finite = bool(np.isfinite(found).all())
    return Repeated(
        variant=variant.name,
        n=len(wanted),
        other_labels=int((wanted.argmax(1) != found.argmax(1)).sum()),
        change=float(moved.max()) if finite else 1.0,
        logit_change=float(logits.max()) if finite else 1.0,
        # A probability moves by at most half of what every logit moves.
        limit=max(own, min(mates / (2 * temperature), MOST_BY_MATES)),
        logit_limit=max(own, min(mates / span, MOST_BY_MATES)),
        seconds=seconds,
    )


def _moved_by_mates(variant: Variant) -> float:
    """Return how far a logit is from itself among other batchmates: twice from what it is alone."""
    check = variant.verification
    known = None if check is None or variant.batching == "single" else check.batched_logit_change
    return 2 * (known or 0.0)
