"""What waits for a stage, in the order in which it is answered: by priority, then whose time ends first.

Who can no longer be answered in time is found by Moore and Hodgson's algorithm: the fewest go, and of those
of one size the oldest.
"""

from __future__ import annotations

import asyncio
import heapq
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterator
from math import inf
from typing import Any, Generic, TypeVar

from serve.types.priority import DEFAULT_PRIORITY, OFF_PATH_PRIORITY


class Ticket:
    """One request, or a part of one, at a stage.

    Attributes:
        size: its items.
        priority: level, 1 the highest.
        deadline_at: clock second after which nobody wants it, if any.
        due_at: clock second by which it must be answered to be worth a place in the queue; inf: none.
        order: who comes first within a level.
        enqueued_at: clock second of its coming.
        expected_at: clock second at which it was expected to be answered when it was let in; 0: not asked.
        soft: whether that second is the objective's, not the deadline's.
        stays: whether it is a further part of a request that runs already: what ran would be lost with it.
        weight: bytes, where a call is bounded by them.
        whole: items of the whole request, where this is its first part, 0 for a further part.
        future: done once answered or given up.
    """

    __slots__ = (
        "deadline_at", "due_at", "enqueued_at", "expected_at", "future", "order", "priority", "size", "soft",
        "stays", "weight", "whole",
    )  # fmt: skip

    def __init__(
        self,
        size: int,
        deadline_at: float | None,
        now: float,
        future: asyncio.Future[Any],
        due_at: float | None = None,
        priority: int = DEFAULT_PRIORITY,
    ) -> None:
        self.size = size
        self.priority = priority
        self.deadline_at = deadline_at
        hard = inf if deadline_at is None else deadline_at
        self.soft = due_at is not None and due_at <= hard
        self.due_at = self.order = hard if due_at is None or due_at > hard else due_at
        self.enqueued_at = now
        self.expected_at = 0.0
        self.stays = False
        self.weight = 0
        self.whole = size
        self.future = future

    def stay(self, order: float) -> None:
        """Make it a further part of a request that runs already, in order as if it had come now."""
        self.stays = True
        self.whole = 0
        self.order = order
        self.due_at = inf if self.deadline_at is None else self.deadline_at


T = TypeVar("T", bound=Ticket)
Ends = Callable[[int], float]
"""Clock second at which an item in that place (1 is the first) will have been answered."""


