"""The roster of families: which names can be served, and what becomes of them when one comes or goes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import PolicyError
from contract.roster import Roster, Seat, check_served_name, parse_roster, served_name


def roster(*names: str, plain: str | None = None) -> Roster:
    """A roster of families with a place each."""
    seats = tuple(Seat(name=name, place=f"of/{name}") for name in names)
    return Roster(number=3, created_at="now", seats=seats, plain=plain, started=names)


@given(st.text(max_size=200))
def test_whatever_a_family_is_called_it_can_be_served_under_some_name(name: str) -> None:
    """The name fits paths and models, and one that fits already stays."""
    served = served_name(name)
    assert check_served_name(served) == served
    assert served_name(served) == served


@pytest.mark.parametrize("name", ["", "a/b", "../up", "a b", "-a", "cascade", "stats", "x" * 65, "naïve"])
def test_names_that_would_mean_something_else_are_refused(name: str) -> None:
    """No name leaves its folder, is taken for a variant, or for what every gateway has."""
    with pytest.raises(ValueError, match=r"served|characters"):
        check_served_name(name)


def test_who_was_alone_keeps_its_short_names_even_while_it_is_away() -> None:
    """A second one takes nothing from the first; of two that came together none has them."""
    assert roster("a").with_seat(Seat(name="b", place="of/b")).plain == "a"
    assert roster("a", "b").with_seat(Seat(name="c", place="of/c")).plain is None
    away = roster("a", "b", plain="a").without("a")
    assert away.plain == "a"
    assert away.with_seat(Seat(name="a", place="of/a")).plain == "a"
    assert roster("a", "b", plain="a").without("b").plain == "a"
    assert roster().with_seat(Seat(name="b", place="")).plain is None


@pytest.mark.parametrize("seat", [Seat(name="a", place="of/z"), Seat(name="z", place="of/a")])
def test_a_name_or_a_place_is_given_once(seat: Seat) -> None:
    """Whoever comes second is refused, before anything is written."""
    with pytest.raises(PolicyError, match="already"):
        roster("a", "b").with_seat(seat)


def test_it_is_read_as_it_was_written() -> None:
    """With keys that a newer version adds."""
    found = parse_roster(roster("a", "b").dump() | {"later": 1})
    assert (found.names, found.started, found.seat("b")) == (
        ("a", "b"),
        ("a", "b"),
        Seat(name="b", place="of/b"),
    )


@pytest.mark.parametrize(
    "broken",
    [
        {"seats": [{"name": "a"}, {"name": "a", "place": "of/a"}]},
        {"seats": [{"name": "a"}, {"name": "b"}]},
        {"seats": [{"name": "a", "place": "of/../../etc"}]},
        {"seats": [{"name": "a/b"}]},
        {"number": 0},
        {"schema": 2},
    ],
)
def test_a_roster_that_breaks_a_rule_is_refused(broken: dict[str, Any]) -> None:
    """Two of one name or place, a place outside the state, a newer schema."""
    with pytest.raises(PolicyError):
        parse_roster(roster("a").dump() | broken)
