"""The live state: numbered revisions that every node sees, each written once and never changed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from contract.errors import PolicyError, SluiceError
from contract.files import sha256_of_json
from contract.live import FamilyReference, Revision, parse_revision
from contract.policy import Policy
from serve.control.numbered_records import NumberedRecords
from serve.storage.numbered import NotJson
from serve.storage.objects import Objects, open_objects

MAX_REASON = 200
BEFORE = "before_sha256"


class RevisionTaken(SluiceError):
    """Another writer committed that number first; read the latest revision and decide again."""


class RevisionStore(NumberedRecords[Revision]):
    """Revisions below `revisions` of a store; see NumberedRecords. A number that exists is RevisionTaken.

    Args:
        objects: the store.
        place: of the family that they are of, below the store; empty: at its root.
    """

    def __init__(self, objects: Objects, place: str = "") -> None:
        super().__init__(objects, below(place, "revisions"), "revision", parse_revision, RevisionTaken)

    def commit(self, record: Revision) -> Revision:
        """Write a revision under its number, with the hash of the one before as that was written; return it.

        Raises:
            RevisionTaken: the number exists.
            PolicyError: the one before is not there.
        """
        if record.number > 1:
            try:
                before = self._documents.read(record.number - 1)
            except (FileNotFoundError, NotJson) as problem:
                where = self._documents.where(record.number - 1)
                raise PolicyError(f"the revision before is not readable: {problem}", where=where) from None
            record = record.model_copy(update={BEFORE: sha256_of_json(before)})
        return super().commit(record)


def open_revisions(state: str, place: str = "") -> RevisionStore:
    """Return a family's revisions in a state directory or at `s3://BUCKET/PREFIX`. Raises as open_objects."""
    return RevisionStore(open_objects(state), place)


def below(place: str, folder: str) -> str:
    """Return the key of a folder that the family of that place has."""
    return f"{place}/{folder}" if place else folder


def first_revision(policy: Policy, family: FamilyReference, reason: str) -> Revision:
    """Return the revision that a state directory begins with."""
    return Revision(
        number=1,
        created_at=_now(),
        reason=reason,
        seed=True,
        policy=policy,
        family_sha256=family.sha256,
        family_path=family.path,
        family_name=family.name,
    )


def following(latest: Revision, changed: Revision, reason: str) -> Revision:
    """Return the revision after `latest` that holds what `changed` does; a ruling belongs to one alone."""
    update: dict[str, Any] = {
        "number": latest.number + 1,
        "created_at": _now(),
        "reason": reason[:MAX_REASON],
        "seed": False,
        BEFORE: None,
    }
    if changed.rulings is latest.rulings:
        update["rulings"] = ()
    return changed.model_copy(update=update)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
