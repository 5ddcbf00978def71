"""What of a run listens where: looked up, not remembered, and told at start to who runs it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

import psutil

from serve.access.keys import KeyBook
from serve.control.admin_address import asks_admins
from serve.control.exposure import beyond_loopback
from serve.local.processes import SeenProcess, look_at
from serve.local.run_folder import processes_of
from serve.settings.gateway import Settings

TOKEN = "this run's token"
_FOR_HAPROXY = (*range(30_000, 32_000), *range(40_000, 42_000))
"""Ray's ports of replicas for HTTP and for gRPC."""


@dataclass(frozen=True, order=True)
class Listening:
    """One kind of listener.

    Attributes:
        address: IP address.
        who: what it is for.
        ports: on which it listens.
        asks: what it asks for before it answers; empty where it answers whoever reaches it.
    """

    address: str
    who: str
    ports: tuple[int, ...]
    asks: str

    @property
    def is_exposed(self) -> bool:
        """Whether other machines reach it, and it asks for nothing."""
        return beyond_loopback(self.address) and not self.asks


def listening(folder: Path, settings: Settings, book: KeyBook | None) -> list[Listening]:
    """Return what the processes of a run, and this one for it, listen on, by the keys that it has."""
    looked_at = (look_at(psutil.Process()), *processes_of(folder))
    processes = {process.pid: process for process in looked_at if process is not None}
    found: dict[tuple[str, str, str], set[int]] = {}
    for connection in psutil.net_connections("tcp"):
        if connection.status != psutil.CONN_LISTEN or not connection.laddr or connection.pid not in processes:
            continue
        ip, port = _shown(connection.laddr.ip), connection.laddr.port
        if connection.pid == psutil.Process().pid and port not in {
            settings.port,
            settings.grpc_port,
        }:
            continue
        who, asks = _known(processes[connection.pid], ip, port, settings, book)
        found.setdefault((ip, who, asks), set()).add(port)
    return sorted(Listening(ip, who, tuple(sorted(ports)), asks) for (ip, who, asks), ports in found.items())


def lines(found: list[Listening]) -> list[str]:
    """Return a table in lines, what other machines reach first."""
    rows = [("address", "port", "who", "asks for")]
    for one in sorted(found, key=lambda one: (not beyond_loopback(one.address), one)):
        shown = ", ".join(map(str, one.ports[:3])) + (
            f" and {len(one.ports) - 3} more" if len(one.ports) > 3 else ""
        )
        rows.append((one.address, shown, one.who, one.asks or "nothing"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return ["  ".join([*(row[n].ljust(widths[n]) for n in range(3)), row[3]]) for row in rows]


def _shown(ip: str) -> str:
    """Return an address in its shortest form, an IPv4 one as that."""
    address = ipaddress.ip_address(ip.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _known(
    process: SeenProcess, ip: str, port: int, settings: Settings, book: KeyBook | None
) -> tuple[str, str]:
    """Return what a listener is for, and what it asks for."""
    command, name = process.command, process.name
    keyed = book is not None
    if port in {settings.port, settings.grpc_port}:
        asks = [*(["a client certificate"] if settings.tls.client_ca else []), *(["a key"] if keyed else [])]
        how = "clients, by TLS" if settings.tls.cert else "clients"
        return (how if port == settings.port else f"{how}, gRPC"), " and ".join(asks)
    if port == settings.admin_port:
        return "admin interface", "a key with the scope admin" if asks_admins(settings, book) else ""
    if "ServeReplica" in command:
        if port in _FOR_HAPROXY and not beyond_loopback(ip):
            return "gateway replicas, for HAProxy", ("a key" if keyed else "")
        return "replicas among each other (gRPC)", TOKEN
    if "ProxyActor" in command or "HAProxyManager" in command:
        return "Ray's proxy in reserve", ("a key" if keyed else "")
    if any(word in f"{command} {name}".lower() for word in ("ray", "gcs_server", "host_process")):
        return "Ray's own", TOKEN
    return f"not known: {name}", ""
