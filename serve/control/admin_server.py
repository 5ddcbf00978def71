"""Where the admin interface listens, and how: on loopback as it is, elsewhere with keys and TLS."""

from __future__ import annotations

import asyncio
import socket

import uvicorn

from contract.errors import InputError
from serve.access.gate import Gate
from serve.control.admin_guard import App, Guard
from serve.control.exposure import beyond_loopback, check_guarded
from serve.settings.gateway import Settings


def admin_url(settings: Settings) -> str:
    """Return the URL of the admin interface."""
    host = f"[{settings.admin_host}]" if ":" in settings.admin_host else settings.admin_host
    return f"{'https' if _is_encrypted(settings) else 'http'}://{host}:{settings.admin_port}"


def check_admin(settings: Settings) -> None:
    """Raise InputError where other machines would reach the interface without a key, or in the clear."""
    check_guarded("admin_host", settings.admin_host, settings, "admin")
    exposed = beyond_loopback(settings.admin_host) and not settings.access.insecure
    if exposed and not _is_encrypted(settings):
        raise InputError(
            f"other machines reach {settings.admin_host}, and keys would travel in the clear",
            where="admin_host",
            hint="tls.cert and tls.key in the settings, or --tls-cert and --tls-key",
        )


def serve_admin(app: App, gate: Gate, settings: Settings) -> asyncio.Task[None]:
    """Listen, and answer in a task of its own. Raises OSError where the address is taken."""
    host, beyond = settings.admin_host, beyond_loopback(settings.admin_host)
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, settings.admin_port))
    insecure = settings.access.insecure
    guarded = Guard(app, gate, always_keyed=beyond and not insecure, any_host=beyond and insecure)
    encrypted = _is_encrypted(settings)
    server = uvicorn.Server(
        uvicorn.Config(
            guarded,
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            headers=[("x-content-type-options", "nosniff"), ("cache-control", "no-store")],
            ssl_certfile=settings.tls.cert if encrypted else None,
            ssl_keyfile=(settings.tls.key or settings.tls.cert) if encrypted else None,
        )
    )
    return asyncio.create_task(server._serve([listener]))


def _is_encrypted(settings: Settings) -> bool:
    return beyond_loopback(settings.admin_host) and settings.tls.cert is not None
