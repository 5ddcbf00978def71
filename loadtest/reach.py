"""What there is at a URL: whether anything answers there, and whether it is this machine."""

from __future__ import annotations

import http.client
import socket
import ssl
import urllib.error
import urllib.request

from contract.errors import InputError
from contract.urls import parse_base_url
from loadtest.scrape import DIRECT, headers


def on_this_machine(url: str) -> bool:
    """Return whether a URL leads to an address of the machine that the generator runs on."""
    base = parse_base_url(url)
    try:
        found = socket.getaddrinfo(base.host, base.port, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return any(_is_own(family, address[0]) for family, _, _, _, address in found)


def _is_own(family: int, address: str | int) -> bool:
    """Only an address of one's own can be bound."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def check_answers_at(url: str, api_key: str | None = None) -> None:
    """Raise InputError unless something speaks HTTP at the URL."""
    url = str(parse_base_url(url))
    request = urllib.request.Request(f"{url}/v2/health/ready", headers=headers(api_key))
    try:
        with DIRECT.open(request, timeout=10):
            return
    except urllib.error.HTTPError:
        return
    except OSError as problem:
        reason = getattr(problem, "reason", problem)
        hint = "start a gateway with `sluice serve`"
        if isinstance(reason, ssl.SSLError):
            hint = "http:// where the gateway has no certificate, SSL_CERT_FILE where it has one of its own"
        raise InputError(f"nothing answers: {reason}", where=url, hint=hint) from None
    except http.client.HTTPException as problem:
        raise InputError(
            f"what answers there does not speak HTTP: {problem!r}",
            where=url,
            hint="another port, or https://",
        ) from None
