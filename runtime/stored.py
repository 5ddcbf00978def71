"""Whether this machine gives a family's answers: some of its own rows are run again, and compared.

Products of INT8 saturate on processors without VNNI or AMX, so one and the same graph can give other answers
there, while thresholds and certificates are about the answers that were measured.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
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
from runtime.api import Logits
from runtime.load import load_variant

ROWS = 16
# The most that a probability may move: what thresholds are compared with. Arithmetic in another order moves
# one of FP32 by less than a millionth; a rounding border that is crossed in INT8 costs a little more.
FULL_PRECISION_LIMIT = 0.001
LOWERED_LIMIT = 0.005


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
        limit: the most that it may.
        seconds: that loading and answering took.
    """

    variant: str
    n: int
    other_labels: int
    change: float
    limit: float
    seconds: float

    @property
    def same(self) -> bool:
        """Whether the answers are those that were measured."""
        return self.change <= self.limit

    @property
    def told(self) -> str:
        """The result in words."""
        if self.same:
            return f"answers as measured (a probability moves by {self.change:.2g} at most)"
        labels = f", {self.other_labels} of {self.n} labels differ" if self.other_labels else ""
        return f"gives other answers: a probability moves by {self.change:.2g}, limit {self.limit:g}{labels}"


def repeat_answers(
    folder: Path, family: Family, *, threads: Mapping[str, int] | None = None
) -> Iterator[Repeated]:
    """Run stored rows through every variant on the processor, one after the other, and compare.

    Fakes compute nothing and are left out, and so is what has no logits stored.

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
    """Return n rows of a family's held-out texts, spread over all of them, and the logits measured there.

    They are rows that the family holds anyway, beneath its predictions. None where it holds neither.

    Raises:
        FamilyError: when texts and predictions do not belong together.
    """
    if family.data is None or family.predictions is None:
        return StoredRows((), {})
    texts = inside(folder, family.data.path)
    predictions = inside(folder, family.predictions.path)
    names = {f"{v.name}/logits": v.name for v in family.variants if v.runtime != "fake"}
    try:
        there = set(pq.read_schema(predictions).names)
        table = pq.read_table(predictions, columns=[name for name in names if name in there] or ["label"])
        said = pq.read_table(texts, columns=["text"])["text"]
    except (OSError, pa.ArrowException, KeyError) as problem:
        raise FamilyError(
            f"its held-out texts or predictions cannot be read: {problem}", where=folder
        ) from None
    if len(said) != len(table):
        raise FamilyError(f"{len(said)} held-out texts have {len(table)} predictions", where=folder)
    chosen = np.unique(np.linspace(0, len(said) - 1, n).astype(np.int64)) if len(said) else np.arange(0)
    logits = {
        names[name]: np.array(table[name].take(pa.array(chosen)).to_pylist(), dtype=np.float32)
        for name in table.column_names
        if name in names
    }
    return StoredRows(tuple(said.take(pa.array(chosen)).to_pylist()), logits)


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
    lowered = variant.precision != "fp32"
    moved = np.abs(_probabilities(wanted, variant) - _probabilities(found, variant))
    return Repeated(
        variant=variant.name,
        n=len(wanted),
        other_labels=int((wanted.argmax(1) != found.argmax(1)).sum()),
        change=float(moved.max()) if np.isfinite(moved).all() else 1.0,
        limit=LOWERED_LIMIT if lowered else FULL_PRECISION_LIMIT,
        seconds=seconds,
    )


def _probabilities(logits: Logits, variant: Variant) -> NDArray[np.float64]:
    scaled = logits.astype(np.float64) / variant.temperature
    odds: NDArray[np.float64] = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    odds /= odds.sum(axis=1, keepdims=True)
    return odds
