"""The generator: one Locust user that sends prepared requests at prepared times, open loop.

Every arrival gets a greenlet of its own over one shared pool of connections, so a server that stalls
holds up no later arrival; latency runs from the intended time. Bodies are built before and answers are
read after the load, in the runner: while it runs, the generator only sends, receives and notes times.

Run by `loadtest.generator` as `locust -f locustfile.py --headless --orders-fd N --events-fd M`; the only
module that imports Locust and gevent.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import gevent
import numpy as np
from gevent.fileobject import FileObject
from geventhttpclient.connectionpool import ConnectionPool, SSLConnectionPool
from geventhttpclient.response import HTTPParseError, HTTPSocketPoolResponse
from locust import User, events, task

from loadtest.exchange import NEVER_SENT, NO_ANSWER, TIMED_OUT, Order, Samples, Send

PROGRESS_S = 0.25
NICENESS = -10
_PR_SET_PDEATHSIG = 1
_CLOCK_MONOTONIC = 1
_TIMER_ABSOLUTE = 1


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def _add_argument(parser: ArgumentParser) -> None:
    parser.add_argument("--orders-fd", type=int, help="pipe with one folder per line: order.json, send.npz")
    parser.add_argument("--events-fd", type=int, help="pipe for one JSON line per event")


class AlarmClock:
    """Wakes a greenlet at a time of `time.perf_counter`, to within tens of microseconds.

    The event loop's own timers are rounded up to a whole millisecond, which would be a send lag of half
    a millisecond. A Linux timerfd is not; elsewhere the loop's timers have to do.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = -1
        if hasattr(self._libc, "timerfd_create"):
            self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd >= 0:
            self._watcher = gevent.get_hub().loop.io(self._fd, 1)

    def sleep_until(self, at: float) -> None:
        """Return at that time, or at once when it has passed."""
        left = at - time.perf_counter()
        if left <= 0:
            return
        if self._fd < 0:
            gevent.sleep(left)
            return
        whole = int(at)
        when = (ctypes.c_long * 4)(0, 0, whole, int((at - whole) * 1e9))
        self._libc.timerfd_settime(self._fd, _TIMER_ABSOLUTE, when, None)
        gevent.get_hub().wait(self._watcher)
        os.read(self._fd, 8)


