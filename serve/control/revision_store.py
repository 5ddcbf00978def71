"""The live state: numbered revisions that every node sees, each written once and never changed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from contract.errors import PolicyError, SluiceError
from contract.live import FamilyReference, Revision, parse_revision
from contract.policy import Policy
from serve.storage.numbered import NotJson, Numbered, NumberTaken
from serve.storage.objects import Objects, open_objects

MAX_REASON = 200


class RevisionTaken(SluiceError):
    """Another writer committed that number first; read the latest revision and decide again."""


class RevisionStore:
    """Revisions below `revisions` of a store; several may read and write.

    Every method raises OSError when the store cannot be asked.

    Args:
        objects: the store.
        place: of the family that they are of, below the store; empty: at its root.
    """

    def __init__(self, objects: Objects, place: str = "") -> None:
        self._documents = Numbered(objects, below(place, "revisions"))

    def latest(self) -> Revision | None:
        """Return the newest revision; None before the first. Raises PolicyError when unreadable."""
        number = self._documents.latest()
        return self.read(number) if number else None

    def newer_than(self, number: int) -> Revision | None:
        """Return the latest revision if it is newer; costs one look at the store when it is not."""
        newer = self._documents.newer_than(number)
        return None if newer is None else self.read(newer)

    def read(self, number: int) -> Revision:
        """Return one revision.

        Raises:
            PolicyError: there is no such number, or what is there is not that revision.
        """
        where = self._documents.where(number)
        try:
            revision = parse_revision(self._documents.read(number), where=where)
        except FileNotFoundError:
            raise PolicyError("there is no such revision", where=where) from None
        except NotJson as problem:
            raise PolicyError(str(problem), where=where) from None
        if revision.number != number:
            raise PolicyError(f"it says it is revision {revision.number}", where=where)
        return revision

    def history(self) -> list[Revision]:
        """Return all revisions, oldest first."""
        return [self.read(number) for number in self._documents.numbers()]

    def commit(self, revision: Revision) -> None:
        """Write a revision under its number, complete or not at all.

        Raises:
            RevisionTaken: the number exists.
        """
        try:
            self._documents.write(revision.number, revision.dump())
        except NumberTaken:
            raise RevisionTaken(f"revision {revision.number} was taken by another writer") from None


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
    }
    if changed.rulings is latest.rulings:
        update["rulings"] = ()
    return changed.model_copy(update=update)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
