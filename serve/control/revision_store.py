"""The live state on disk: numbered revisions in a state directory, each written once and never changed."""

from __future__ import annotations

import json
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from contract.errors import PolicyError, SluiceError
from contract.files import read_json
from contract.live import FamilyReference, Revision, parse_revision
from contract.policy import Policy

_DIGITS = 8
MAX_REASON = 200


class RevisionTaken(SluiceError):
    """Another writer committed that number first; read the latest revision and decide again."""


class StateDirectory:
    """Revisions `00000001.json`, `00000002.json` ... in `folder/revisions`; several may read and write."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "revisions"

    def latest(self) -> Revision | None:
        """Return the newest revision; None before the first. Raises PolicyError when unreadable."""
        numbers = self._numbers()
        return self.read(numbers[-1]) if numbers else None

    def newer_than(self, number: int) -> Revision | None:
        """Return the latest revision if it is newer; costs one `stat` when it is not."""
        if not self._path(number + 1).exists():
            return None
        return self.latest()

    def read(self, number: int) -> Revision:
        """Return one revision.

        Raises:
            PolicyError: there is no such number, or the file is not a revision.
        """
        path = self._path(number)
        revision = parse_revision(read_json(path, error=PolicyError), where=path)
        if revision.number != number:
            raise PolicyError(f"it says it is revision {revision.number}", where=path)
        return revision

    def history(self) -> list[Revision]:
        """Return all revisions, oldest first."""
        return [self.read(number) for number in self._numbers()]

    def commit(self, revision: Revision) -> None:
        """Write a revision under its number, complete or not at all.

        Raises:
            RevisionTaken: the number exists.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        target = self._path(revision.number)
        temporary = self._folder / f".{revision.number}.{secrets.token_hex(4)}.tmp"
        try:
            with temporary.open("w", encoding="utf-8") as file:
                json.dump(revision.dump(), file, indent=2, ensure_ascii=False, allow_nan=False)
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, target)
        except FileExistsError:
            raise RevisionTaken(f"revision {revision.number} was taken by another writer") from None
        finally:
            temporary.unlink(missing_ok=True)

    def _numbers(self) -> list[int]:
        if not self._folder.is_dir():
            return []
        return sorted(int(path.stem) for path in self._folder.glob("*.json") if path.stem.isdigit())

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:0{_DIGITS}}.json"


def first_revision(policy: Policy, family: FamilyReference, reason: str) -> Revision:
    """Return the revision that a state directory begins with."""
    return Revision(
        number=1,
        created_at=_now(),
        reason=reason,
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
    }
    if changed.ruling is latest.ruling:
        update["ruling"] = None
    return changed.model_copy(update=update)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
