"""Who may wait for a stage: one admission for stages that run here and for those behind a handle.

A queue holds no more than can still be answered in time. Where a newcomer would be late, the oldest of its
own priority make room: simulated, that answers as many in time as refusing the newcomer, sooner, and stays
whole where the stage slows down (docs/decisions/2026-11-29-what-waits-can-be-answered.md).
"""

from __future__ import annotations

from math import inf
from random import Random
from typing import Generic, TypeVar

from contract.errors import DeadlineExceeded, NotReady, Overloaded, RequestError
from serve.settings.stages import BatchRules
from serve.stages.forecast import Forecast
from serve.stages.room import Room, Ticket
from serve.types.priority import OFF_PATH_PRIORITY

_COUNTED = 256
_SPREAD_S = 10.0

T = TypeVar("T", bound=Ticket)


class Admission(Generic[T]):
    """The queue of one stage. Not safe for threads.

    Args:
        name: variant, for the texts of refusals.
        rules: bounds.
        forecast: when what waits will be answered.

    Attributes:
        room: what waits.
        outstanding: items that wait or run, parts of large requests that are not in the room yet included.
        off_path: those among them that no client waits for.
    """

    __slots__ = (
        "_closed", "_let_in", "_name", "_random", "_rules", "_turned_away", "forecast", "off_path",
        "outstanding", "room",
    )  # fmt: skip

    def __init__(self, name: str, rules: BatchRules, forecast: Forecast) -> None:
        self._name = name
        self._rules = rules
        self._closed = False
        self._let_in = 0
        self._turned_away = 0
        self._random = Random(name)
        self.forecast = forecast
        self.room: Room[T] = Room()
        self.outstanding = 0
        self.off_path = 0

    def close(self) -> None:
        """Let nobody in any more."""
        self._closed = True

    def admit(self, ticket: T, count: int, now: float) -> list[T]:
        """Let the first part of a request of `count` items in; return whom it drove out.

        A stage that is not idle judges all of a request, also what is not in the room yet.
        An idle stage takes whatever comes: what is known of its pace might be wrong, and would stay so. One
        that holds only what no client waits for is idle to clients.

        Raises:
            Overloaded: the room is taken by its equals, the expected wait is beyond the rules, or it could
                not be answered by the time that it is due.
            DeadlineExceeded: the same, where that is its deadline.
            NotReady: closed.
        """
        if self._closed:
            raise NotReady(f"{self._name} is closing")
        deadline_at = ticket.deadline_at
        if deadline_at is not None and now >= deadline_at:
            raise DeadlineExceeded(f"the deadline would pass in the queue of {self._name}")
        gone: list[T] = []
        forecast = self.forecast
        due_at = ticket.due_at
        off_path = ticket.priority == OFF_PATH_PRIORITY
        if self.outstanding > (0 if off_path else self.off_path):
            size = ticket.size
            ahead, waiting = self.room.ahead_of(ticket), self.room.items
            ends_s = first_s = forecast.ends_s(now, ahead + size, waiting + size)
            if count > size:
                ends_s = forecast.ends_s(now, ahead + count, waiting + count)
            if self.outstanding + count > self._rules.max_queue_items:
                gone = self._drive_out_lower(ticket, count)
                if not gone:
                    raise self._overloaded("the queue of {} is full", ends_s)
            elif now + ends_s > due_at:
                gone = self._drive_out_older(ticket, count, now)
                if not gone:
                    raise self.too_late(ticket, ends_s)
            elif ends_s > self._rules.max_queue_s:
                raise self._overloaded("the queue of {} is too long", ends_s)
            ticket.expected_at = now + first_s
            self._let_in += 1
        if due_at != inf:
            forecast.given(due_at - now)
        ticket.whole = count
        self.outstanding += count
        if off_path:
            self.off_path += count
        if not self.room.push(ticket):
            gone += self.late(now)
        return gone

    def leave(self, count: int, priority: int) -> None:
        """So many items of a level wait and run no more."""
        self.outstanding -= count
        if priority == OFF_PATH_PRIORITY:
            self.off_path -= count

    def wait_share(self, now: float, within_s: float) -> float:
        """Return the share of `within_s`, less the time of its own service, that a newcomer would wait.

        What no client waits for makes nobody wait. The margin of the forecast is left out: it would tell of
        load where there is none.
        """
        if self.outstanding <= self.off_path:
            return 0.0
        forecast = self.forecast
        waiting = self.room.items + 1
        service_s = forecast.pace.of(1)
        wait_s = max(forecast.ends_s(now, waiting, waiting) - forecast.margin_s - service_s, 0.0)
        spare_s = within_s - service_s
        return wait_s / (spare_s if spare_s > 0 else within_s)

    def late(self, now: float) -> list[T]:
        """Take out who can no longer be answered in time."""
        room, forecast = self.room, self.forecast
        items = room.items
        # All are in time if the last of them is answered before the first is due.
        if not items or now + forecast.ends_s(now, items, items) <= room.first_due():
            return []

        def ends(place: int) -> float:
            return now + forecast.ends_s(now, place, room.items)

        return room.shed(ends) if room.is_tight(ends) else []

    def take(self, now: float, max_items: int, max_weight: float = inf) -> tuple[list[T], list[T]]:
        """Take what runs together next, and who can no longer be answered in time or was given up.

        The last of the late ones runs all the same where nothing else waits: a stage whose pace was
        misjudged would else never learn better.
        """
        gone = self.late(now)
        if gone and not self.room.items:
            last = max(gone, key=lambda one: one.due_at)
            if last.due_at > now and not last.future.done():
                gone.remove(last)
                return [last], gone
        return self.room.take(max_items, max_weight, gone), gone

    def too_late(self, ticket: T, ends_s: float | None = None) -> RequestError:
        """Return what a request is told that cannot be answered in time, or gave way to another."""
        if not ticket.soft:
            return DeadlineExceeded(f"the deadline would pass in the queue of {self._name}")
        if ends_s is None:
            ends_s = min(self.forecast.pace.of(self.room.items), self._rules.max_queue_s)
        return self._overloaded("{} has no room in which this would be answered in time", ends_s)

    def _overloaded(self, message: str, ends_s: float) -> Overloaded:
        """Return a refusal that sends clients back once the queue is worked off, spread by their number.

        Asked for n times what it lets in, a stage spreads them over n seconds.
        """
        if self._turned_away >= _COUNTED:
            self._turned_away //= 2
            self._let_in //= 2
        self._turned_away += 1
        excess = min(1 + self._turned_away / max(self._let_in, 1), _SPREAD_S)
        return Overloaded(message.format(self._name), retry_after_s=ends_s + self._random.random() * excess)

    def _drive_out_lower(self, ticket: T, count: int) -> list[T]:
        """Take out so many items of lower priority; nobody where there are not as many.

        With the first part of a request all of it goes, what has not been put in yet too.
        """
        room = self.room
        levels = [] if _has_an_answer(ticket) else room.levels_below(ticket.priority)
        if sum(one.whole for level in levels for one in room.may_go(level)) < count:
            return []
        gone: list[T] = []
        freed = 0
        for level in levels:
            while freed < count and (oldest := room.pop_oldest(level)) is not None:
                oldest.soft = True
                gone.append(oldest)
                freed += oldest.whole
        return gone

    def _drive_out_older(self, ticket: T, count: int, now: float) -> list[T]:
        """Take out the oldest of a newcomer's level until it is in time; nobody where that takes too many.

        More items than the newcomer has are never given up for it, but for the size of the last of them.
        """
        if _has_an_answer(ticket):
            return []
        room, forecast = self.room, self.forecast
        ahead = room.ahead_of(ticket)
        due_s = ticket.due_at - now
        waiting = room.items + count
        may_go = sum(one.size for one in room.may_go(ticket.priority) if one.order <= ticket.order)
        needed = next(
            (
                less
                for less in range(1, min(count, may_go) + 1)
                if forecast.ends_s(now, ahead - less + count, waiting - less) <= due_s
            ),
            0,
        )
        gone: list[T] = []
        while needed > 0 and (oldest := room.pop_oldest(ticket.priority)) is not None:
            oldest.soft = True
            gone.append(oldest)
            needed -= oldest.size
        return gone


def _has_an_answer(ticket: Ticket) -> bool:
    """Return whether it is an escalation: where it misses the objective, the answer in hand stands."""
    return ticket.soft and ticket.due_at == ticket.deadline_at
