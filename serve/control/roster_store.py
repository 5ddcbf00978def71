"""Which families are in force: numbered rosters beside the revisions, each written once and never changed."""

from __future__ import annotations

from datetime import UTC, datetime

from contract.errors import SluiceError
from contract.roster import Roster, parse_roster
from serve.control.numbered_records import NumberedRecords
from serve.control.revision_store import MAX_REASON
from serve.storage.objects import open_objects


class RosterTaken(SluiceError):
    """Another writer committed that number first; read the latest roster and decide again."""


class RosterStore(NumberedRecords[Roster]):
    """Rosters below `roster` of a state; see NumberedRecords.

    Args:
        state: state directory, or `s3://BUCKET/PREFIX`.
    """

    def __init__(self, state: str) -> None:
        super().__init__(open_objects(state), "roster", "roster", parse_roster, RosterTaken)

    def commit(self, record: Roster) -> Roster:
        """Write a roster under its number.

        Raises:
            RosterTaken: the number exists.
            PolicyError: nobody could read it.
        """
        parse_roster(record.dump(), where=self._documents.where(record.number))
        return super().commit(record)


def next_roster(latest: Roster | None, changed: Roster, reason: str) -> Roster:
    """Return the roster after `latest` that holds what `changed` does."""
    update = {
        "number": 1 if latest is None else latest.number + 1,
        "created_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "reason": reason[:MAX_REASON],
    }
    return changed.model_copy(update=update)
