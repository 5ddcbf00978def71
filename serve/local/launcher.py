"""Start and stop a gateway on this machine: checks first, then a host process of its own that runs Ray.

The caller's process never imports Ray, keeps its working directory, and can be interrupted at any moment:
whatever the run has started carries the run's mark and is ended with it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Self

from contract.errors import EnvironmentProblem
from contract.files import write_text
from runtime.remote.keys import headers_of
from serve.access.key_store import open_keys
from serve.access.keys import KeyBook
from serve.control.admin_address import admin_url, check_admin
from serve.control.bootstrap import Progress, assign
from serve.control.exposure import check_guarded
from serve.local.front_end.addresses import check_free, resolve_front_end
from serve.local.front_end.certificates import CertificateWatch, install_certificate
from serve.local.front_end.frontend import Address, FrontEnd
from serve.local.front_end.install import find_haproxy
from serve.local.front_end.keeper import Keeper
from serve.local.front_end.listeners import Listeners
from serve.local.front_end.open_files import MOST_CONNECTIONS, allowed_connections
from serve.local.front_end.ports import check_loopback, check_port_free
from serve.local.listening import Listening, lines, listening
from serve.local.ray_environment import CONTROL_FOLDER, RAY_FOLDER, ray_environment
from serve.local.room import check_room
from serve.local.run_folder import (
    MARK,
    RunLock,
    clean_dead_runs,
    end_processes,
    make_run_folder,
    processes_of,
    remove_run,
    run_root,
)
from serve.settings.gateway import Settings

MOST_RESTARTS = 3
RESTARTS_WITHIN_S = 600.0
"""A gateway whose Ray ends more often than that is not started again."""
_HOST = "from serve.local.host_process import main; main()"


class Handle:
    """A running gateway. Use it as a context manager, or call `stop`."""

    def __init__(
        self,
        settings: Settings,
        front: FrontEnd,
        folder: Path,
        lock: RunLock,
        keeper: Keeper,
        process: subprocess.Popen[bytes],
        watch: CertificateWatch | None = None,
    ) -> None:
        self._settings = settings
        self._front = front
        self._lock = lock
        self._keeper = keeper
        self._watch = watch
        self._process = process
        self._restarts: list[float] = []
        self.folder = folder

    @property
    def url(self) -> str:
        """Where clients on this machine send requests."""
        return self._front.url

    @property
    def grpc_address(self) -> str | None:
        """Where clients on this machine send gRPC; None where it is not offered."""
        if self._front.grpc_port is None:
            return None
        place = self._front.asked_at[0]
        return f"[{place}]:{self._front.grpc_port}" if place.is_v6 else f"{place}:{self._front.grpc_port}"

    @property
    def admin_url(self) -> str:
        """Where the admin interface is."""
        return admin_url(self._settings)

    @property
    def pid(self) -> int:
        """Process id of the host process."""
        return self._process.pid

    def wait(self, progress: Progress = lambda _: None) -> None:
        """Return when the gateway has ended as it was asked to.

        When Ray ends by itself, as it does without its raylet, the gateway is started again on the same live
        state, and clients are told 503 meanwhile. Process 1, as in a container, takes leave of orphans:
        nobody else would.

        Raises EnvironmentProblem when it ended too often, or did not start again.
        """
        while True:
            if os.getpid() == 1:
                _reap_until_ended(self._process.pid)
            code = self._process.wait()
            if not code:
                return
            tail = log_tail(self.folder)
            now = time.monotonic()
            self._restarts = [at for at in self._restarts if now - at < RESTARTS_WITHIN_S] + [now]
            if len(self._restarts) > MOST_RESTARTS:
                self.kill()
                raise EnvironmentProblem(
                    f"the gateway's host process ended by itself (code {code}), {len(self._restarts)} times "
                    f"within {RESTARTS_WITHIN_S:g} s\n{tail}"
                )
            progress(f"the gateway's host process ended by itself (code {code}); starting it again")
            self._start_again(progress)

    def _start_again(self, progress: Progress) -> None:
        end_processes(self.folder, but=self._keeper.own_pids)
        for made in (RAY_FOLDER, CONTROL_FOLDER):
            shutil.rmtree(self.folder / made, ignore_errors=True)
        try:
            self._process, events = _spawn_host(self.folder, self._front, self._keeper, self._lock)
            _await_ready(self.folder, events, progress)
        except BaseException:
            self.kill()
            raise
        progress(f"ready again at {self.url}")

    def listening(self) -> list[Listening]:
        """Return what of this run listens where, and what it asks for."""
        return listening(self.folder, self._settings, self._book())

    def _book(self) -> KeyBook | None:
        return None if self._settings.state is None else open_keys(self._settings.state).latest()

    def stop(self) -> None:
        """Drain, end every process of the run, and remove its folder. Safe to call again."""
        self._keeper.rest()
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
        if self._watch is not None:
            self._watch.close()
        self._keeper.close()
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
        EnvironmentProblem: a port is taken, a limit is too low, a library or provider is missing, the
            upstream's key is not there, or Ray did not come up.
    """
    clean_dead_runs(progress)
    root = run_root(progress)
    check_room(settings, root)
    if settings.upstream is not None:
        headers_of(settings.upstream.credentials)
    front = _front_end(settings, progress)
    folder, lock = make_run_folder(root)
    process: subprocess.Popen[bytes] | None = None
    keeper: Keeper | None = None
    try:
        assignment = assign(settings, folder, progress)
        write_text(folder / "assignment.json", assignment.model_dump_json())
        front = replace(front, tls=install_certificate(settings.tls, folder))
        keeper = _keeper(folder, front)
        process, events = _spawn_host(folder, front, keeper, lock)
        _await_ready(folder, events, progress)
        watch = None
        if front.tls is not None:
            watch = CertificateWatch(settings.tls, Path(front.tls.pem), keeper.controls, progress)
        return Handle(settings, front, folder, lock, keeper, process, watch)
    except BaseException:
        if keeper is not None:
            keeper.close()
        if process is not None and process.poll() is None:
            process.kill()
        remove_run(folder)
        if process is not None:
            process.wait()
        lock.close()
        raise


