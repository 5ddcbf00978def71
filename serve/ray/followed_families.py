"""Which families a stage replica holds, and how long: what is in force, prepared, or still asked for."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from contract.live import FamilyReference
from serve.control.revision_store import RevisionStore
from serve.storage.reach import Reach
from serve.types.clock import Clock

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Followed:
    """A family that is served, and what of it is needed."""

    name: str
    state: RevisionStore
    references: tuple[FamilyReference, ...] = ()
    number: int = 0
    reach: Reach = field(default_factory=lambda: Reach(log, "the store of revisions"))

    @property
    def needed(self) -> frozenset[str]:
        """Hashes of what is in force and on trial."""
        return frozenset(reference.sha256 for reference in self.references)


class Holds:
    """Why families are held that are not in force: prepared for a commit, or asked for by who is behind.

    Args:
        patience_s: how long one that is out of force may still be asked for.
        clock: seconds.
    """

    def __init__(self, patience_s: float, clock: Clock) -> None:
        self._patience_s = patience_s
        self._clock = clock
        self._kept_until: dict[str, float] = {}
        self._prepared_until: dict[tuple[str, str], float] = {}
        self._forgotten: Counter[str] = Counter()

    def prepare(self, name: str, sha256: str, until: float) -> None:
        """Hold a family until then, for a commit under that name."""
        self._prepared_until[name, sha256] = until

    def committed(self, name: str, hashes: Iterable[str]) -> None:
        """These are in force under that name: they need no other reason."""
        for sha256 in hashes:
            self._prepared_until.pop((name, sha256), None)

    def forgotten(self, name: str) -> int:
        """Return how often what was prepared under that name has been called off."""
        return self._forgotten[name]

    def call_off(self, name: str = "") -> list[tuple[str, str]]:
        """Say that what is prepared under that name, or any, will not be committed; return what it is."""
        found = [key for key in self._prepared_until if name in ("", key[0])]
        self._forgotten.update({key[0] for key in found})
        return found

    def drop(self, prepared: Iterable[tuple[str, str]]) -> None:
        """Hold these no longer."""
        for key in prepared:
            self._prepared_until.pop(key, None)

    def keep_a_while(self, hashes: Iterable[str]) -> None:
        """Hold families that are out of force as long as a request lasts that asks for them."""
        until = self._clock() + self._patience_s
        for sha256 in hashes:
            self._kept_until[sha256] = max(until, self._kept_until.get(sha256, until))

    def now(self) -> frozenset[str]:
        """Return what is held now; what was held long enough is let go of."""
        now = self._clock()
        self._kept_until = {s: until for s, until in self._kept_until.items() if until > now}
        self._prepared_until = {key: until for key, until in self._prepared_until.items() if until > now}
        return frozenset(self._kept_until).union(sha256 for _, sha256 in self._prepared_until)
