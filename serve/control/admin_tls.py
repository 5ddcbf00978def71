"""TLS at the admin interface: as the settings say, with the certificate that lies there now."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path

from serve.settings.tls import TlsSettings

log = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0
_OLDEST = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def context_of(tls: TlsSettings) -> ssl.SSLContext:
    """Return what the interface speaks by: clients show a certificate where the settings say who vouches.

    Raises OSError (of which ssl.SSLError is one) where a file is missing or not in order.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _OLDEST[tls.min_version]
    _load(context, tls)
    if tls.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


async def follow_certificate(context: ssl.SSLContext, tls: TlsSettings) -> None:
    """Take a certificate that has changed for connections to come, for ever; one not in order is tried again.

    A new `client_ca` is trusted beside the old one until the interface starts again.
    """
    seen, told = _stamps(tls), ""
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        stamps = _stamps(tls)
        if stamps == seen:
            continue
        try:
            context_of(tls)  # what is not in order must not reach the one in use by half
            _load(context, tls)
        except OSError as problem:
            if str(problem) != told:
                log.error(
                    "the admin interface keeps its certificate: the new one is not in order: %s", problem
                )
            told = str(problem)
        else:
            seen, told = stamps, ""
            log.info("the admin interface has a new certificate")


def _load(context: ssl.SSLContext, tls: TlsSettings) -> None:
    assert tls.cert is not None
    context.load_cert_chain(tls.cert, tls.key or tls.cert, password=lambda: b"")
    if tls.client_ca is not None:
        context.load_verify_locations(tls.client_ca)


def _stamps(tls: TlsSettings) -> tuple[tuple[int, int] | None, ...]:
    found: list[tuple[int, int] | None] = []
    for path in (tls.cert, tls.key, tls.client_ca):
        try:
            state = Path(path or "").stat()
            found.append((state.st_mtime_ns, state.st_ino))
        except OSError:
            found.append(None)
    return tuple(found)
