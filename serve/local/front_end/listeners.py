"""The sockets that clients connect to, bound once for a run and handed from one HAProxy to the next.

They belong to the launcher, so that clients who come while no HAProxy lives wait in their queue instead of
being refused. In HAProxy's configuration they are named by environment variables.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import Self

from serve.local.front_end.frontend import Address, FrontEnd

LISTENER = "SLUICE_LISTENER_"
"""Environment variable, with a number at its end: the file descriptor of one of them."""


def named(descriptors: Sequence[int]) -> dict[str, str]:
    """Return the environment that tells HAProxy its sockets."""
    return {f"{LISTENER}{n}": str(descriptor) for n, descriptor in enumerate(descriptors)}


def inherited_binds(count: int) -> list[str]:
    """Return what follows `bind` in HAProxy's configuration for so many sockets."""
    return [f"fd@${{{LISTENER}{n}}}" for n in range(count)]


class Listeners:
    """Bound sockets for every address of a front end. They listen once they are handed out."""

    def __init__(self, front: FrontEnd) -> None:
        """Bind. Raises OSError where an address is taken."""
        self._backlog = front.max_connections
        self._sockets: list[socket.socket] = []
        self._listening = False
        try:
            for address in front.addresses:
                self._sockets.append(_bound(address, front.port))
        except BaseException:
            self.close()
            raise

    def descriptors(self) -> list[int]:
        """Return their file descriptors; from now on they listen."""
        if not self._listening:
            for each in self._sockets:
                each.listen(self._backlog)
            self._listening = True
        return [each.fileno() for each in self._sockets]

    def environment(self) -> Mapping[str, str]:
        """Return what a child that inherits them is told."""
        return named(self.descriptors())

    def close(self) -> None:
        """Let go; who has them keeps them. Safe to call again."""
        for each in self._sockets:
            each.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _bound(address: Address, port: int) -> socket.socket:
    """Bind as HAProxy does; where two addresses overlap, the second fails as it does there."""
    bound = socket.socket(socket.AF_INET6 if address.is_v6 else socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address.is_v6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address.ip != "::")
        zone = socket.if_nametoindex(address.zone) if address.zone else 0
        bound.bind((address.ip, port, 0, zone) if address.is_v6 else (address.ip, port))
    except BaseException:
        bound.close()
        raise
    return bound
