"""The micro-batcher: collects requests while its worker is busy, in bounded room, and runs them together.

No timer closes a batch: an idle worker starts at once, a busy one finds everything that arrived meanwhile, so
batches grow with the load. A request that was given up or came too late is dropped before it costs anything;
when a batch fails, its requests run again one by one, so that only the bad one fails.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from contract.errors import DeadlineExceeded, NotReady, Overloaded, RequestError, StageFailed
from serve.settings.stages import BatchRules
from serve.types.clock import Clock
from serve.types.recorder import BatchRecord, Recorder

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Group(Generic[Item, Result]):
    """The items of one request, at most `max_items`, that run together."""

    __slots__ = ("deadline_at", "enqueued_at", "future", "items", "outcome", "queue_s")

    def __init__(
        self, items: Sequence[Item], deadline_at: float | None, now: float, future: asyncio.Future[Result]
    ) -> None:
        self.items = items
        self.deadline_at = deadline_at
        self.enqueued_at = now
        self.future = future
        self.outcome: Result | BaseException | None = None
        self.queue_s = 0.0


class MicroBatcher(Generic[Item, Result]):
    """Runs `run` over batches of groups.

    Args:
        name: variant, for logs and records.
        run: takes the items of several groups, group by group, and returns one result per group, in order.
        rules: bounds.
        recorder: told of every batch.
        clock: seconds; deadlines are on it.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[Sequence[Sequence[Item]]], Sequence[Result]],
        rules: BatchRules,
        recorder: Recorder,
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        self._name = name
        self._run = run
        self._rules = rules
        self._recorder = recorder
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._inbox: queue.SimpleQueue[_Group[Item, Result] | None] = queue.SimpleQueue()
        self._backlog: deque[_Group[Item, Result]] = deque()
        self._flushing = False
        self._outstanding = 0
        self._seconds_per_item = 0.0
        self._closed = False
        self._idle: asyncio.Future[None] | None = None
        self._threads: list[threading.Thread] = []

    @property
    def outstanding(self) -> int:
        """Items waiting or running."""
        return self._outstanding

    async def submit(self, items: Sequence[Item], deadline_at: float | None) -> list[Result]:
        """Run the items of one request; one result per chunk of at most `max_items`, in order.

        Raises:
            Overloaded: the room is taken, or the expected wait is beyond the rules.
            DeadlineExceeded: the deadline is over, or would be before its turn.
            NotReady: closed.
            StageFailed: `run` failed on these very items.
        """
        now = self._clock()
        self._admit(len(items), deadline_at, now)
        loop = self._loop or self._start()
        self._outstanding += len(items)
        if len(items) <= self._rules.max_items:
            return [await self._enqueue(items, deadline_at, now, loop)]
        return await self._submit_in_chunks(items, deadline_at, loop)

    async def _submit_in_chunks(
        self, items: Sequence[Item], deadline_at: float | None, loop: asyncio.AbstractEventLoop
    ) -> list[Result]:
        """Keep one chunk more than there are lanes inside, so that small requests get their turn between."""
        size, count = self._rules.max_items, len(items)
        inside: deque[asyncio.Future[Result]] = deque()
        results: list[Result] = []
        given = 0
        try:
            while given < count:
                if len(inside) > self._rules.lanes:
                    results.append(await inside[0])
                    inside.popleft()
                inside.append(self._enqueue(items[given : given + size], deadline_at, self._clock(), loop))
                given = min(given + size, count)
            while inside:
                results.append(await inside[0])
                inside.popleft()
        finally:
            for future in inside:
                future.cancel()
            self._leave(count - given)
        return results

    async def close(self) -> None:
        """Refuse new requests, finish those inside, and end the threads."""
        self._closed = True
        if self._outstanding and self._loop is not None:
            self._idle = self._loop.create_future()
            await self._idle
        for _ in self._threads:
            self._inbox.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        self._threads.clear()

    def _admit(self, count: int, deadline_at: float | None, now: float) -> None:
        if self._closed:
            raise NotReady(f"{self._name} is closing")
        rules = self._rules
        wait_s = self._outstanding * self._seconds_per_item / rules.lanes
        if self._outstanding and self._outstanding + count > rules.max_queue_items:
            raise Overloaded(f"the queue of {self._name} is full", retry_after_s=wait_s)
        if wait_s > rules.max_queue_s:
            raise Overloaded(f"the queue of {self._name} is too long", retry_after_s=wait_s)
        if deadline_at is not None and now + wait_s >= deadline_at:
            raise DeadlineExceeded(f"the deadline would pass in the queue of {self._name}")

    def _start(self) -> asyncio.AbstractEventLoop:
        self._loop = asyncio.get_running_loop()
        if self._rules.run_in == "thread":
            for lane in range(self._rules.lanes):
                thread = threading.Thread(
                    target=self._work, args=(self._loop,), name=f"{self._name}-{lane}", daemon=True
                )
                thread.start()
                self._threads.append(thread)
        return self._loop

    def _enqueue(
        self, items: Sequence[Item], deadline_at: float | None, now: float, loop: asyncio.AbstractEventLoop
    ) -> asyncio.Future[Result]:
        group = _Group[Item, Result](items, deadline_at, now, loop.create_future())
        if self._rules.run_in == "thread":
            self._inbox.put(group)
        else:
            self._backlog.append(group)
            if not self._flushing:
                self._flushing = True
                loop.call_soon(self._flush)
        return group.future

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """One lane: take a batch, run it, hand it back to the loop."""
        held: _Group[Item, Result] | None = None
        while True:
            first = held or self._inbox.get()
            held = None
            if first is None:
                return
            batch, count = [first], len(first.items)
            closes_at = self._clock() + self._rules.linger_s
            while count < self._rules.max_items:
                try:
                    patience = closes_at - self._clock() if self._rules.linger_s else 0.0
                    following = (
                        self._inbox.get(timeout=patience) if patience > 0 else self._inbox.get_nowait()
                    )
                except queue.Empty:
                    break
                if following is None:
                    self._inbox.put(None)
                    break
                if count + len(following.items) > self._rules.max_items:
                    held = following
                    break
                batch.append(following)
                count += len(following.items)
            record = self._execute(batch)
            try:
                loop.call_soon_threadsafe(self._deliver, batch, record)
            except RuntimeError:  # the loop closed under us: nobody waits any more
                return

    def _flush(self) -> None:
        """Run one batch on the loop itself."""
        batch = [self._backlog.popleft()]
        count = len(batch[0].items)
        while self._backlog and count + len(self._backlog[0].items) <= self._rules.max_items:
            batch.append(self._backlog.popleft())
            count += len(batch[-1].items)
        self._flushing = bool(self._backlog)
        if self._flushing and self._loop is not None:
            self._loop.call_soon(self._flush)
        self._deliver(batch, self._execute(batch))

    def _execute(self, batch: list[_Group[Item, Result]]) -> BatchRecord | None:
        """Run the groups that somebody still waits for; leave each outcome in its group."""
        now = self._clock()
        live = []
        for group in batch:
            if group.future.done():
                continue
            if group.deadline_at is not None and now >= group.deadline_at:
                group.outcome = DeadlineExceeded(f"the deadline passed in the queue of {self._name}")
                continue
            group.queue_s = now - group.enqueued_at
            live.append(group)
        if not live:
            return None
        cpu = time.thread_time()
        try:
            for group, result in zip(live, self._run([g.items for g in live]), strict=True):
                group.outcome = result
        except Exception as problem:  # noqa: BLE001 - whatever a model raises must end in its requests
            self._run_singly(live, problem)
        return BatchRecord(
            self._name,
            sum(len(group.items) for group in live),
            [group.queue_s for group in live],
            self._clock() - now,
            time.thread_time() - cpu,
        )

    def _run_singly(self, groups: list[_Group[Item, Result]], problem: Exception) -> None:
        for group in groups:
            if len(groups) > 1:
                try:
                    group.outcome = self._run([group.items])[0]
                    continue
                except Exception as own:  # noqa: BLE001 - as above
                    problem = own
            if isinstance(problem, RequestError):
                group.outcome = problem
            else:
                log.error("%s failed on a request", self._name, exc_info=problem)
                group.outcome = StageFailed(f"{self._name} failed on this request")

    def _deliver(self, batch: list[_Group[Item, Result]], record: BatchRecord | None) -> None:
        """On the loop: settle the futures, learn the pace, report."""
        for group in batch:
            self._leave(len(group.items))
            future, outcome = group.future, group.outcome
            if future.done():
                continue
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            elif outcome is not None:
                future.set_result(outcome)
            else:
                future.cancel()
        if record is not None:
            pace = record.inference_s / record.items
            known = self._seconds_per_item
            self._seconds_per_item = pace if known == 0.0 else known + 0.1 * (pace - known)
            self._recorder.batch(record)

    def _leave(self, count: int) -> None:
        self._outstanding -= count
        if self._idle is not None and not self._outstanding and not self._idle.done():
            self._idle.set_result(None)