class Sender:
    """Sends one order and keeps what came back."""

    def __init__(self, order: Order, send: Send, request_event: Any, events_fd: int) -> None:
        self.order = order
        self.events_fd = events_fd
        self.n = len(send.at_s)
        self.at = send.at_s.tolist()
        head = order.head.encode("latin-1")
        raw = [b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body) for body in send.bodies]
        self.requests = [raw[i] for i in send.which.tolist()]
        self.sent = [0.0] * self.n
        self.done = [0.0] * self.n
        self.status = [NEVER_SENT] * self.n
        self.replies = [b""] * self.n
        self.request_event = request_event
        kind = SSLConnectionPool if order.tls else ConnectionPool
        self.pool = kind(order.host, order.port, order.host, order.port, size=order.connections)
        self.pool.network_timeout = None  # type: ignore[assignment]  # `ask` has a timeout of its own
        self.asking: set[gevent.Greenlet] = set()
        self.start = 0.0
        self.next = 0
        self.checked = order.warmup
        self.misses = 0
        self.errors = 0
        self.answered = 0
        self.reported = 0.0

    def ask(self, i: int) -> None:
        """Send arrival i and wait for its answer, a timeout or a failure."""
        now = time.perf_counter
        order = self.order
        intended = self.start + self.at[i]
        self.sent[i] = now() - self.start
        status, reply = NO_ANSWER, b""
        failure: Exception | None = None
        with gevent.Timeout(max(0.0, intended + order.timeout_s - now())) as timeout:
            try:
                socket = self.pool.get_socket()
                try:
                    socket.sendall(self.requests[i])
                except BaseException:
                    self.pool.release_socket(socket)
                    raise
                response = HTTPSocketPoolResponse(socket, self.pool, method="POST", block_size=16384)
                reply = response.read()
                status = response.get_code()
            except gevent.Timeout as expired:
                if expired is not timeout:
                    raise
                status, failure = TIMED_OUT, TimeoutError("no answer in time")
            except (OSError, HTTPParseError) as problem:
                failure = problem
        done = now()
        if failure is None and status != 200:
            failure = RuntimeError(f"status {status}")
        self.done[i], self.status[i], self.replies[i] = done - self.start, status, reply
        if failure is None:
            self.answered += 1
        else:
            self.errors += 1
            if i >= order.warmup and i >= self.checked:
                self.misses += 1
        self.request_event.fire(
            request_type="POST", name=order.name, response_time=(done - intended) * 1000.0,
            response_length=len(reply), exception=failure, context={},
        )  # fmt: skip

    def run(self) -> Samples:
        """Send all arrivals, wait for their answers, and return the samples."""
        clock = AlarmClock()
        warmup, n = self.order.warmup, self.n
        gc.collect()
        gc.freeze()
        self.start = time.perf_counter() + 0.05
        start_at_s = time.time() + (self.start - time.perf_counter())
        cpu = wall = 0.0
        stopped_early = False
        while self.next < n:
            clock.sleep_until(self.start + self.at[self.next])
            passed = time.perf_counter() - self.start
            while self.next < n and self.at[self.next] <= passed:
                if self.next == warmup:
                    cpu, wall = time.process_time(), time.perf_counter()
                    self.tell("measuring")
                greenlet = gevent.spawn(self.ask, self.next)
                self.asking.add(greenlet)
                greenlet.rawlink(self.asking.discard)
                self.next += 1
            if self.too_many_misses(passed):
                stopped_early = True
                break
            if passed - self.reported > PROGRESS_S:
                self.reported = passed
                self.tell("progress")
        share = (time.process_time() - cpu) / max(1e-9, time.perf_counter() - wall)
        gevent.joinall(list(self.asking))
        self.tell("drained")
        return Samples(
            start_at_s, np.array(self.at), np.array(self.sent), np.array(self.done),
            np.array(self.status, dtype=np.int32), tuple(self.replies), share, stopped_early,
        )  # fmt: skip

    def too_many_misses(self, passed: float) -> bool:
        """Count the measured arrivals whose objective has passed without an answer; say if it is lost."""
        order = self.order
        if order.stop_after_misses is None or order.miss_ms is None:
            return False
        deadline = passed - order.miss_ms / 1000.0
        while self.checked < self.next and self.at[self.checked] < deadline:
            i = self.checked
            if self.status[i] == NEVER_SENT or self.done[i] - self.at[i] > order.miss_ms / 1000.0:
                self.misses += 1
            self.checked += 1
        return self.misses > order.stop_after_misses

    def tell(self, event: str) -> None:
        """Write one event for the runner."""
        passed = time.perf_counter() - self.start
        line = {
            "event": event, "passed_s": round(passed, 3), "sent": self.next,
            "answered": self.answered, "errors": self.errors,
        }  # fmt: skip
        os.write(self.events_fd, json.dumps(line).encode() + b"\n")


class Dispatcher(User):  # type: ignore[misc]
    """The one user: carries out orders until their pipe closes, then ends the test."""

    fixed_count = 1

    @task  # type: ignore[untyped-decorator]
    def dispatch(self) -> None:
        """Carry out one order after another."""
        options = self.environment.parsed_options
        with FileObject(options.orders_fd, "rb") as orders:
            for line in orders:
                folder = Path(line.decode().strip())
                sender = Sender(
                    Order.read(folder), Send.read(folder), self.environment.events.request, options.events_fd
                )
                sender.run().write(folder)
                sender.pool.close()
                sender.tell("written")
        self.environment.process_exit_code = 0
        gevent.spawn(self.environment.runner.quit)
        gevent.sleep(60)


@events.init.add_listener  # type: ignore[untyped-decorator]
def _settle(environment: Any, **_: Any) -> None:
    """Die with the runner, and run before the server where both share the processors."""
    parent = os.getppid()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)
    try:
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    except (PermissionError, OSError):
        environment.generator_niceness = 0
