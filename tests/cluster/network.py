"""A network of machines in this one: a network namespace for each, joined by a bridge that nobody else sees.

A machine has a loopback, an address and a disk of its own, which every machine sees at the same path. A cable
that is pulled, and then every process killed, is what a power cut looks like to the others.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Machine:
    """One namespace.

    Attributes:
        name: of the namespace.
        address: of its network card.
        folder: its disk, as seen from outside.
        disk: the same, as seen on the machine.
    """

    name: str
    address: str
    folder: Path
    disk: Path

    @property
    def prefix(self) -> tuple[str, ...]:
        """What to put before a command so that it runs on this machine."""
        script = f'mount --bind "{self.folder}" "{self.disk}" && exec "$@"'
        return ("ip", "netns", "exec", self.name, "sh", "-c", script, "sh")

    def pids(self) -> list[int]:
        """Return the processes that run there."""
        found = _run("ip", "netns", "pids", self.name)
        return [int(line) for line in found.split()]

    def cut_power(self) -> None:
        """End the machine without a word to the others: no connection is closed, none is refused."""
        _run("ip", "-n", self.name, "link", "set", "eth0", "down")
        self.kill()

    def kill(self) -> None:
        """End every process there at once."""
        while pids := self.pids():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for pid in pids:
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Let this thread open its connections from that machine."""
        with (
            Path("/proc/thread-self/ns/net").open() as before,
            Path(f"/run/netns/{self.name}").open() as there,
        ):
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(before.fileno())


class Network:
    """Machines on one bridge, which lies in a namespace too."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tag = secrets.token_hex(3)
        self._hub = f"sl{self._tag}"
        self._machines: list[Machine] = []

    def open(self) -> None:
        """Make the bridge."""
        _run("ip", "netns", "add", self._hub)
        self._at_hub("link", "add", "bridge", "type", "bridge")
        self._at_hub("link", "set", "bridge", "up")

    def add(self) -> Machine:
        """Make a machine."""
        number = len(self._machines) + 1
        folder = self._folder / f"m{number}"
        disk = self._folder / "disk"
        for made in (folder / "tmp", disk):
            made.mkdir(parents=True, exist_ok=True)
        machine = Machine(f"{self._hub}m{number}", f"10.77.0.{number}", folder, disk)
        _run("ip", "netns", "add", machine.name)
        self._machines.append(machine)
        card = f"v{number}"
        self._at_hub("link", "add", card, "type", "veth", "peer", "name", "eth0", "netns", machine.name)
        self._at_hub("link", "set", card, "master", "bridge", "up")
        for words in (("addr", "add", f"{machine.address}/24", "dev", "eth0"), ("link", "set", "eth0", "up")):
            _run("ip", "-n", machine.name, *words)
        _run("ip", "-n", machine.name, "link", "set", "lo", "up")
        return machine

    def close(self) -> None:
        """End all that runs in the namespaces, and remove them."""
        for machine in self._machines:
            machine.kill()
            _run("ip", "netns", "del", machine.name)
        _run("ip", "netns", "del", self._hub)

    def _at_hub(self, *words: str) -> None:
        _run("ip", "-n", self._hub, *words)


@contextmanager
def network(folder: Path) -> Iterator[Network]:
    """Give a network without machines; end and remove all that was added."""
    net = Network(folder)
    net.open()
    try:
        yield net
    finally:
        net.close()


def obstacle() -> str | None:
    """Return why networks cannot be made here, if they cannot."""
    if os.geteuid() != 0:
        return "network namespaces are made by root"
    if shutil.which("ip") is None:
        return "the command `ip` is not installed (iproute2)"
    name = f"sl{secrets.token_hex(3)}"
    try:
        _run("ip", "netns", "add", name)
    except subprocess.CalledProcessError as problem:
        return f"no network namespace can be made: {problem.stderr.strip()}"
    try:
        _run("ip", "-n", name, "link", "add", "bridge", "type", "bridge")
        _run("ip", "-n", name, "link", "add", "v", "type", "veth", "peer", "name", "w")
        _run("ip", "netns", "exec", name, "mount", "--bind", "/tmp", "/tmp")
    except subprocess.CalledProcessError as problem:
        return f"no bridge, pair of cards or mount can be made: {problem.stderr.strip()}"
    finally:
        _run("ip", "netns", "del", name)
    return None


def _enter(namespace: int) -> None:
    if _LIBC.setns(namespace, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout
