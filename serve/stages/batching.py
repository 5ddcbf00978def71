"""The micro-batcher: collects requests while its worker is busy, in bounded room, and runs them together.

No timer closes a batch: an idle worker starts at once, a busy one finds everything that arrived meanwhile, so
batches grow with the load. Where `run` is fast, the event loop is the worker of an idle batcher (`run_now`),
and nothing is handed over. Who waits, in which order, and who no longer can is the admission's
(serve.stages.admission). When a batch fails, its requests run again one by one: only the bad one fails.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from contract.errors import DeadlineExceeded, RequestError, StageBroken, StageFailed
from serve.settings.stages import BatchRules
from serve.stages.admission import Admission
from serve.stages.forecast import BatchForecast
from serve.stages.loop_turn import LoopTurn
from serve.stages.room import Ticket
from serve.types.clock import Clock
from serve.types.current import SPAN
from serve.types.priority import DEFAULT_PRIORITY
from serve.types.recorder import BatchRecord, Recorder

log = logging.getLogger(__name__)

_NO_WAIT = (0.0,)
_LOOKED_AT = 16
"""Of the runs on an idle loop every so-manieth teaches the pace and the share of the processor that they get:
to ask for a thread's time costs as much as to score a text.
"""

Item = TypeVar("Item")
Result = TypeVar("Result")


def _nothing_to_check() -> None:
    """Take it that whatever fails does so for a fault of the request."""


class _Group(Ticket, Generic[Item, Result]):
    """The items of one request, at most `max_items`, that run together."""

    __slots__ = ("items", "outcome", "queue_s", "span")

    def __init__(
        self,
        items: Sequence[Item],
        deadline_at: float | None,
        now: float,
        future: asyncio.Future[Result],
        due_at: float | None = None,
        priority: int = DEFAULT_PRIORITY,
    ) -> None:
        super().__init__(len(items), deadline_at, now, future, due_at, priority)
        self.items = items
        self.outcome: Result | BaseException | None = None
        self.queue_s = 0.0
        self.span = SPAN.get()


class MicroBatcher(Generic[Item, Result]):
    """Runs `run` over batches of groups.

    Args:
        name: variant, for logs and records.
        run: takes the items of several groups, group by group, and returns one result per group, in order.
        rules: bounds.
        recorder: told of every batch.
        check: raises where `run` fails whatever it is given; asked when every request of a batch failed.
        clock: seconds; deadlines are on it.
        turn: what `run_now` may take of a turn of the loop; None: it never runs.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[Sequence[Sequence[Item]]], Sequence[Result]],
        rules: BatchRules,
        recorder: Recorder,
        *,
        check: Callable[[], None] = _nothing_to_check,
        clock: Clock = time.monotonic,
        turn: LoopTurn | None = None,
    ) -> None:
        self._name = name
        self._run = run
        self._check = check
        self._rules = rules
        self._recorder = recorder
        self._clock = clock
        self._turn = turn
        self._loop: asyncio.AbstractEventLoop | None = None
        self._forecast = BatchForecast(rules.max_items, rules.lanes)
        self._admission: Admission[_Group[Item, Result]] = Admission(name, rules, self._forecast)
        self._lock = threading.Lock()
        """Held by whoever touches the admission."""
        self._wakes: queue.SimpleQueue[bool] = queue.SimpleQueue()
        """One for each lane that has something to do again; False ends it."""
        self._idle_lanes = 0
        self._flushing = False
        self._closing = False
        self._nth_now = -1
        self._slow = False
        self._busy_share = 1.0
        self._idle: asyncio.Future[None] | None = None
        self._threads: list[threading.Thread] = []

    @property
    def outstanding(self) -> int:
        """Items waiting or running."""
        return self._admission.outstanding

    def wait_share(self, within_s: float) -> float:
        """Return the share of `within_s` that a newcomer would wait now."""
        with self._lock:
            return self._admission.wait_share(self._clock(), within_s)

    @property
    def hangs(self) -> bool:
        """Whether a batch runs longer than any may."""
        return self._forecast.longest_s(self._clock()) > self._rules.hang_s

    async def submit(
        self,
        items: Sequence[Item],
        deadline_at: float | None,
        due_at: float | None = None,
        priority: int = DEFAULT_PRIORITY,
    ) -> list[Result]:
        """Run the items of one request; one result per chunk of at most `max_items`, in order.

        Args:
            items: of the request.
            deadline_at: clock second after which nobody wants it.
            due_at: clock second by which it must be answered to be worth a place in the queue.
            priority: level, 1 the highest.

        Raises:
            Overloaded: the room is taken, or it could not be answered by `due_at`.
            DeadlineExceeded: the deadline is over, or would be before it is answered.
            NotReady: closed.
            StageFailed: `run` failed on these very items.
        """
        now = self._clock()
        loop = self._loop or self._start()
        count, most = len(items), self._rules.max_items
        if count > most:  # no part shall hold up what comes meanwhile for longer than a batch may
            most = min(most, self._forecast.limit)
        first = _Group[Item, Result](
            items if count <= most else items[:most], deadline_at, now, loop.create_future(), due_at, priority
        )
        with self._lock:
            gone = self._admission.admit(first, count, now)
            wake = self._idle_lanes > 0
            if wake:
                self._idle_lanes -= 1
        if gone:
            self._refuse(gone)
        self._wake(wake, loop)
        if count <= most:
            return [await first.future]
        return await self._submit_in_chunks(items, first, loop)

    def run_now(self, items: Sequence[Item], deadline_at: float | None) -> Result | None:
        """Run the items of one request on the loop, now; None where they have to be submitted.

        That is where one item takes longer than a turn of the loop may, where others wait or run, where this
        turn has done its share of work, and
        where `submit` would cut or refuse them. Raises StageFailed, and what `run` has to say to clients.
        """
        turn, count = self._turn, len(items)
        if turn is None or self._slow or self._admission.outstanding or self._closing or turn.is_over:
            return None
        if count > 1 and (count > self._rules.max_items or self._forecast.pace.of(count) > turn.most_s):
            return None
        now = self._clock()
        if deadline_at is not None and now >= deadline_at:
            return None
        self._nth_now = nth = (self._nth_now + 1) % _LOOKED_AT
        cpu = time.thread_time() if nth == 0 else 0.0
        try:
            return self._run((items,))[0]
        except StageFailed as problem:
            if self._is_broken():
                raise StageBroken(problem.message) from problem
            raise
        except RequestError:
            raise
        except Exception as problem:
            log.exception("%s failed on a request", self._name)
            kind = StageBroken if self._is_broken() else StageFailed
            raise kind(f"{self._name} failed on this request") from problem
        finally:
            seconds = self._clock() - now
            turn.used(seconds)
            if nth == 0:
                self._busy_share = min(1.0, (time.thread_time() - cpu) / seconds) if seconds else 1.0
                with self._lock:
                    self._learn(count, seconds)
            self._recorder.batch(
                BatchRecord(self._name, count, _NO_WAIT, seconds, self._busy_share * seconds)
            )

    async def _submit_in_chunks(
        self, items: Sequence[Item], first: _Group[Item, Result], loop: asyncio.AbstractEventLoop
    ) -> list[Result]:
        """Keep one chunk more than there are lanes inside, so that small requests get their turn between."""
        size, count = first.size, len(items)
        patience = first.order - first.enqueued_at
        inside = deque([first.future])
        results: list[Result] = []
        given = size
        try:
            while given < count:
                if len(inside) > self._rules.lanes:
                    results.append(await inside[0])
                    inside.popleft()
                now = self._clock()
                group = _Group[Item, Result](
                    items[given : given + size], first.deadline_at, now, loop.create_future()
                )
                group.priority = first.priority
                group.stay(now + patience)
                self._put(group, loop)
                inside.append(group.future)
                given += group.size
            while inside:
                results.append(await inside[0])
                inside.popleft()
        finally:
            for future in inside:
                future.cancel()
            self._leave(count - given, first.priority)
        return results

    async def close(self) -> None:
        """Refuse new requests, finish those inside, and end the threads."""
        self._closing = True
        self._admission.close()
        if self.outstanding and self._loop is not None:
            self._idle = self._loop.create_future()
            await self._idle
        for _ in self._threads:
            self._wakes.put(False)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        self._threads.clear()

    def _start(self) -> asyncio.AbstractEventLoop:
        self._loop = asyncio.get_running_loop()
        if self._rules.run_in != "loop":
            for lane in range(self._rules.lanes):
                thread = threading.Thread(
                    target=self._work, args=(lane, self._loop), name=f"{self._name}-{lane}", daemon=True
                )
                thread.start()
                self._threads.append(thread)
        return self._loop

    def _put(self, group: _Group[Item, Result], loop: asyncio.AbstractEventLoop) -> None:
        """Give a further part of a request that was let in its place."""
        with self._lock:
            self._admission.room.push(group)
            wake = self._idle_lanes > 0
            if wake:
                self._idle_lanes -= 1
        self._wake(wake, loop)

    def _wake(self, lane: bool, loop: asyncio.AbstractEventLoop) -> None:
        if lane:
            self._wakes.put(True)
        elif self._rules.run_in == "loop" and not self._flushing:
            self._flushing = True
            loop.call_soon(self._flush)

    def _take(self, lane: int) -> tuple[list[_Group[Item, Result]], list[_Group[Item, Result]]]:
        """Take the next batch and whom it comes too late for; where there is none, the lane is idle."""
        with self._lock:
            now = self._clock()
            batch, gone = self._admission.take(now, self._forecast.limit)
            if batch:
                self._forecast.started(lane, sum(group.size for group in batch), now)
            else:
                self._forecast.ended(lane)
                self._idle_lanes += 1
        return batch, gone

    def _work(self, lane: int, loop: asyncio.AbstractEventLoop) -> None:
        """One lane: take a batch, run it, hand it back to the loop."""
        linger_s = self._rules.linger_s
        while True:
            batch, gone = self._take(lane)
            try:
                if gone:
                    loop.call_soon_threadsafe(self._refuse, gone)
                if not batch:
                    if not self._wakes.get():
                        return
                    if linger_s:
                        self._linger(linger_s)
                    continue
                record = self._execute(batch)
                loop.call_soon_threadsafe(self._deliver, batch, record)
            except RuntimeError:  # the loop closed under us: nobody waits any more
                return

    def _linger(self, seconds: float) -> None:
        """Let an idle lane that was woken wait for company, until a batch is full."""
        closes_at = self._clock() + seconds
        while self._admission.room.items < self._forecast.limit and (left := closes_at - self._clock()) > 0:
            with self._lock:
                self._idle_lanes += 1
            try:
                woken = self._wakes.get(timeout=left)
            except queue.Empty:
                with self._lock:
                    if self._idle_lanes:
                        self._idle_lanes -= 1
                        return
                woken = self._wakes.get()
            if not woken:
                self._wakes.put(False)
                return

    def _flush(self) -> None:
        """Run one batch on the loop itself, of no more than a turn may take."""
        now = self._clock()
        most, each_s = self._forecast.limit, self._forecast.pace.each_s
        if self._turn is not None and each_s * most > self._turn.most_s:
            most = max(1, int(self._turn.most_s / each_s))
        batch, gone = self._admission.take(now, most)
        self._flushing = self._admission.room.items > 0
        if self._flushing and self._loop is not None:
            self._loop.call_soon(self._flush)
        if gone:
            self._refuse(gone)
        if batch:
            self._deliver(batch, self._execute(batch))

    def _refuse(self, groups: list[_Group[Item, Result]]) -> None:
        """On the loop: tell those that cannot be answered in time; those given up want no telling."""
        for group in groups:
            self._leave(group.size, group.priority)
            if not group.future.done():
                group.future.set_exception(self._admission.too_late(group))

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
            now,
            _spans_of(live),
        )

    def _run_singly(self, groups: list[_Group[Item, Result]], problem: Exception) -> None:
        failed = []
        for group in groups:
            if len(groups) > 1:
                try:
                    group.outcome = self._run([group.items])[0]
                    continue
                except Exception as own:  # noqa: BLE001 - as above
                    problem = own
            if isinstance(problem, RequestError) and not isinstance(problem, StageFailed):
                group.outcome = problem
            else:
                log.error("%s failed on a request", self._name, exc_info=problem)
                group.outcome = StageFailed(f"{self._name} failed on this request")
                failed.append(group)
        if len(failed) == len(groups) and self._is_broken():
            for group in failed:
                group.outcome = StageBroken(f"{self._name} fails")

    def _is_broken(self) -> bool:
        try:
            self._check()
        except Exception:
            log.exception("%s fails on its own example", self._name)
            return True
        return False

    def _deliver(self, batch: list[_Group[Item, Result]], record: BatchRecord | None) -> None:
        """On the loop: settle the futures, learn the pace, report."""
        now = self._clock()
        for group in batch:
            self._leave(group.size, group.priority)
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
            with self._lock:
                self._learn(record.items, record.inference_s)
                if batch[0].expected_at:
                    self._forecast.answered(now - batch[0].expected_at)
            self._recorder.batch(record)

    def _learn(self, count: int, seconds: float) -> None:
        """Take a time into account; where one item takes more than a turn, the short way is closed."""
        self._forecast.learn(count, seconds)
        self._slow = self._turn is not None and self._forecast.pace.of(1) > self._turn.most_s

    def _leave(self, count: int, priority: int) -> None:
        self._admission.leave(count, priority)
        if self._idle is not None and not self.outstanding and not self._idle.done():
            self._idle.set_result(None)


def _spans_of(groups: list[_Group[Item, Result]]) -> Sequence[Any]:
    """Return the span of each group, or nothing where none is traced."""
    for group in groups:
        if group.span is not None:
            return [each.span for each in groups]
    return ()
