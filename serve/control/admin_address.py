"""Where the admin interface is, and what it asks for: on loopback as it is, elsewhere keys and TLS."""

from __future__ import annotations

from contract.errors import InputError
from serve.access.keys import KeyBook
from serve.control.exposure import beyond_loopback, check_guarded
from serve.settings.gateway import Settings


def admin_url(settings: Settings) -> str:
    """Return the URL of the admin interface."""
    host = f"[{settings.admin_host}]" if ":" in settings.admin_host else settings.admin_host
    return f"{'https' if is_encrypted(settings) else 'http'}://{host}:{settings.admin_port}"


def asks_admins(settings: Settings, book: KeyBook | None) -> bool:
    """Return whether the interface asks for a key: for ever once there was one, and always off loopback."""
    return beyond_loopback(settings.admin_host) or (book is not None and book.asks_admins)


def check_admin(settings: Settings) -> None:
    """Raise InputError where other machines would reach the interface without a key, or in the clear."""
    check_guarded("admin_host", settings.admin_host, settings, "admin")
    if beyond_loopback(settings.admin_host) and not is_encrypted(settings):
        raise InputError(
            f"other machines reach {settings.admin_host}, and keys would travel in the clear",
            where="admin_host",
            hint="tls.cert and tls.key in the settings, or --tls-cert and --tls-key",
        )


def is_encrypted(settings: Settings) -> bool:
    """Return whether the interface speaks TLS: beyond loopback, with the certificate of the settings."""
    return beyond_loopback(settings.admin_host) and settings.tls.cert is not None
