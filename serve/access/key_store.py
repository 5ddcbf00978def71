"""The keys: numbered books beside the revisions, each written once, readable by the owner alone.

They lie beside the revisions and not in them: a key must exist before there is a policy to put in force, a
rollback must never bring a revoked key back, and who may read the history of policies need not see who asks.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from contract.errors import InputError, SluiceError
from serve.access.keys import KeyBook, KeyLimits, Scope, created, mint, parse_book, revoked, rotated
from serve.storage.numbered import NotJson, Numbered, NumberTaken
from serve.storage.objects import Objects, open_objects

_TRIES = 5
T = TypeVar("T")


class KeyStore:
    """Books below `keys` of a store; several processes may read and write."""

    def __init__(self, objects: Objects) -> None:
        self._documents = Numbered(objects, "keys", private=True)

    def latest(self) -> KeyBook | None:
        """Return the newest book; None where no key was ever made. Raises InputError when unreadable."""
        number = self._documents.latest()
        return self._read(number) if number else None

    def newer_than(self, number: int) -> KeyBook | None:
        """Return the newest book if it is newer; costs one look at the store when it is not.

        Raises InputError when it is there and cannot be read, and OSError when the store cannot be asked.
        """
        newer = self._documents.newer_than(number)
        try:
            return None if newer is None else self._read(newer)
        except OSError as problem:
            raise InputError(f"cannot be read: {problem}", where=self._documents.where(newer or 0)) from None

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
            except NumberTaken:
                continue
            return decided
        raise SluiceError("other writers keep changing the keys", hint="again")

    def _commit(self, book: KeyBook) -> None:
        """Write a book under its number, complete or not at all. Raises NumberTaken."""
        self._documents.write(book.number, book.model_dump(mode="json", by_alias=True))

    def _read(self, number: int) -> KeyBook:
        where = self._documents.where(number)
        try:
            book = parse_book(self._documents.read(number), where=where)
        except (FileNotFoundError, NotJson) as problem:
            raise InputError(str(problem), where=where) from None
        if book.number != number:
            raise InputError(f"it says it is number {book.number}", where=where)
        return book


def open_keys(place: str) -> KeyStore:
    """Return the keys in a state directory or at `s3://BUCKET/PREFIX`; raises as `open_objects`."""
    return KeyStore(open_objects(place))


def _now() -> datetime:
    return datetime.now(UTC)
