"""The Locust process: started once, given orders one after another, and gone afterwards whatever happens."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from contract.errors import EnvironmentProblem, SluiceError

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
START_S = 30.0
STOP_S = 3.0
POLL_S = 0.1


class LoadAborted(SluiceError):
    """The load was told to stop before it was done. Nothing was written and no process is left."""


class Generator:
    """Locust, headless, in a session of its own; a context manager.

    Orders go in through one pipe (a folder per line) and events come back through another (JSON lines).
    The process ends when its pipe closes or its parent dies.

    Raises:
        EnvironmentProblem: on entering, when Locust is not installed.
    """

    def __enter__(self) -> Self:
        if importlib.util.find_spec("locust") is None:
            raise EnvironmentProblem("Locust is not installed", hint="pip install --upgrade sluicegate")
        self._folder = tempfile.TemporaryDirectory(prefix="sluice-locust-")
        self._pending = b""
        their_orders, self._orders = os.pipe()
        self._events, their_events = os.pipe()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("LOCUST_")}
        command = [
            sys.executable, "-P", "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary",
            "--users", "1", "--loglevel", "WARNING",
            "--orders-fd", str(their_orders), "--events-fd", str(their_events),
        ]  # fmt: skip
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=self._folder.name, env=environment, pass_fds=[their_orders, their_events],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        os.close(their_orders)
        os.close(their_events)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._orders)
        try:
            if kind is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(STOP_S)
        finally:
            self._stop()
            os.close(self._events)
            self._folder.cleanup()

    def run(
        self, folder: Path, limit_s: float, abort: threading.Event | None = None
    ) -> Iterator[dict[str, Any]]:
        """Carry out the order in `folder`; yield its events up to `written`, when `samples.npz` is there.

        Raises:
            LoadAborted: `abort` was set.
            EnvironmentProblem: the generator ended, or took longer than `limit_s` beyond its start.
        """
        with contextlib.suppress(BrokenPipeError):
            os.write(self._orders, f"{folder}\n".encode())
        deadline = time.monotonic() + START_S + limit_s
        while True:
            if abort is not None and abort.is_set():
                raise LoadAborted("the load was stopped before it was done; nothing was written")
            if time.monotonic() > deadline:
                raise EnvironmentProblem(f"the generator hangs and was stopped: {self._tail()}")
            if not select.select([self._events], [], [], POLL_S)[0]:
                continue
            chunk = os.read(self._events, 65536)
            if not chunk:
                raise EnvironmentProblem(f"the generator ended without a result: {self._tail()}")
            *lines, self._pending = (self._pending + chunk).split(b"\n")
            for line in lines:
                event = json.loads(line)
                yield event
                if event["event"] == "written":
                    return

    @property
    def _log(self) -> Path:
        return Path(self._folder.name) / "log"

    def _stop(self) -> None:
        if self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _tail(self) -> str:
        return self._log.read_text("utf-8", "replace").strip()[-1500:] or "it said nothing"
