"""The keys on disk: numbered books in the state directory, each written once, readable by the owner alone.

They lie beside the revisions and not in them: a key must exist before there is a policy to put in force, a
rollback must never bring a revoked key back, and who may read the history of policies need not see who asks.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from contract.errors import InputError, SluiceError
from contract.files import read_json
from serve.access.keys import KeyBook, KeyLimits, Scope, created, mint, parse_book, revoked, rotated

_DIGITS = 8
_TRIES = 5
T = TypeVar("T")


class BookTaken(SluiceError):
    """Another writer was first; read the newest book and decide again."""


class KeyStore:
    """Books `00000001.json`, `00000002.json` ... in `folder/keys`; several processes may read and write."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "keys"

    def latest(self) -> KeyBook | None:
        """Return the newest book; None where no key was ever made. Raises InputError when unreadable."""
        numbers = self._numbers()
        return self._read(numbers[-1]) if numbers else None

    def newer_than(self, number: int) -> KeyBook | None:
        """Return the newest book if it is newer; costs one `stat` when it is not."""
        if not self._path(number + 1).exists():
            return None
        return self.latest()

    def create(self, name: str, scopes: tuple[Scope, ...], limits: KeyLimits) -> tuple[str, KeyBook]:
        """Make a key; return it, once, and the book that has it. Raises InputError."""
        key, record = mint(name, scopes, limits, _now())
        return key, self._change(lambda book: created(book, record, _now()), lambda book: book)

    def rotate(self, name: str, overlap: timedelta) -> tuple[str, KeyBook]:
        """Make a new key for a name; the old one is valid for `overlap` more. Raises InputError."""
        return self._change(lambda book: rotated(book, name, overlap, _now()), lambda pair: pair[1])

    def revoke(self, name: str) -> KeyBook:
        """Make the keys of a name invalid. Raises InputError."""
        return self._change(lambda book: revoked(book, name, _now()), lambda book: book)

    def _change(self, decide: Callable[[KeyBook | None], T], book_of: Callable[[T], KeyBook]) -> T:
        for _ in range(_TRIES):
            decided = decide(self.latest())
            try:
                self._commit(book_of(decided))
            except BookTaken:
                continue
            return decided
        raise SluiceError("other writers keep changing the keys", hint="again")

    def _commit(self, book: KeyBook) -> None:
        """Write a book under its number, complete or not at all. Raises BookTaken."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        target = self._path(book.number)
        temporary = self._folder / f".{book.number}.{secrets.token_hex(4)}.tmp"
        opened = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(opened, "w", encoding="utf-8") as file:
                json.dump(book.model_dump(mode="json", by_alias=True), file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, target)
        except FileExistsError:
            raise BookTaken(f"the keys' number {book.number} was taken by another writer") from None
        finally:
            temporary.unlink(missing_ok=True)

    def _read(self, number: int) -> KeyBook:
        path = self._path(number)
        book = parse_book(read_json(path), where=path)
        if book.number != number:
            raise InputError(f"it says it is number {book.number}", where=path)
        return book

    def _numbers(self) -> list[int]:
        if not self._folder.is_dir():
            return []
        return sorted(int(path.stem) for path in self._folder.glob("*.json") if path.stem.isdigit())

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:0{_DIGITS}}.json"


def _now() -> datetime:
    return datetime.now(UTC)
