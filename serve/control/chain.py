"""The revisions of a state as a hash chain: each says the hash of the one before it, as that was written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from contract.files import sha256_of_json
from serve.control.revision_store import BEFORE, below
from serve.control.roster_store import RosterStore
from serve.storage.numbered import NotJson, Numbered
from serve.storage.objects import Objects, open_objects


@dataclass(frozen=True)
class Chain:
    """What was found of the revisions of one family.

    Attributes:
        place: of the family in the state; empty: its root.
        length: revisions that are there.
        since: the first one that says a hash; 0: none does, since an earlier release wrote them all.
        breaks: where the chain is broken, in words.
        head_sha256: of the last one, for who keeps it elsewhere: nothing in the state vouches for the last.
    """

    place: str
    length: int
    since: int
    breaks: tuple[str, ...]
    head_sha256: str


def check_chain(objects: Objects, place: str = "") -> Chain:
    """Return what holds of the revisions of the family at that place. Raises OSError."""
    documents = Numbered(objects, below(place, "revisions"))
    numbers = documents.numbers()
    breaks: list[str] = []
    since, before_sha256, before = 0, "", 0
    for number in numbers:
        if number != before + 1:
            breaks.append(f"revision {before + 1} is missing, before {documents.where(number)}")
        try:
            value: Any = documents.read(number)
            here = sha256_of_json(value)
            said = value.get(BEFORE)
        except (NotJson, ValueError, AttributeError):
            breaks.append(f"revision {number} is not readable: {documents.where(number)}")
            before, before_sha256 = number, ""
            continue
        if said is None and since:
            breaks.append(f"revision {number} says no hash, and revision {since} before it does")
        if said is not None:
            since = since or number
            if before == number - 1 and said != before_sha256:
                breaks.append(
                    f"revision {before} is not what it was when revision {number} was written: its hash is "
                    f"{before_sha256 or 'unknown'}, and {number} says {said}"
                )
        before, before_sha256 = number, here
    return Chain(place, len(numbers), since, tuple(breaks), before_sha256)


def check_chains(state: str) -> Iterator[Chain]:
    """Yield the chain of every family that a state has ever had. Raises OSError, PolicyError."""
    places = {""}
    for roster in RosterStore(state).history():
        places |= {seat.place for seat in roster.seats}
    objects = open_objects(state)
    for place in sorted(places):
        found = check_chain(objects, place)
        if found.length:
            yield found
