"""Where the front end listens, as one value: what HAProxy is told, what is asked, what users see. No I/O."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import asdict, dataclass
from typing import Self

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True)
class Address:
    """One IP address of this machine.

    Attributes:
        ip: in its shortest form, without brackets and zone.
        zone: the network card of a link-local IPv6 address; else empty.
    """

    ip: str
    zone: str = ""

    @property
    def is_v6(self) -> bool:
        """Whether it is an IPv6 address."""
        return ":" in self.ip

    @property
    def is_link_local(self) -> bool:
        """Whether it means something only together with a network card."""
        return self.is_v6 and ipaddress.IPv6Address(self.ip).is_link_local

    def bind(self, port: int) -> str:
        """Return what follows `bind` in HAProxy's configuration."""
        if self.ip == "::":
            return f"[::]:{port} v4v6"
        shown = f"[{self.ip}]:{port}" if self.is_v6 else f"{self.ip}:{port}"
        return f"{shown} interface {self.zone}" if self.zone else shown

    @property
    def asked_at(self) -> tuple[Address, ...]:
        """Where this machine reaches what listens there: `::` is IPv4 too."""
        if self.ip not in _EVERYWHERE:
            return (self,)
        v4 = Address(_EVERYWHERE["0.0.0.0"])
        return (v4,) if self.ip == "0.0.0.0" else (v4, Address(_EVERYWHERE["::"]))

    def __str__(self) -> str:
        """Return it as sockets and `--host` take it."""
        return f"{self.ip}%{self.zone}" if self.zone else self.ip


@dataclass(frozen=True)
class Tls:
    """What HAProxy needs to speak TLS.

    Attributes:
        pem: path of certificate, chain and key in one file.
        client_ca: path of the certificates that vouch for clients; None where none is asked for.
        min_version: the oldest TLS that is spoken.
    """

    pem: str
    client_ca: str | None = None
    min_version: str = "1.2"

    @property
    def words(self) -> str:
        """What follows an address behind `bind`."""
        asked = "" if self.client_ca is None else f" ca-file {self.client_ca} verify optional"
        return f"ssl crt {self.pem} alpn h2,http/1.1 ssl-min-ver TLSv{self.min_version} no-tls-tickets{asked}"


@dataclass(frozen=True)
class FrontEnd:
    """What `--host` and `--port` come to on this machine.

    Attributes:
        host: as the operator wrote it, without brackets.
        port: the port on every address.
        addresses: where HAProxy listens; several where a name means several.
        left_out: what the name means besides, and this machine lacks.
        max_connections: clients' connections at a time.
        tls: how TLS is spoken; None: plain HTTP.
        grpc_port: the port for gRPC on every address, if it is offered.
        grpc_max_bytes: of a message there.
    """

    host: str
    port: int
    addresses: tuple[Address, ...]
    left_out: tuple[Address, ...]
    max_connections: int
    tls: Tls | None = None
    grpc_port: int | None = None
    grpc_max_bytes: int = 0

    @property
    def binds(self) -> tuple[str, ...]:
        """What follows `bind` in HAProxy's configuration, one line for each address."""
        return tuple(address.bind(self.port) for address in self.addresses)

    @property
    def grpc_binds(self) -> tuple[str, ...]:
        """What follows `bind` for gRPC; empty where it is not offered."""
        if self.grpc_port is None:
            return ()
        return tuple(f"{address.bind(self.grpc_port)} proto h2" for address in self.addresses)

    @property
    def asked_at(self) -> tuple[Address, ...]:
        """Where this machine reaches the front end, at every address that it listens on."""
        return tuple(dict.fromkeys(place for address in self.addresses for place in address.asked_at))

    @property
    def url(self) -> str:
        """A URL that reaches it from this machine."""
        scheme = "http" if self.tls is None else "https"
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return f"{scheme}://{self.host}:{self.port}"
        place = self.addresses[0].asked_at[0]
        if not place.is_v6:
            return f"{scheme}://{place.ip}:{self.port}"
        zone = f"%25{place.zone}" if place.zone else ""
        return f"{scheme}://[{place.ip}{zone}]:{self.port}"

    def dump(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> Self:
        """Return what `dump` wrote."""
        values = json.loads(text)
        for name in ("addresses", "left_out"):
            values[name] = tuple(Address(**each) for each in values[name])
        values["tls"] = None if values["tls"] is None else Tls(**values["tls"])
        return cls(**values)
