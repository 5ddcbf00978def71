"""Which families a gateway serves: one immutable, numbered roster after the other."""

from __future__ import annotations

import re
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from contract.errors import PolicyError
from contract.records import Frozen, parse_record

SCHEMA = 1
_SERVED_AS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_TAKEN = frozenset({"cascade", "stats"})
"""Names of models that mean something else on every gateway."""
OF = "of/"
"""Below it lie the states of families that have not the root of the state to themselves."""


def check_served_name(name: str) -> str:
    """Return the name that a family is to be served under. Raises ValueError where it cannot be one."""
    if _SERVED_AS.fullmatch(name) is None:
        raise ValueError(f"{name!r} has other characters than letters, digits, '_', '.', '-', or over 64")
    if name in _TAKEN:
        raise ValueError(f"no family can be served as {name!r}: that name means something else")
    return name


def served_name(family: str) -> str:
    """Return the name that a family is served under where none is given: its own, made fit for one."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", family).strip("-._")[:64].strip("-._")
    return f"{name}-family" if name in _TAKEN else name or "family"


class Seat(Frozen):
    """A family that is served.

    Attributes:
        name: that it is served under.
        place: where its revisions and trials lie below the state; empty: at its root.
    """

    name: str
    place: str = ""

    @field_validator("name")
    @classmethod
    def _fit(cls, name: str) -> str:
        return check_served_name(name)

    @field_validator("place")
    @classmethod
    def _inside(cls, place: str) -> str:
        if place and _SERVED_AS.fullmatch(place.removeprefix(OF)) is None:
            raise ValueError(f"{place!r} is no place below the state")
        return place


class Roster(Frozen):
    """The families in force. Numbers start at 1 and grow by 1; a number is written once.

    Attributes:
        seats: in the order in which they came.
        plain: which one is asked by short names too, such as `cascade`; while it is away, nobody is.
            None: the only one is.
        started: names that the last start asked for, whatever was loaded and unloaded since.
        seed: whether a start of the gateway wrote it.
    """

    schema_: int = Field(default=SCHEMA, alias="schema")
    number: int = Field(ge=1)
    created_at: str
    reason: str = ""
    seats: tuple[Seat, ...] = ()
    plain: str | None = None
    started: tuple[str, ...] = ()
    seed: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.names)) != len(self.seats):
            raise ValueError("two families have one name")
        if len({seat.place for seat in self.seats}) != len(self.seats):
            raise ValueError("two families have one place")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The names that families are served under."""
        return tuple(seat.name for seat in self.seats)

    def seat(self, name: str) -> Seat | None:
        """Return the family of that name, if it is served."""
        return next((seat for seat in self.seats if seat.name == name), None)

    def with_seat(self, seat: Seat) -> Roster:
        """Return the same with one more; whoever was alone keeps its short names.

        Raises PolicyError where another family has that name or place.
        """
        if any(seat.name == there.name or seat.place == there.place for there in self.seats):
            raise PolicyError(f"a family is served as {seat.name} already, or another has its place")
        plain = self.names[0] if self.plain is None and len(self.seats) == 1 else self.plain
        return self.model_copy(update={"seats": (*self.seats, seat), "plain": plain})

    def without(self, name: str) -> Roster:
        """Return the same without that one; short names that were its own stay reserved for it."""
        return self.model_copy(update={"seats": tuple(seat for seat in self.seats if seat.name != name)})

    def dump(self) -> dict[str, Any]:
        """Return the JSON form."""
        return self.model_dump(mode="json", by_alias=True)


def parse_roster(raw: Any, *, where: object | None = None) -> Roster:
    """Return a roster from its JSON form. Raises PolicyError naming the file and rule."""
    return parse_record(Roster, raw, where=where, error=PolicyError, newest=SCHEMA)