def _await_ready(folder: Path, events: IO[str], progress: Progress) -> None:
    """Pass on what the host process says until it is ready.

    Raises EnvironmentProblem where it ends before.
    """
    with events:
        for line in events:
            event = json.loads(line)
            if event["event"] == "ready":
                return
            if event["event"] == "failed":
                raise EnvironmentProblem(f"the gateway did not start: {event['message']}")
            progress(event["message"])
    raise EnvironmentProblem(f"the gateway's host process ended while starting\n{log_tail(folder)}")


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
            for line in lines(handle.listening()):
                progress(line)
            more = "" if handle.grpc_address is None else f", gRPC at {handle.grpc_address}"
            progress(f"ready at {handle.url} (admin interface at {handle.admin_url}{more})")
            handle.wait(progress)
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
    if settings.grpc_port is not None:
        front = replace(front, grpc_port=settings.grpc_port, grpc_max_bytes=settings.limits.max_message_bytes)
        for address in front.addresses:
            check_port_free(address, settings.grpc_port, "grpc_port (in the settings)")
    check_admin(settings)
    check_port_free(Address(settings.admin_host), settings.admin_port, "--admin-port")
    for address in front.left_out:
        progress(f"{front.host} also means {address}, which this machine lacks: nothing listens there")
    if front.max_connections < MOST_CONNECTIONS:
        progress(
            f"at most {front.max_connections} connections at a time, by the hard limit of open files "
            "(ulimit -Hn); more wait"
        )
    return front


def _keeper(folder: Path, front: FrontEnd) -> Keeper:
    """Bind what clients connect to, and keep an HAProxy behind it."""
    try:
        listeners = Listeners(front)
    except OSError:
        check_free(front)  # says who has it
        raise
    try:
        return Keeper(folder, listeners, find_haproxy(), {**os.environ, MARK: str(folder)})
    except BaseException:
        listeners.close()
        raise


def _spawn_host(
    folder: Path, front: FrontEnd, keeper: Keeper, lock: RunLock
) -> tuple[subprocess.Popen[bytes], IO[str]]:
    """Start the host in the run folder, in a session of its own: a Ctrl-C must not reach Ray directly.

    Return it with what it says of its start, one JSON object a line.
    """
    reader, writer = os.pipe()
    try:
        with (folder / "host.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", _HOST, str(writer), str(lock.fileno())],
                cwd=folder,
                env=ray_environment(folder, front, keeper.address),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(writer, lock.fileno()),
                start_new_session=True,
            )
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    return process, os.fdopen(reader)


def leftovers(handle: Handle) -> list[int]:
    """Return the ids of processes of that run that still live, for checks."""
    return [process.pid for process in processes_of(handle.folder)]
