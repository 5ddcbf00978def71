"""Where the admin interface listens, and how: on loopback as it is, elsewhere with keys and TLS."""

from __future__ import annotations

import asyncio
import socket

import uvicorn

from contract.errors import InputError
from serve.access.gate import Gate
from serve.access.keys import KeyBook
from serve.control.admin_guard import App, Guard
from serve.control.admin_tls import context_of, follow_certificate
from serve.control.exposure import beyond_loopback, check_guarded
from serve.settings.gateway import Settings
from serve.settings.tls import TlsSettings


def admin_url(settings: Settings) -> str:
    """Return the URL of the admin interface."""
    host = f"[{settings.admin_host}]" if ":" in settings.admin_host else settings.admin_host
    return f"{'https' if _is_encrypted(settings) else 'http'}://{host}:{settings.admin_port}"


def asks_admins(settings: Settings, book: KeyBook | None) -> bool:
    """Return whether the interface asks for a key: for ever once there was one, and always off loopback."""
    return beyond_loopback(settings.admin_host) or (book is not None and book.asks_admins)


def check_admin(settings: Settings) -> None:
    """Raise InputError where other machines would reach the interface without a key, or in the clear."""
    check_guarded("admin_host", settings.admin_host, settings, "admin")
    if beyond_loopback(settings.admin_host) and not _is_encrypted(settings):
        raise InputError(
            f"other machines reach {settings.admin_host}, and keys would travel in the clear",
            where="admin_host",
            hint="tls.cert and tls.key in the settings, or --tls-cert and --tls-key",
        )


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
    encrypted = _is_encrypted(settings)
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


def _is_encrypted(settings: Settings) -> bool:
    return beyond_loopback(settings.admin_host) and settings.tls.cert is not None
