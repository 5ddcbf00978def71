"""TCP ports of this machine: whether one is free on an address, who holds it, and drawing free ones."""

from __future__ import annotations

import errno
import random
import socket

import psutil

from contract.errors import EnvironmentProblem
from serve.local.front_end.frontend import Address

DRAWN_PORTS = range(20_000, 30_000)
"""Ports for what has to listen somewhere, whose number nobody needs to know."""


def probe(address: Address, port: int) -> OSError | None:
    """Try to listen on a port of an address as HAProxy does; return what was in the way."""
    try:
        with socket.socket(socket.AF_INET6 if address.is_v6 else socket.AF_INET) as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if address.is_v6:
                server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address.ip != "::")
            zone = socket.if_nametoindex(address.zone) if address.zone else 0
            server.bind((address.ip, port, 0, zone) if address.is_v6 else (address.ip, port))
            server.listen(1)
    except OSError as problem:
        return problem
    return None


def check_port_free(address: Address, port: int, flag: str) -> None:
    """Raise EnvironmentProblem that names the holder unless a server could listen there now."""
    problem = probe(address, port)
    if problem is None:
        return
    if isinstance(problem, PermissionError):
        raise EnvironmentProblem(
            f"port {port} needs more rights than this process has", hint=f"{flag} with a port above 1023"
        )
    if problem.errno != errno.EADDRINUSE:
        raise EnvironmentProblem(f"cannot listen on port {port} of {address}: {problem.strerror}")
    holder = holder_of(address, port)
    by = "" if holder is None else f" by {holder}"
    raise EnvironmentProblem(
        f"port {port} on {address} is taken{by}",
        hint=f"another {flag}" if holder is None else f"another {flag}, or end that process",
    )


def check_loopback() -> None:
    """Raise EnvironmentProblem unless this machine reaches itself; a new network namespace does not."""
    with socket.socket() as server, socket.socket() as client:
        try:
            server.bind(("127.0.0.1", 0))
            server.listen(1)
            client.connect(server.getsockname())
        except OSError as problem:
            raise EnvironmentProblem(
                f"this machine does not reach itself at 127.0.0.1: {problem.strerror}",
                hint="ip link set lo up",
            ) from None


def holder_of(address: Address, port: int) -> str | None:
    """Return name and id of the process that keeps others off a port, where the system tells."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status != psutil.CONN_LISTEN or not connection.pid or not connection.laddr:
                continue
            if connection.laddr.port == port and _overlap(address.ip, connection.laddr.ip):
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        return None
    return None


def _overlap(wanted: str, held: str) -> bool:
    """Whether listening on the one can keep off the other."""
    if "::" in {wanted, held}:
        return True
    if "0.0.0.0" in {wanted, held}:
        return (":" in wanted) == (":" in held)
    return wanted == held


def free_ports(count: int) -> list[int]:
    """Return distinct TCP ports that are free on all interfaces and stay so unless drawn again.

    What listens on them does so seconds after the draw. Ports that the system hands out (32768 up on Linux)
    may be some connection's by then, and those of the replicas (30000 to 31000) and of Ray's workers (10002
    to 19999) are Ray's.
    """
    found: list[int] = []
    for port in random.sample(DRAWN_PORTS, len(DRAWN_PORTS)):
        with socket.socket() as server:
            try:
                server.bind(("", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise EnvironmentProblem(
        f"fewer than {count} TCP ports from {DRAWN_PORTS[0]} to {DRAWN_PORTS[-1]} are free",
        hint="end what listens there",
    )
