"""The address of a gateway as users write it, read once and the same way by every command."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from contract.errors import InputError

_PORTS = {"http": 80, "https": 443}
_ENDS = (
    "/v1/classify",
    "/v1/decisions",
    "/v1/systemone",
    "/infer",
    "/v2/health/ready",
    "/v2/health/live",
    "/metrics",
    "/docs",
    "/openapi.json",
)
# A user name, or one with a password, which people also write with / and # in it; a port is none.
_CREDENTIALS = re.compile(r"(?<=//)(?:[^\s/?#]*|[^\s/?#@:]+:(?!\d+(?:[/?#\s]|$))\S*)@")
_QUERY = re.compile(r"(//[^\s?]+)\?[^\s'\"]+")
_NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?\.?", re.IGNORECASE)


@dataclass(frozen=True)
class BaseUrl:
    """Where a gateway answers.

    Attributes:
        scheme: `http` or `https`.
        host: name or address, an IPv6 address without brackets, a link-local one with its network card.
        port: as given, or the scheme's own.
        prefix: path before the gateway's own paths, such as `/models`; empty or without a slash at its end.
    """

    scheme: str
    host: str
    port: int
    prefix: str = ""

    @property
    def netloc(self) -> str:
        """Host and port as in the header Host: brackets around IPv6, no port where it is the scheme's own."""
        host = f"[{self.host.replace('%', '%25')}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        """Return the URL without a slash at its end, so that a path can follow."""
        return f"{self.scheme}://{self.netloc}{self.prefix}"


def without_password(text: str, sign: str = "") -> str:
    """Return a text with every address in it shown without what gives access.

    User names and passwords go, a sign in their place, and so does the query, which holds keys.
    """
    return _QUERY.sub(r"\1?…", _CREDENTIALS.sub(sign, text))


def parse_base_url(given: str, *, where: str = "URL") -> BaseUrl:
    """Return the address that a user gave; `http://` may be left out, a slash may end it, a path may follow.

    Raises:
        InputError: another scheme, no host, a bad port, a bare IPv6 address, credentials, a query or a
            fragment, or the whole path of one call; says what to give instead.
    """
    text = given.strip()
    given = without_password(given if "//" in given else f"//{given}", "…@").removeprefix("//")
    if re.match(r"https?:(?!//)", text, re.IGNORECASE):
        raise InputError(f"{given!r} lacks slashes after the scheme", where=where, hint="http://HOST:PORT")
    if "://" not in text:
        text = f"http://{text.removeprefix('//')}"
    if _CREDENTIALS.search(text):
        raise InputError(
            "a user name or password in the URL is not sent to the gateway", where=where, hint="--api-key KEY"
        )
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as problem:
        raise InputError(
            f"{given!r} is not a URL: {problem}", where=where,
            hint="http://HOST:PORT, with brackets around an IPv6 address: http://[::1]:8000",
        ) from None  # fmt: skip
    if parts.scheme not in _PORTS:
        raise InputError(f"{parts.scheme}:// is not http:// or https://", where=where)
    if parts.query or parts.fragment or text.endswith(("?", "#")):
        raise InputError(f"{given!r} ends in a query or a fragment", where=where, hint="http://HOST:PORT")
    if parts.netloc.count(":") > 1 and "[" not in parts.netloc:
        raise InputError(
            f"{given!r} has an IPv6 address without brackets", where=where, hint="http://[::1]:8000"
        )
    if port == 0:
        raise InputError(f"{given!r} names port 0, where nothing can answer", where=where)
    path = re.sub("/{2,}", "/", parts.path).rstrip("/")
    for end in _ENDS:
        if path.endswith(end):
            raise InputError(
                f"{given!r} is the address of one call", where=where,
                hint=f"the address that comes before {end}",
            )  # fmt: skip
    if not path.isascii() or re.search(r"[\x00-\x20]", path):
        raise InputError(f"the path of {given!r} has characters that must be written as %XX", where=where)
    return BaseUrl(parts.scheme, _checked_host(host, given, where), port or _PORTS[parts.scheme], path)


def _checked_host(host: str, given: str, where: str) -> str:
    if ":" in host:
        host = host.replace("%25", "%", 1)  # the sign before the network card, as URLs write it
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise InputError(f"{given!r}: {host!r} is no IPv6 address", where=where) from None
        return host
    try:
        host = host.encode("idna").decode() if not host.isascii() else host
    except UnicodeError:
        host = ""
    if not _NAME.fullmatch(host):
        raise InputError(f"{given!r} names no host", where=where, hint="http://HOST:PORT")
    return host
