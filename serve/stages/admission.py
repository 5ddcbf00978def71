"""Who may wait for a stage: one admission for stages that run here and for those behind a handle.

A queue holds no more than can still be answered in time. Where a newcomer would be late, the oldest of its
own priority make room: simulated, that answers as many in time as refusing the newcomer, sooner, and stays
whole where the stage slows down (docs/decisions/2026-11-29-what-waits-can-be-answered.md).
"""

from __future__ import annotations

from math import inf
from typing import Generic, TypeVar

from contract.errors import DeadlineExceeded, NotReady, Overloaded, RequestError
from serve.settings.stages import BatchRules
from serve.stages.forecast import Forecast
from serve.stages.room import Room, Ticket
from serve.types.priority import OFF_PATH_PRIORITY

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

    __slots__ = ("_closed", "_name", "_rules", "forecast", "off_path", "outstanding", "room")

    def __init__(self, name: str, rules: BatchRules, forecast: Forecast) -> None:
        self._name = name
        self._rules = rules
        self._closed = False
        self.forecast = forecast
        self.room: Room[T] = Room()
        self.outstanding = 0
        self.off_path = 0

    def close(self) -> None:
        """Let nobody in any more."""
        self._closed = True

    def admit(self, ticket: T, count: int, now: float) -> list[T]:
        """Let the first part of a request of `count` items in; return whom it drove out.

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
            ahead = self.room.ahead_of(ticket)
            ends_s = forecast.ends_s(now, ahead + ticket.size, self.room.items + ticket.size)
            if self.outstanding + count > self._rules.max_queue_items:
                gone = self._drive_out_lower(ticket.priority, count)
                if not gone:
                    raise Overloaded(f"the queue of {self._name} is full", retry_after_s=ends_s)
            elif now + ends_s > due_at:
                gone = self._drive_out_older(ticket, now)
                if not gone:
                    raise self.too_late(ticket, ends_s)
            elif ends_s > self._rules.max_queue_s:
                raise Overloaded(f"the queue of {self._name} is too long", retry_after_s=ends_s)
            ticket.expected_at = now + ends_s
        if due_at != inf:
            forecast.given(due_at - now)
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

    def too_late(self, ticket: T, ends_s: float = 1.0) -> RequestError:
        """Return what a request is told that cannot be answered in time."""
        if ticket.soft:
            return Overloaded(f"{self._name} could not answer within the objective", retry_after_s=ends_s)
        return DeadlineExceeded(f"the deadline would pass in the queue of {self._name}")

    def _drive_out_lower(self, priority: int, count: int) -> list[T]:
        """Take out so many items of lower priority; nobody where there are not as many."""
        room = self.room
        if room.items - room.above(priority + 1) < count:
            return []
        gone: list[T] = []
        freed = 0
        while freed < count and room.lowest() > priority:
            if (oldest := room.pop_oldest(room.lowest())) is not None:
                gone.append(oldest)
                freed += oldest.size
        return gone

    def _drive_out_older(self, ticket: T, now: float) -> list[T]:
        """Take out the oldest of a newcomer's level until it is in time; nobody where that takes too many.

        More items than the newcomer has are never given up for it, but for the size of the last of them.
        """
        room, forecast = self.room, self.forecast
        ahead, size = room.ahead_of(ticket), ticket.size
        due_s = ticket.due_at - now
        waiting = room.items + size
        needed = next(
            (
                less
                for less in range(1, min(size, ahead - room.above(ticket.priority)) + 1)
                if forecast.ends_s(now, ahead - less + size, waiting - less) <= due_s
            ),
            0,
        )
        gone: list[T] = []
        while needed > 0 and (oldest := room.pop_oldest(ticket.priority)) is not None:
            gone.append(oldest)
            needed -= oldest.size
        return gone
