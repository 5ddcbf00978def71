"""The replicas of a running gateway and of its stages, reached by broadcast."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from ray import serve as ray_serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from contract.errors import NotReady
from serve.control.evidence import ReplicaCounts
from serve.control.plane import ReplicaState

APPLICATION = "sluicegate"
GATEWAY = "gateway"

_BROADCAST_S = 20.0
_ANSWER_S = 3.0
"""For what every replica answers at once: who takes longer is left out, and catches up by itself."""


class AllReplicas:
    """The replicas of gateway and stages, reached by broadcast.

    Args:
        stages: deployments that hold variants outside the gateway.
        loading_s: the longest that loading a family may take.
    """

    def __init__(self, stages: tuple[str, ...] = (), loading_s: float = _BROADCAST_S) -> None:
        self._stages = stages
        self._loading_s = loading_s
        self._handles: dict[str, DeploymentHandle] = {}

    def of(self, family: str, place: str) -> OneFamily:
        """Return the same replicas for a family: the name that it is served under, its place in the state."""
        return OneFamily(self, family, place)

    async def prepare(
        self, revision: dict[str, Any], family: str, place: str, *, stages: bool
    ) -> list[str | None]:
        """See serve.control.Replicas; `family` is served, or to be, and `place` is where its state lies."""
        if not stages:
            return list(await self._all(GATEWAY, "prepare", revision, family, place))
        complaints = await self._stages_prepare(revision, family)
        if any(complaints):
            return complaints
        gateways = await self._all(GATEWAY, "prepare", revision, family, place, within_s=self._loading_s)
        if any(gateways):
            return list(gateways)
        # Those that have it answer at once; those that began to run meanwhile load it.
        return [*await self._stages_prepare(revision, family), *gateways]

    async def _stages_prepare(self, revision: dict[str, Any], family: str) -> list[str | None]:
        asked = [
            self._all(name, "prepare", revision, family, within_s=self._loading_s) for name in self._stages
        ]
        return [complaint for found in await asyncio.gather(*asked) for complaint in found]

    async def forget(self, family: str = "") -> None:
        """See serve.control.Replicas."""
        for name in (GATEWAY, *self._stages):
            with suppress(NotReady):
                await self._all(name, "forget", family, keep_errors=True)

    async def catch_up(self, family: str = "") -> list[ReplicaState]:
        """See serve.control.Replicas; without a family, they follow which are in force."""
        replies = await self._all(GATEWAY, "catch_up", family, keep_errors=True)
        states = [reply for reply in replies if isinstance(reply, ReplicaState)]
        if not states:
            raise NotReady("no gateway replica answers")
        return states

    async def counts(self, family: str = "") -> list[ReplicaCounts]:
        """See serve.control.Witnesses."""
        replies = await self._all(GATEWAY, "counts", family, keep_errors=True)
        return [reply for reply in replies if isinstance(reply, ReplicaCounts)]

    async def ready(self) -> bool:
        """Return whether every stage of the policy answers, seen from every replica."""
        try:
            return all(await self._all(GATEWAY, "ready"))
        except NotReady:
            return False

    async def _all(
        self,
        deployment: str,
        method: str,
        *given: Any,
        keep_errors: bool = False,
        within_s: float = _BROADCAST_S,
    ) -> list[Any]:
        try:
            if deployment not in self._handles:
                self._handles[deployment] = ray_serve.get_deployment_handle(
                    deployment, APPLICATION, _check_exists=False
                )
            replies = self._handles[deployment].broadcast(method, *given)
            if not keep_errors:
                return list(await replies.results_async(timeout_s=within_s))
            # In a thread, since there each replica has the time to itself: one on a node that lost its power
            # closes no connection, and would take the answers of the others with it.
            return list(await asyncio.to_thread(replies.results, timeout_s=_ANSWER_S, return_exceptions=True))
        except (RayError, RayServeException, TimeoutError) as problem:
            kind = "gateway" if deployment == GATEWAY else deployment
            raise NotReady(f"not every {kind} replica answers: {type(problem).__name__}") from problem


class OneFamily:
    """All replicas, asked about one family.

    Args:
        replicas: of gateway and stages.
        family: name that it is served under.
        place: where its state lies.
    """

    def __init__(self, replicas: AllReplicas, family: str, place: str) -> None:
        self._replicas = replicas
        self._family = family
        self._place = place

    async def prepare(self, revision: dict[str, Any], *, stages: bool) -> list[str | None]:
        """See serve.control.Replicas."""
        return await self._replicas.prepare(revision, self._family, self._place, stages=stages)

    async def forget(self) -> None:
        """See serve.control.Replicas."""
        await self._replicas.forget(self._family)

    async def catch_up(self) -> list[ReplicaState]:
        """See serve.control.Replicas."""
        return await self._replicas.catch_up(self._family)

    async def counts(self) -> list[ReplicaCounts]:
        """See serve.control.Witnesses."""
        return await self._replicas.counts(self._family)
