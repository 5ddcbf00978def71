"""The texts that servers are asked about."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from contract.family import Family

BODIES = 512
SHORT_WORDS = 14


def short_texts(folder: Path, family: Family) -> list[str]:
    """Return held-out texts of the family, cut to SHORT_WORDS words."""
    if family.data is None:
        raise SystemExit("the family keeps no data to send")
    whole = pq.read_table(folder / family.data.path)["text"].to_pylist()
    return [" ".join(str(text).split()[:SHORT_WORDS]) for text in whole[:BODIES]]
