"""What the processes of every node have counted, for the page that any front door gives."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import ray
from ray import serve as ray_serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from serve.telemetry.metrics import Telemetry

log = logging.getLogger(__name__)

_ANSWER_S = 3.0


async def page_of_this_node(telemetry: Telemetry) -> tuple[str, bytes]:
    """Return this node's name, and what all processes of the gateway on it have counted."""
    return ray.get_runtime_context().get_node_id(), await asyncio.to_thread(telemetry.counts)


class NodePages:
    """Asks a process on every node. Made on the event loop, on which handles have their routers.

    Args:
        deployments: whose replicas are asked; every node that counts anything has one of them.
        application: theirs.
    """

    def __init__(self, deployments: tuple[str, ...], application: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._handles = [
            ray_serve.get_deployment_handle(name, application, _check_exists=False) for name in deployments
        ]

    def __call__(self) -> dict[str, bytes]:
        """Return each node's page by its name, without nodes that do not answer; called in a thread."""
        return asyncio.run_coroutine_threadsafe(self._ask(), self._loop).result()

    async def _ask(self) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for answers in await asyncio.gather(*map(self._ask_all_of, self._handles)):
            found.update(answer for answer in answers if isinstance(answer, tuple))
        return found

    async def _ask_all_of(self, handle: DeploymentHandle) -> list[Any]:
        try:
            replies = handle.broadcast("page_of_this_node")
            # In a thread, since there each replica has the time to itself.
            return list(await asyncio.to_thread(replies.results, timeout_s=_ANSWER_S, return_exceptions=True))
        except (RayError, RayServeException, TimeoutError):
            log.exception("nodes are left out of the metrics")
            return []
