"""A jar that holds nothing: what one request is told to remember is no affair of the next."""

from __future__ import annotations

from http.cookiejar import CookieJar, DefaultCookiePolicy


def no_cookies() -> CookieJar:
    """Return a cookie jar that takes none, whoever sets it."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=()))
