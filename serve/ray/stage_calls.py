"""How a gateway replica calls a stage behind a deployment handle: asks, words that they are off, pings."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from serve.stages.call import Ask, Call, CallOff, Ping, Reply, StageUnreachable

log = logging.getLogger(__name__)

_CALL_OFF_S = 2.0


def call_through(
    handle: DeploymentHandle, variant: str, build: str, tell: Callable[[], tuple[str, int]]
) -> Call:
    """Return a call that sends asks through a deployment handle.

    `tell` says who asks, and how many texts it has outstanding.
    """
    infer = handle.infer

    async def call(asks: list[Ask]) -> list[Reply]:
        reply = infer.remote(variant, build, asks, tell())
        try:
            return list(await reply)
        except asyncio.CancelledError:
            reply.cancel()
            raise
        except RayTaskError:
            raise
        except (RayError, RayServeException) as problem:
            raise StageUnreachable(f"{variant} is not there now") from problem

    return call


def call_off_through(handle: DeploymentHandle) -> CallOff:
    """Return what tells every replica of a deployment which asks nobody waits for any more."""

    async def call_off(numbers: list[int]) -> None:
        try:
            await handle.broadcast("call_off", numbers).results_async(
                timeout_s=_CALL_OFF_S, return_exceptions=True
            )
        except (RayError, RayServeException, TimeoutError):
            log.debug("not every replica could be told what to drop", exc_info=True)

    return call_off


def ping_through(handle: DeploymentHandle, variant: str, build: str) -> Ping:
    """Return a call that asks a replica whether the variant answers in that build."""
    ready = handle.ready

    async def ping() -> bool:
        try:
            return bool(await ready.remote(variant, build))
        except (RayError, RayServeException):
            return False

    return ping
