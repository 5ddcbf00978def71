"""The server of the admin interface: plain on loopback, elsewhere with keys and TLS."""

from __future__ import annotations

import asyncio
import socket

import uvicorn

from serve.access.gate import Gate
from serve.control.admin_address import is_encrypted
from serve.control.admin_guard import App, Guard
from serve.control.admin_tls import context_of, follow_certificate
from serve.control.exposure import beyond_loopback
from serve.settings.gateway import Settings
from serve.settings.tls import TlsSettings


def serve_admin(app: App, gate: Gate, settings: Settings) -> asyncio.Task[None]:
    """Listen, and answer in a task of its own. Raises OSError where the address is taken."""
    host = settings.admin_host
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, settings.admin_port))
    guarded = Guard(app, gate, always_keyed=beyond_loopback(host))
    config = uvicorn.Config(
        guarded,
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        headers=[("x-content-type-options", "nosniff"), ("cache-control", "no-store")],
    )
    encrypted = is_encrypted(settings)
    config.load()
    if encrypted:
        config.ssl = context_of(settings.tls)
    return asyncio.create_task(_serve(uvicorn.Server(config), listener, settings.tls if encrypted else None))


async def _serve(server: uvicorn.Server, listener: socket.socket, tls: TlsSettings | None) -> None:
    """Answer until the server ends, and look at the certificate's files meanwhile."""
    context = server.config.ssl
    looking = None
    if tls is not None and context is not None:
        looking = asyncio.create_task(follow_certificate(context, tls))
    try:
        await server._serve([listener])
    finally:
        if looking is not None:
            looking.cancel()
