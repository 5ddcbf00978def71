"""The recorded search for each peer's best settings, by number of clients."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.gateway.driving import Driven, drive
from bench.gateway.servers import Options, Places, running

CLIENTS = (1, 16, 64)
SPACE: Mapping[str, Sequence[Options]] = {
    "fastapi": [
        {"WORKERS": 1, "THREADS": 1},
        {"WORKERS": 1, "THREADS": 2},
        {"WORKERS": 2, "THREADS": 1},
        {"WORKERS": 3, "THREADS": 1},
    ],
    "litserve": [
        {"WORKERS": 1, "API_SERVERS": 1, "BATCH": 1},
        {"WORKERS": 1, "API_SERVERS": 1, "BATCH": 16},
        {"WORKERS": 1, "API_SERVERS": 2, "BATCH": 16},
        {"WORKERS": 2, "API_SERVERS": 1, "BATCH": 16},
        {"WORKERS": 1, "API_SERVERS": 1, "BATCH": 16, "FAST": 1},
        {"WORKERS": 2, "API_SERVERS": 2, "BATCH": 16, "FAST": 1},
    ],
    "mlserver": [
        {"WORKERS": 0, "BATCH": 1},
        {"WORKERS": 0, "BATCH": 16},
        {"WORKERS": 2, "BATCH": 1},
        {"WORKERS": 2, "BATCH": 16},
    ],
    "bentoml": [
        {"WORKERS": 1, "BATCH": 1},
        {"WORKERS": 2, "BATCH": 1},
        {"WORKERS": 1, "BATCH": 16},
        {"WORKERS": 2, "BATCH": 16},
    ],
}


@dataclass(frozen=True)
class Tried:
    """What a peer did with some settings."""

    peer: str
    options: Options
    driven: tuple[Driven, ...]

    def at(self, clients: int) -> Driven:
        """Return what it did with so many clients."""
        return next(found for found in self.driven if found.clients == clients)

    def to_json(self) -> dict[str, Any]:
        """Return the figures by name."""
        return {
            "peer": self.peer,
            "options": dict(self.options),
            "driven": [driven.to_json() for driven in self.driven],
        }


def search(peer: str, places: Places, texts: list[str], seconds: float) -> list[Tried]:
    """Drive a peer with each of its settings at 1, 16 and 64 clients."""
    found = []
    for options in SPACE[peer]:
        with running(peer, options, places) as server:
            drive(server, texts, 4, 1.0)
            driven = tuple(drive(server, texts, clients, seconds) for clients in CLIENTS)
        found.append(Tried(peer, options, driven))
        told = ", ".join(f"{d.per_s:.0f}/s at {d.clients}" for d in driven)
        print(f"{peer} {dict(options)}: {told}", file=sys.stderr)
    return found
