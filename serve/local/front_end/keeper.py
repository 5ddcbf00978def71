"""Keeps an HAProxy in front of the replicas, whatever becomes of the one that Ray has started.

Ray looks at its HAProxy once a second, believes the third bad look, and then makes another that knows no
route for a while: four to six seconds without a front end. Here the listening sockets are held by the
launcher. Each HAProxy that Ray starts fetches them through the wrapper. One that dies before it was replaced
is stood in for within milliseconds by another with the same configuration, until Ray's next one knows
its replicas; one that no longer answers is killed first.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from serve.local.front_end.listeners import Listeners
from serve.local.front_end.rewrite import UNAVAILABLE, control_socket, has_servers, stand_in

KEEPER = "k"
"""Folder in the run folder for the keeper's socket and what its own HAProxy needs."""
LOOK_EVERY_S = 0.5
PATIENCE_S = 3.0
"""Without an answer on its control socket for so long, HAProxy counts as hanging."""
PROVEN_S = 1.0
"""A configuration with which HAProxy has lived so long is one to come back to."""
RETIRED_S = 20.0
"""Replaced HAProxys end after the time that Ray sets, 5 s; then they are killed."""
PROOF_EVERY_S = 0.02
"""How often a newcomer is asked until it answers; those whom it replaces count as serving until then."""
_NOBODY = 0
_BACK_OFF_S = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
_CREDENTIALS = struct.Struct("3i")
_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Member:
    """One HAProxy: Ray's, or one that stands in."""

    pid: int
    pidfd: int
    config: str = field(repr=False)
    listens: bool
    since: float
    answered: float
    retired: float | None = None
    child: subprocess.Popen[bytes] | None = None