class Room(Generic[T]):
    """Tickets that wait. Not safe for threads.

    Attributes:
        items: items that wait, of tickets given up too until their turn comes.
    """

    __slots__ = ("_active", "_items", "_levels", "items")

    def __init__(self) -> None:
        self._levels: tuple[deque[T], ...] = tuple(deque() for _ in range(OFF_PATH_PRIORITY + 1))
        self._items = [0] * (OFF_PATH_PRIORITY + 1)
        self._active: list[int] = []
        self.items = 0

    def push(self, ticket: T) -> bool:
        """Give a ticket its place; return whether it is the last."""
        level = ticket.priority
        queue = self._levels[level]
        if not queue:
            insort(self._active, level)
        last = self._active[-1] == level
        if queue and ticket.order < queue[-1].order:
            queue.insert(bisect_right(queue, ticket.order, key=_order), ticket)
            last = False
        else:
            queue.append(ticket)
        self._items[level] += ticket.size
        self.items += ticket.size
        return last

    def push_front(self, ticket: T) -> None:
        """Put a ticket back that was taken."""
        level = ticket.priority
        if not self._levels[level]:
            insort(self._active, level)
        self._levels[level].appendleft(ticket)
        self._items[level] += ticket.size
        self.items += ticket.size

    def take(self, max_items: int, max_weight: float, gone: list[T]) -> list[T]:
        """Take what runs together next; never cut a ticket. Those that were given up go to `gone`."""
        batch: list[T] = []
        count, weight = 0, 0.0
        while self._active:
            level = self._active[0]
            queue = self._levels[level]
            while queue:
                first = queue[0]
                size = first.size
                if first.future.done():
                    gone.append(first)
                else:
                    if batch and (count + size > max_items or weight + first.weight > max_weight):
                        return batch
                    batch.append(first)
                    count += size
                    weight += first.weight
                queue.popleft()
                self._items[level] -= size
                self.items -= size
            del self._active[0]
        return batch

    def ahead_of(self, ticket: T) -> int:
        """Return the items that would be answered before a ticket that is not in here yet."""
        level = ticket.priority
        queue = self._levels[level]
        ahead = self._items[level]
        if queue and ticket.order < queue[-1].order:
            ahead = sum(other.size for other in queue if other.order <= ticket.order)
        if self._active and self._active[0] < level:
            ahead += self.above(level)
        return ahead

    def above(self, level: int) -> int:
        """Return the items of higher priority than a level."""
        return sum(self._items[1:level])

    def pop_oldest(self, level: int) -> T | None:
        """Take the first of a level that may go: what a request that runs already still waits for stays."""
        queue = self._levels[level]
        first = next(self.may_go(level), None)
        if first is None:
            return None
        queue.remove(first)
        self._items[level] -= first.size
        self.items -= first.size
        if not queue:
            self._active.remove(level)
        return first

    def may_go(self, level: int) -> Iterator[T]:
        """Go through what `pop_oldest` would take."""
        return (one for one in self._levels[level] if not one.stays or one.future.done())

    def levels_below(self, level: int) -> list[int]:
        """Return the levels of lower priority in which something waits, the lowest first."""
        return [one for one in reversed(self._active) if one > level]

    def clear(self) -> list[T]:
        """Take all out."""
        gone = list(self)
        for level in list(self._active):
            self._replace(level, ())
        return gone

    def first_due(self) -> float:
        """Return when the first of those who come first in their levels is due; inf where nobody waits."""
        first = inf
        for level in self._active:
            for ticket in self._levels[level]:
                first = min(first, ticket.due_at)
                if not ticket.stays:
                    break
        return first

    def is_tight(self, ends: Ends) -> bool:
        """Return whether the first or last of a level would be late: cheap, and enough for even sizes."""
        ahead = 0
        for level in self._active:
            queue = self._levels[level]
            if queue[0].stays or queue[-1].stays or ends(ahead + queue[0].size) > queue[0].due_at:
                return True
            ahead += self._items[level]
            if ends(ahead) > queue[-1].due_at:
                return True
        return False

    def shed(self, ends: Ends) -> list[T]:
        """Take out who cannot be answered in time: the fewest, the lowest first, and of one size the oldest.

        Those that were given up go with them.
        """
        gone: list[T] = []
        ahead = 0
        for level in list(self._active):
            kept: dict[int, T] = {}
            sizes: list[tuple[int, int]] = []
            for number, ticket in enumerate(self._levels[level]):
                if ticket.future.done():
                    gone.append(ticket)
                    continue
                kept[number] = ticket
                ahead += ticket.size
                if not ticket.stays:
                    heapq.heappush(sizes, (-ticket.size, number))
                while number in kept and ends(ahead) > ticket.due_at:
                    largest = kept.pop(heapq.heappop(sizes)[1] if sizes else number)
                    gone.append(largest)
                    ahead -= largest.size
            self._replace(level, kept.values())
        return gone

    def _replace(self, level: int, tickets: Any) -> None:
        queue = self._levels[level]
        queue.clear()
        queue.extend(tickets)
        held = sum(ticket.size for ticket in queue)
        self.items += held - self._items[level]
        self._items[level] = held
        if not queue:
            self._active.remove(level)

    def __iter__(self) -> Iterator[T]:
        for level in self._active:
            yield from self._levels[level]


def _order(ticket: Ticket) -> float:
    return ticket.order
