"""The store of collected rows: a folder with its rules, its questions and its parts.

    collected/
      store.json              rules and key of the text hashes
      questions/SHA256.json   what was asked
      parts/part-*.parquet    what was answered

Many processes may add parts at once. One that dies loses what it has not written yet, and nothing else; two
that tidy at once take turns.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from contract.collected import SCHEMA, CollectedRow, KeepRules, Question
from contract.errors import DataError
from contract.files import read_json, write_json
from contract.records import Frozen, parse_record
from tables.collected.parts import Part, holds_texts, list_parts, newer_than, read_parts, table_of, write_part

STORE = "store.json"
JOIN_BELOW = 20_000
"""Parts with fewer rows are joined."""
REREADS = 5
LEFT_OVER_S = 3600.0
"""No writer takes so long over a part."""


class StoreRecord(Frozen):
    """What `store.json` says."""

    schema_: int = Field(default=SCHEMA, alias="schema")
    rules: KeepRules
    salt: str = Field(pattern=r"^[0-9a-f]{64}$", description="Key of the hashes of texts")


@dataclass(frozen=True)
class CollectedStore:
    """An opened store."""

    folder: Path
    record: StoreRecord

    @classmethod
    def create(cls, folder: Path, rules: KeepRules) -> Self:
        """Open a store under these rules, made where there is none yet; the key of its hashes stays.

        Rules that keep less than those before are followed from the next row on; `tidy` removes what is too
        old, and texts where none may be kept any more.
        """
        path = folder / STORE
        with _alone_in(folder):
            folder.chmod(0o700)
            record = _read(folder) if path.exists() else StoreRecord(rules=rules, salt=secrets.token_hex(32))
            if record.rules != rules or not path.exists():
                record = record.model_copy(update={"rules": rules})
                write_json(path, record.model_dump(mode="json", by_alias=True))
        return cls(folder, record)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a store that is there. Raises DataError where none is."""
        return cls(folder, _read(folder))

    @property
    def rules(self) -> KeepRules:
        """What is kept."""
        return self.record.rules

    def hash_of(self, text: str) -> str:
        """Return the keyed hash of a text, the same for equal texts in this store alone."""
        key = bytes.fromhex(self.record.salt)
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=key, digest_size=16).hexdigest()

    def remember(self, question: Question) -> None:
        """Keep what was asked, if it is not kept yet; say that it was asked now, if it is."""
        path = self.folder / "questions" / f"{question.sha256}.json"
        try:
            os.utime(path)
        except FileNotFoundError:
            write_json(path, question.model_dump(mode="json"))

    def question(self, sha256: str) -> Question:
        """Return what was asked. Raises DataError for a question that is not known here."""
        path = self.folder / "questions" / f"{sha256}.json"
        return parse_record(Question, read_json(path, error=DataError), where=path, error=DataError)

    def questions(self) -> dict[str, Question]:
        """Return every question by its sha256."""
        folder = self.folder / "questions"
        names = sorted(path.stem for path in folder.glob("*.json")) if folder.is_dir() else []
        return {name: self.question(name) for name in names}

    def add(self, rows: Sequence[CollectedRow], name: str) -> None:
        """Write N >= 1 rows as a part; see `write_part`."""
        write_part(self.parts_folder, table_of(rows), name)

    @property
    def parts_folder(self) -> Path:
        """Where the parts are."""
        return self.folder / "parts"

    def rows(self, question: str | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows, oldest part first, each once.

        Args:
            question: sha256 of the one that is meant; None: all.
            columns: names; None: all.
        """
        wanted = None if columns is None else [*columns, *(["question"] if question is not None else [])]
        for _ in range(REREADS):
            try:
                found = read_parts(list_parts(self.parts_folder), wanted)
            except FileNotFoundError:  # joined or removed since it was listed
                continue
            return found if question is None else found.filter(pc.field("question") == question)
        raise DataError("its parts change too often to be read", where=self.parts_folder, hint="try again")

    def tidy(self, now_s: float) -> int:
        """Remove what the rules do not keep any more, join small parts, and return how many rows went.

        Questions go that nobody asked for so long, and what killed writers left half written.

        Args:
            now_s: Unix seconds.
        """
        oldest_s = now_s - 86400 * self.rules.retention_days
        with _alone_in(self.folder):
            removed = 0
            for part in list_parts(self.parts_folder):
                removed += self._keep_rules(part, oldest_s)
            self._join()
            self._forget_questions(oldest_s)
            self._remove_left_over()
        return removed

    def _keep_rules(self, part: Part, oldest_s: float) -> int:
        expired = part.first_ms < 1000 * oldest_s
        stripped = not self.rules.texts and holds_texts(part.path)
        if not expired and not stripped:
            return 0
        rows = read_parts([part])
        kept = newer_than(rows, oldest_s)
        if len(kept) < len(rows) or stripped:
            if stripped:
                none = pa.nulls(len(kept), pa.string())
                kept = kept.set_column(kept.column_names.index("text"), "text", none)
            if len(kept):
                write_part(self.parts_folder, kept, f"k{secrets.token_hex(6)}")
            part.path.unlink(missing_ok=True)
        return len(rows) - len(kept)

    def _forget_questions(self, oldest_s: float) -> None:
        old = [path for path in (self.folder / "questions").glob("*.json") if path.stat().st_mtime < oldest_s]
        asked = set(self.rows(columns=["question"])["question"].to_pylist()) if old else set()
        for path in old:
            if path.stem not in asked:
                path.unlink(missing_ok=True)

    def _remove_left_over(self) -> None:
        for path in self.parts_folder.glob(".part-*.tmp"):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < time.time() - LEFT_OVER_S:
                    path.unlink()

    def _join(self) -> None:
        """Join runs of small parts. After a crash in between, rows stand twice, and are read once."""
        small = [
            part for part in list_parts(self.parts_folder) if part.path.stat().st_size < 100 * JOIN_BELOW
        ]
        if len(small) < 16:
            return
        rows = read_parts(small)
        for start in range(0, len(rows), JOIN_BELOW):
            write_part(self.parts_folder, rows.slice(start, JOIN_BELOW), f"j{secrets.token_hex(6)}")
        for part in small:
            part.path.unlink(missing_ok=True)


def _read(folder: Path) -> StoreRecord:
    path = folder / STORE
    if not path.is_file():
        raise DataError(
            "nothing was collected here", where=path, hint="sluice collect --upstream URL --out FOLDER begins"
        )
    return parse_record(
        StoreRecord, read_json(path, error=DataError), where=path, error=DataError, newest=SCHEMA
    )


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait for whoever tidies this store; the lock goes with its process, however that ends."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
