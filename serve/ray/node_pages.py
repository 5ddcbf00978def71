"""What the processes of every node have counted, for the page that any front door gives."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import ray
from ray import serve as ray_serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from serve.telemetry.shared_page import SharedPage

log = logging.getLogger(__name__)

_ANSWER_S = 3.0
_DEPLOYMENT_S = 10.0
"""All replicas of a deployment together; whoever has not answered then is left out."""


async def page_of_this_node(counts: SharedPage) -> tuple[str, bytes]:
    """Return this node's name, and what all processes of the gateway on it have counted."""
    return ray.get_runtime_context().get_node_id(), await counts()


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
        self._threads = ThreadPoolExecutor(len(deployments), "nodes")

    def __call__(self) -> dict[str, bytes]:
        """Return each node's page by its name, without nodes that do not answer; called in a thread."""
        return asyncio.run_coroutine_threadsafe(self._ask(), self._loop).result(2 * _DEPLOYMENT_S)

    async def _ask(self) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for answers in await asyncio.gather(*map(self._ask_all_of, self._handles)):
            found.update(answer for answer in answers if isinstance(answer, tuple))
        return found

    async def _ask_all_of(self, handle: DeploymentHandle) -> list[Any]:
        try:
            replies = handle.broadcast("page_of_this_node")
            # In a thread, since there each replica has the time to itself.
            collect = partial(replies.results, timeout_s=_ANSWER_S, return_exceptions=True)
            async with asyncio.timeout(_DEPLOYMENT_S):
                return list(await self._loop.run_in_executor(self._threads, collect))
        except (RayError, RayServeException, TimeoutError):
            log.exception("nodes are left out of the metrics")
            return []
