"""What waits, its order, and who goes when not all can be answered in time."""

from __future__ import annotations

import asyncio
import itertools
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.stages.room import Room, Ticket

pytestmark = pytest.mark.anyio

levels = st.integers(1, 9)
jobs = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 20), levels), max_size=9)


class Left:
    """A future that nobody waits on; done once given up."""

    def __init__(self) -> None:
        self.gone = False

    def done(self) -> bool:
        """Whether it was given up."""
        return self.gone


def ticket(size: int = 1, due_at: float = inf, level: int = 5, now: float = 0.0) -> Ticket:
    """A ticket that somebody waits for."""
    return Ticket(size, None, now, Left(), due_at, level)  # type: ignore[arg-type]


def in_time(held: list[Ticket]) -> bool:
    """Whether all are answered in time at one item a second, in this order."""
    done = itertools.accumulate(one.size for one in held)
    return all(at <= one.due_at for at, one in zip(done, held, strict=True))


@given(jobs)
def test_order_is_by_priority_then_due_then_arrival(given_jobs: list[tuple[int, int, int]]) -> None:
    """What is taken one by one is sorted, and the counts are right all the way."""
    room: Room[Ticket] = Room()
    tickets = [ticket(size, due, level) for size, due, level in given_jobs]
    for count, one in enumerate(tickets):
        ahead = [t for t in tickets[:count] if (t.priority, t.order) <= (one.priority, one.order)]
        assert room.ahead_of(one) == sum(t.size for t in ahead)
        assert room.push(one) == (
            len(ahead) == count
            or all(
                t.priority <= one.priority and (t.priority, t.order) <= (one.priority, one.order)
                for t in tickets[:count]
            )
        )
    assert room.items == sum(one.size for one in tickets)
    taken = []
    while batch := room.take(1, inf, []):
        taken += batch
    assert taken == sorted(tickets, key=lambda one: (one.priority, one.order))
    assert room.items == 0


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 8)), max_size=8))
def test_as_few_go_as_must(given_jobs: list[tuple[int, int]]) -> None:
    """No way of leaving out fewer would answer the rest in time: checked against every subset."""
    room: Room[Ticket] = Room()
    for size, due in given_jobs:
        room.push(ticket(size, due))
    everybody = list(room)
    gone = room.shed(float)
    kept = list(room)
    assert in_time(kept)
    assert sorted(map(id, kept + gone)) == sorted(map(id, everybody))
    assert room.items == sum(one.size for one in kept)
    most = max(
        sum(chosen)
        for chosen in itertools.product((False, True), repeat=len(everybody))
        if in_time(list(itertools.compress(everybody, chosen)))
    )
    assert len(kept) == most


@given(jobs)
def test_nobody_goes_for_one_of_lower_priority(given_jobs: list[tuple[int, int, int]]) -> None:
    """Who stays of the upper levels is the same whether the lower ones are there or not."""
    upper, both = Room[Ticket](), Room[Ticket]()
    tickets = [ticket(size, due, level) for size, due, level in given_jobs]
    for one in tickets:
        both.push(one)
        if one.priority < 5:
            upper.push(one)
    upper.shed(float)
    both.shed(float)
    assert [one for one in both if one.priority < 5] == list(upper)


def test_of_one_size_the_oldest_goes() -> None:
    """Three wait, two can be answered in time: the first to come gives way."""
    room: Room[Ticket] = Room()
    tickets = [ticket(due_at=2.0 + at / 10) for at in range(3)]
    for one in tickets:
        room.push(one)
    assert room.is_tight(float)
    assert room.shed(float) == tickets[:1]
    assert not room.is_tight(float)


def test_parts_of_a_request_that_runs_stay() -> None:
    """What has run would be lost: a further part goes only when its own deadline is lost."""
    room: Room[Ticket] = Room()
    part, small = ticket(3, 1.0), ticket(1, 3.0)
    part.stay(1.0)
    for one in (part, small):
        room.push(one)
    assert room.shed(float) == [small]


def test_those_given_up_are_found() -> None:
    """A ticket whose client left is in no batch, and is handed back to be forgotten."""
    room: Room[Ticket] = Room()
    left, stays = ticket(), ticket()
    for one in (left, stays):
        room.push(one)
    left.future.gone = True  # type: ignore[attr-defined]
    gone: list[Ticket] = []
    assert room.take(5, inf, gone) == [stays]
    assert gone == [left]


async def test_a_ticket_takes_an_ordinary_future() -> None:
    """The deadline is the due time where it comes before the objective."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    assert Ticket(1, 5.0, 0.0, future, 7.0).due_at == 5.0
    assert not Ticket(1, 5.0, 0.0, future, 7.0).soft
    assert Ticket(1, 7.0, 0.0, future, 5.0).soft
    assert Ticket(1, None, 0.0, future).due_at == inf
