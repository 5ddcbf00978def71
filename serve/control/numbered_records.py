"""Records with numbers in a state: each written once and never changed, whatever kind they are."""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar

from contract.errors import PolicyError, SluiceError
from serve.storage.numbered import NotJson, Numbered, NumberTaken
from serve.storage.objects import Objects


class _Record(Protocol):
    @property
    def number(self) -> int: ...

    def dump(self) -> dict[str, Any]: ...


R = TypeVar("R", bound=_Record)
R_co = TypeVar("R_co", covariant=True)


class _Parse(Protocol[R_co]):
    def __call__(self, raw: Any, *, where: object | None = None) -> R_co: ...


class NumberedRecords(Generic[R]):
    """Records of one kind below a folder of a store; several may read and write.

    Every method raises OSError when the store cannot be asked.

    Args:
        objects: the store.
        folder: key of their folder.
        kind: what one is called in refusals.
        parse: reads one; raises PolicyError.
        taken: raised where another writer committed a number first.
    """

    def __init__(
        self, objects: Objects, folder: str, kind: str, parse: _Parse[R], taken: type[SluiceError]
    ) -> None:
        self._documents = Numbered(objects, folder)
        self._kind = kind
        self._parse = parse
        self._taken = taken

    def latest(self) -> R | None:
        """Return the newest record; None before the first. Raises PolicyError when unreadable."""
        number = self._documents.latest()
        return self.read(number) if number else None

    def newer_than(self, number: int) -> R | None:
        """Return the latest record if it is newer; costs one look at the store when it is not."""
        newer = self._documents.newer_than(number)
        return None if newer is None else self.read(newer)

    def read(self, number: int) -> R:
        """Return one record.

        Raises:
            PolicyError: there is no such number, or what is there is not that record.
        """
        where = self._documents.where(number)
        try:
            record = self._parse(self._documents.read(number), where=where)
        except FileNotFoundError:
            raise PolicyError(f"there is no such {self._kind}", where=where) from None
        except NotJson as problem:
            raise PolicyError(str(problem), where=where) from None
        if record.number != number:
            raise PolicyError(f"it says it is {self._kind} {record.number}", where=where)
        return record

    def history(self) -> list[R]:
        """Return all records, oldest first."""
        return [self.read(number) for number in self._documents.numbers()]

    def commit(self, record: R) -> R:
        """Write a record under its number, complete or not at all; return it as it was written.

        Raises:
            SluiceError: the number exists; of the kind that `taken` says.
        """
        try:
            self._documents.write(record.number, record.dump())
        except NumberTaken:
            raise self._taken(f"{self._kind} {record.number} was taken by another writer") from None
        return record