class Keeper:
    """Hands out the listening sockets and stands in for an HAProxy that dies, in a thread of its own."""

    def __init__(self, folder: Path, listeners: Listeners, haproxy: str, environment: dict[str, str]) -> None:
        """Begin. `environment` is that of the run, so that its HAProxys are recognised as part of it."""
        self._folder = folder / KEEPER
        self._folder.mkdir(mode=0o700)
        self._listeners = listeners
        self._haproxy = haproxy
        self._environment = environment
        self._members: list[_Member] = []
        self._proven: str | None = None
        self._failures = 0
        self._proofs: set[asyncio.Task[None]] = set()
        self._closing = self._resting = False
        self._stood_in = 0
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._server.bind(str(self.address))
        self._server.listen(16)
        self._server.setblocking(False)
        (self._folder / "503.http").write_text(UNAVAILABLE, newline="")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="front-end-keeper", daemon=True)
        self._thread.start()

    @property
    def address(self) -> Path:
        """Where the wrapper asks for sockets."""
        return self._folder / "keeper.sock"

    @property
    def stood_in(self) -> int:
        """How often an HAProxy of this keeper has stood in for a dead one."""
        return self._stood_in

    def own_pids(self) -> set[int]:
        """Return the process ids of those that stand in now."""
        return {member.pid for member in list(self._members) if member.child is not None}

    def controls(self) -> list[str]:
        """Return the control sockets of the HAProxys that live now."""
        return list(dict.fromkeys(control_socket(member.config) for member in list(self._members)))

    def rest(self) -> None:
        """Stand in no more: what ends from now on is meant to. Safe to call again."""
        self._resting = True

    def close(self) -> None:
        """End what stands in, stand in no more, and let the sockets go. Safe to call again."""
        if self._closing:
            return
        self._closing = self._resting = True
        done: Future[None] = asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        with suppress(TimeoutError):
            done.result(10)
        self._thread.join(10)
        self._server.close()
        self._listeners.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.add_reader(self._server, self._accept)
        looking = self._loop.create_task(self._look_after())
        try:
            self._loop.run_forever()
        finally:
            tasks = [looking, *self._proofs]
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.close()

    async def _end(self) -> None:
        self._loop.remove_reader(self._server)
        for member in list(self._members):
            if member.child is not None:
                member.child.kill()
                member.child.wait()
            self._forget(member)
        self._loop.call_soon(self._loop.stop)

    def _accept(self) -> None:
        """Answer one wrapper, which is about to become HAProxy under the same process id."""
        try:
            client, _ = self._server.accept()
        except OSError:
            return
        with client:
            client.settimeout(1.0)  # the wrapper has written before it was accepted
            try:
                pid, uid, _ = _CREDENTIALS.unpack(
                    client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
                )
                asked = json.loads(client.recv(65536))
                if uid != os.getuid():
                    return
                self._admit(client, pid, Path(asked["config"]).read_text(), bool(asked["takes_over"]))
            except (OSError, ValueError, KeyError):
                return

    def _admit(self, client: socket.socket, pid: int, config: str, takes_over: bool) -> None:
        """Give the newcomer the sockets and those to retire, unless it knows less than who serves now."""
        serving = [member for member in self._members if member.listens]
        idle = not takes_over and not has_servers(config) and any(has_servers(m.config) for m in serving)
        newcomer = self._watch(pid, config, listens=not idle)
        if idle:
            client.send(json.dumps({"listen": 0, "retire": []}).encode())
            return
        others = [member for member in self._members if member is not newcomer]
        descriptors = self._listeners.descriptors()
        answer = {"listen": len(descriptors), "retire": [member.pid for member in others]}
        socket.send_fds(client, [json.dumps(answer).encode()], descriptors)
        proof = self._loop.create_task(self._prove(newcomer, others))
        self._proofs.add(proof)
        proof.add_done_callback(self._proofs.discard)

    async def _prove(self, newcomer: _Member, others: list[_Member]) -> None:
        """Retire the others once a newcomer answers; where it dies, those who have let go by then."""
        while newcomer in self._members:
            if await _who_answers(control_socket(newcomer.config)) == newcomer.pid:
                _retire(others)
                return
            await asyncio.sleep(PROOF_EVERY_S)
        for member in others:
            serves = member in self._members and member.listens and member.retired is None
            if serves and await _who_answers(control_socket(member.config)) == _NOBODY:
                _retire((member,))
                self._stand_in(self._proven or member.config)

    def _watch(
        self, pid: int, config: str, *, listens: bool, child: subprocess.Popen[bytes] | None = None
    ) -> _Member:
        now = time.monotonic()
        member = _Member(pid, os.pidfd_open(pid), config, listens, now, now, child=child)
        self._members.append(member)
        self._loop.add_reader(member.pidfd, self._died, member)
        return member

    def _forget(self, member: _Member) -> None:
        self._loop.remove_reader(member.pidfd)
        os.close(member.pidfd)
        self._members.remove(member)

    def _died(self, member: _Member) -> None:
        if member not in self._members:
            return
        self._forget(member)
        if member.child is not None:
            member.child.wait()
        lived = time.monotonic() - member.since
        self._failures = self._failures + 1 if lived < PROVEN_S else 0
        if self._resting or member.retired is not None or not member.listens:
            return
        config = member.config if lived >= PROVEN_S or self._proven is None else self._proven
        wait = _BACK_OFF_S[min(self._failures, len(_BACK_OFF_S) - 1)]
        self._loop.call_later(wait, self._stand_in, config)

    def _stand_in(self, config: str) -> None:
        """Start an HAProxy of our own, unless another has taken over meanwhile; try again where it fails."""
        if self._resting or any(member.listens and member.retired is None for member in self._members):
            return
        try:
            self._start(config)
        except Exception as problem:  # noqa: BLE001  # whatever it is, clients wait for the next try
            self._failures += 1
            wait = _BACK_OFF_S[min(self._failures, len(_BACK_OFF_S) - 1)]
            _log.warning("no HAProxy can stand in, the next try is in %g s: %s", wait, problem)
            self._loop.call_later(wait, self._stand_in, config)

    def _start(self, config: str) -> None:
        control = self._folder / "control.sock"
        written = self._folder / "haproxy.cfg"
        written.write_text(stand_in(config, str(control), str(self._folder / "503.http")))
        with (self._folder / "haproxy.stderr.log").open("wb") as log:
            child = subprocess.Popen(
                [self._haproxy, "-db", "-f", str(written), "-dR"],
                env={**self._environment, **self._listeners.environment()},
                pass_fds=self._listeners.descriptors(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self._watch(child.pid, written.read_text(), listens=True, child=child)
        except BaseException:
            child.kill()
            child.wait()
            raise
        self._stood_in += 1

    async def _look_after(self) -> None:
        """Kill what hangs, and what should have ended; remember a configuration that works."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(LOOK_EVERY_S)
            now = time.monotonic()
            starved = now - before > 2 * LOOK_EVERY_S  # then HAProxy may be as starved as this thread
            for member in list(self._members):
                if member.retired is not None:
                    if now - member.retired > RETIRED_S:
                        self._kill(member)
                elif member.listens:
                    if now - member.since >= PROVEN_S:
                        self._proven = member.config
                    if starved or await _who_answers(control_socket(member.config)):
                        member.answered = time.monotonic()
                    elif time.monotonic() - member.answered > PATIENCE_S:
                        self._kill(member)

    def _kill(self, member: _Member) -> None:
        with suppress(OSError):
            signal.pidfd_send_signal(member.pidfd, signal.SIGKILL)


def _retire(members: Iterable[_Member]) -> None:
    """Leave these their time to end; then they are killed."""
    for member in members:
        member.retired = member.retired or time.monotonic()


async def _who_answers(control: str) -> int | None:
    """Return the process id of the HAProxy there, 0 where nobody listens, None where none answers in time."""
    try:
        async with asyncio.timeout(LOOK_EVERY_S):
            reader, writer = await asyncio.open_unix_connection(control)
            try:
                writer.write(b"show info\n")
                while line := await reader.readline():
                    if line.startswith(b"Pid: "):
                        return int(line[len(b"Pid: ") :])
            finally:
                writer.close()
    except (ConnectionRefusedError, FileNotFoundError):
        return _NOBODY
    except (OSError, TimeoutError, ValueError):
        return None
    return None
