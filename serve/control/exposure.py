"""Who can reach a gateway, and whether that is meant: beyond loopback a key is asked for, or `--insecure`."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime

from contract.errors import InputError
from serve.access.key_store import open_keys
from serve.access.keys import Scope
from serve.settings.gateway import Settings


def beyond_loopback(host: str) -> bool:
    """Return whether other machines may reach what listens on an address; a name but localhost counts so."""
    try:
        return not ipaddress.ip_address(host.strip("[]").partition("%")[0]).is_loopback
    except ValueError:
        return host.lower() != "localhost"


def check_guarded(where: str, host: str, settings: Settings, scope: Scope = "infer") -> None:
    """Refuse to let other machines ask without a key.

    Args:
        where: the flag or setting that says where to listen.
        host: that address.
        settings: of the gateway.
        scope: of the key that would be asked for.

    Raises:
        InputError: other machines reach the address, there is no valid key, and nobody said `--insecure`,
            which opens the front door and never the admin interface; or the keys cannot be read.
    """
    opened = settings.access.insecure and scope == "infer"
    if not beyond_loopback(host) or opened or _has_key(settings, scope):
        return
    state = settings.state or "DIR"
    again = "" if settings.state else f" and --state {state} here"
    raise InputError(
        f"other machines reach {host}, and there is no key with the scope {scope} to show",
        where=where,
        hint=f"sluice keys create NAME --scope {scope} --state {state}{again}"
        + ("; or --insecure, and whoever reaches the port may ask" if scope == "infer" else ""),
    )


def _has_key(settings: Settings, scope: Scope) -> bool:
    if settings.state is None:
        return False
    book = open_keys(settings.state).latest()
    return book is not None and bool(book.valid(datetime.now(UTC), scope))
