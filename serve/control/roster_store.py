"""Which families are in force: numbered rosters beside the revisions, each written once and never changed."""

from __future__ import annotations

from datetime import UTC, datetime

from contract.errors import PolicyError, SluiceError
from contract.roster import Roster, parse_roster
from serve.control.revision_store import MAX_REASON
from serve.storage.numbered import NotJson, Numbered, NumberTaken
from serve.storage.objects import open_objects


class RosterTaken(SluiceError):
    """Another writer committed that number first; read the latest roster and decide again."""


class RosterStore:
    """Rosters below `roster` of a state; several may read and write.

    Every method raises OSError when the store cannot be asked.

    Args:
        state: state directory, or `s3://BUCKET/PREFIX`.
    """

    def __init__(self, state: str) -> None:
        self._documents = Numbered(open_objects(state), "roster")

    def latest(self) -> Roster | None:
        """Return the newest roster; None before the first. Raises PolicyError when unreadable."""
        number = self._documents.latest()
        return self.read(number) if number else None

    def newer_than(self, number: int) -> Roster | None:
        """Return the latest roster if it is newer; costs one look at the store when it is not."""
        newer = self._documents.newer_than(number)
        return None if newer is None else self.read(newer)

    def read(self, number: int) -> Roster:
        """Return one roster. Raises PolicyError when there is none, or it is not that one."""
        where = self._documents.where(number)
        try:
            roster = parse_roster(self._documents.read(number), where=where)
        except FileNotFoundError:
            raise PolicyError("there is no such roster", where=where) from None
        except NotJson as problem:
            raise PolicyError(str(problem), where=where) from None
        if roster.number != number:
            raise PolicyError(f"it says it is roster {roster.number}", where=where)
        return roster

    def history(self) -> list[Roster]:
        """Return all rosters, oldest first."""
        return [self.read(number) for number in self._documents.numbers()]

    def commit(self, roster: Roster) -> None:
        """Write a roster under its number.

        Raises:
            RosterTaken: the number exists.
            PolicyError: nobody could read it.
        """
        told = roster.dump()
        parse_roster(told, where=self._documents.where(roster.number))
        try:
            self._documents.write(roster.number, told)
        except NumberTaken:
            raise RosterTaken(f"roster {roster.number} was taken by another writer") from None


def next_roster(latest: Roster | None, changed: Roster, reason: str) -> Roster:
    """Return the roster after `latest` that holds what `changed` does."""
    update = {
        "number": 1 if latest is None else latest.number + 1,
        "created_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "reason": reason[:MAX_REASON],
    }
    return changed.model_copy(update=update)
