"""What a process of the gateway does beside requests: it tells of its stages, and changes gears."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping

from serve.dataplane.plane import DataPlane
from serve.stages.inline import InlineStage
from serve.stages.remote import RemoteStage
from serve.telemetry.metrics import Telemetry
from serve.types.recorder import BreakerState

ACCOUNT_EVERY_S = 0.5
_SHIFT_EVERY_S = 0.05
_BADNESS: tuple[BreakerState, ...] = ("closed", "half_open", "open")

OfFamily = tuple[str, InlineStage | RemoteStage]
"""A stage, and the name that its family is served under."""


def states_of(stages: Iterable[OfFamily]) -> dict[tuple[str, str], BreakerState]:
    """Return the worst state of the breakers by family and variant."""
    states: dict[tuple[str, str], BreakerState] = {}
    for family, stage in stages:
        state, key = stage.look(), (family, stage.variant)
        if _BADNESS.index(state) >= _BADNESS.index(states.get(key, "closed")):
            states[key] = state
    return states


def queued_at(stages: Iterable[OfFamily]) -> dict[tuple[str, str], int]:
    """Return the texts that wait or run by family and variant."""
    waiting: dict[tuple[str, str], int] = {}
    for family, stage in stages:
        waiting[family, stage.variant] = waiting.get((family, stage.variant), 0) + stage.queued
    return waiting


async def shift_gears(planes: Callable[[], Iterable[DataPlane]]) -> None:
    """Have each family take the gear that its load asks for, for ever, off the path of requests."""
    while True:
        for plane in planes():
            plane.shift()
        await asyncio.sleep(_SHIFT_EVERY_S)


async def account(
    telemetry: Telemetry,
    queued: Callable[[], Mapping[tuple[str, str], int]],
    book: Callable[[], None] = lambda: None,
) -> None:
    """Book this process's CPU time, queue lengths and what `book` does twice a second, for ever.

    `queued` gives the texts that wait, by family and variant.
    """
    while True:
        book()
        telemetry.account_for_the_rest(time.process_time())
        for (family, variant), items in queued().items():
            telemetry.queue_items.labels(family, variant).set(items)
        await asyncio.sleep(ACCOUNT_EVERY_S)
