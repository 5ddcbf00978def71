"""How a gateway replica reaches the ledger in Control."""

from __future__ import annotations

import asyncio

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from contract.errors import NotReady
from serve.access.exchange import Call
from serve.access.ledger import Answer, Report

_TIMEOUT_S = 2.0


def exchange_through(control: DeploymentHandle) -> Call:
    """Return a call that asks the ledger in Control."""
    exchange = control.exchange

    async def call(report: Report) -> Answer:
        try:
            answer = await asyncio.wait_for(exchange.remote(report), _TIMEOUT_S)
        except (RayError, RayServeException, TimeoutError) as problem:
            raise NotReady(f"control does not answer: {type(problem).__name__}") from problem
        if not isinstance(answer, Answer):
            raise NotReady("control cannot tell what was used before")
        return answer

    return call
