"""Start and stop a gateway on this machine: checks first, then a host process of its own that runs Ray.

The caller's process never imports Ray, keeps its working directory, and can be interrupted at any moment:
whatever the run has started carries the run's mark and is ended with it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from contract.errors import EnvironmentProblem
from contract.files import write_text
from serve.control.bootstrap import Progress, assign
from serve.control.exposure import check_guarded
from serve.local.front_end.addresses import check_free, resolve_front_end
from serve.local.front_end.frontend import Address, FrontEnd
from serve.local.front_end.open_files import MOST_CONNECTIONS, allowed_connections
from serve.local.front_end.ports import check_loopback, check_port_free
from serve.local.ray_environment import ray_environment
from serve.local.room import check_room
from serve.local.run_folder import (
    RunLock,
    clean_dead_runs,
    make_run_folder,
    processes_of,
    remove_run,
    run_root,
)
from serve.settings.gateway import Settings

_HOST = "from serve.local.host_process import main; main()"


class Handle:
    """A running gateway. Use it as a context manager, or call `stop`."""

    def __init__(
        self,
        settings: Settings,
        front: FrontEnd,
        folder: Path,
        lock: RunLock,
        process: subprocess.Popen[bytes],
    ) -> None:
        self._settings = settings
        self._front = front
        self._lock = lock
        self._process = process
        self.folder = folder

    @property
    def url(self) -> str:
        """Where clients on this machine send requests."""
        return self._front.url

    @property
    def admin_url(self) -> str:
        """Where the admin interface is."""
        return f"http://127.0.0.1:{self._settings.admin_port}"

    @property
    def pid(self) -> int:
        """Process id of the host process."""
        return self._process.pid

    def wait(self) -> None:
        """Return when the gateway has ended. Raises EnvironmentProblem when nobody had asked for it.

        Process 1, as in a container, takes leave of orphans meanwhile: nobody else would.
        """
        if os.getpid() == 1:
            _reap_until_ended(self._process.pid)
        code = self._process.wait()
        if code:
            tail = log_tail(self.folder)
            self.kill()
            raise EnvironmentProblem(f"the gateway's host process ended by itself (code {code})\n{tail}")

    def stop(self) -> None:
        """Drain, end every process of the run, and remove its folder. Safe to call again."""
        try:
            if self._process.poll() is None:
                self._process.terminate()
                self._process.wait(self._settings.stop_timeout_s)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self.kill()

    def kill(self) -> None:
        """End every process of the run at once."""
        if self._process.poll() is None:
            self._process.kill()
        remove_run(self.folder)
        self._process.wait()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start(settings: Settings, progress: Progress = lambda _: None) -> Handle:
    """Start a gateway and return once every stage of its policy answers.

    Args:
        settings: what to serve and how.
        progress: told in words how far it is.

    Raises:
        InputError: the host is no address of this machine; the family, the policy, or the two together break
            a rule.
        EnvironmentProblem: a port is taken, a limit is too low, a library or provider is missing, or Ray did
            not come up.
    """
    clean_dead_runs(progress)
    root = run_root(progress)
    check_room(settings, root)
    front = _front_end(settings, progress)
    folder, lock = make_run_folder(root)
    process: subprocess.Popen[bytes] | None = None
    try:
        assignment = assign(settings, folder, progress)
        write_text(folder / "assignment.json", assignment.model_dump_json())
        reader, writer = os.pipe()
        try:
            process = _spawn_host(folder, front, writer, lock)
        finally:
            os.close(writer)
        with os.fdopen(reader) as events:
            for line in events:
                event = json.loads(line)
                if event["event"] == "ready":
                    return Handle(settings, front, folder, lock, process)
                if event["event"] == "failed":
                    raise EnvironmentProblem(f"the gateway did not start: {event['message']}")
                progress(event["message"])
        raise EnvironmentProblem(f"the gateway's host process ended while starting\n{log_tail(folder)}")
    except BaseException:
        if process is not None and process.poll() is None:
            process.kill()
        remove_run(folder)
        if process is not None:
            process.wait()
        lock.close()
        raise


def run_until_stopped(settings: Settings, progress: Progress = lambda _: None) -> None:
    """Serve in the foreground until SIGINT, SIGTERM or SIGHUP, then drain and return. Raises as `start`.

    A signal during start-up ends what has been started and returns too. A second SIGINT or SIGTERM skips the
    draining. SIGHUP, which a closed terminal sends, counts unless it is ignored, as under nohup.
    """

    class Stop(BaseException):
        """A signal arrived."""

    stops = 0
    handle: Handle | None = None

    def on_signal(number: int, _: FrameType | None) -> None:
        # While starting, one is enough. Of a closed terminal the shell tells, and then the kernel again.
        nonlocal stops
        if stops == 0 or (stops == 1 and handle is not None and number != signal.SIGHUP):
            stops += 1
            raise Stop

    handled = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        handled.append(signal.SIGHUP)
    before = {number: signal.signal(number, on_signal) for number in handled}
    try:
        try:
            handle = start(settings, progress)
            progress(f"ready at {handle.url} (admin interface at {handle.admin_url})")
            handle.wait()
        except Stop:
            # Where the terminal or pipe is gone; of a broken pipe, rich makes SystemExit.
            with suppress(OSError, SystemExit):
                progress("stopping")
            if handle is not None:
                handle.stop()
        except BaseException:
            if handle is not None:
                handle.stop()
            raise
    except Stop:
        if handle is not None:
            handle.kill()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _reap_until_ended(pid: int) -> None:
    """Reap children that end, up to that one, which is left to who started it."""
    while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)) is not None and ended.si_pid != pid:
        os.waitpid(ended.si_pid, 0)


def log_tail(folder: Path, lines: int = 15) -> str:
    """Return the last lines of the host's log."""
    log = folder / "host.log"
    if not log.is_file():
        return ""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def _front_end(settings: Settings, progress: Progress) -> FrontEnd:
    """Return where HAProxy is to listen; check that it can, and say what is less than was asked."""
    check_loopback()
    front = resolve_front_end(settings.host, settings.port, allowed_connections())
    for address in front.addresses:
        check_guarded("--host", str(address), settings)
    check_free(front)
    check_port_free(Address("127.0.0.1"), settings.admin_port, "--admin-port")
    for address in front.left_out:
        progress(f"{front.host} also means {address}, which this machine lacks: nothing listens there")
    if front.max_connections < MOST_CONNECTIONS:
        progress(
            f"at most {front.max_connections} connections at a time, by the hard limit of open files "
            "(ulimit -Hn); more wait"
        )
    return front


def _spawn_host(folder: Path, front: FrontEnd, writer: int, lock: RunLock) -> subprocess.Popen[bytes]:
    """Start the host in the run folder, in a session of its own: a Ctrl-C must not reach Ray directly."""
    with (folder / "host.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-c", _HOST, str(writer), str(lock.fileno())],
            cwd=folder,
            env=ray_environment(folder, front),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(writer, lock.fileno()),
            start_new_session=True,
        )


def leftovers(handle: Handle) -> list[int]:
    """Return the ids of processes of that run that still live, for checks."""
    return [process.pid for process in processes_of(handle.folder)]
