"""The request id in the replies that the hot routes do not write."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.wire.request_ids import HEADER, request_id_in


class Identified:
    """ASGI middleware: adds `x-request-id` to every reply that has none."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI event stream."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        identity = request_id_in(scope["headers"])

        async def identified(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                if all(name != HEADER for name, _ in headers):
                    message = {**message, "headers": [*headers, (HEADER, identity)]}
            await send(message)

        await self._app(scope, receive, identified)
