"""TLS at the front door, and at the admin interface where it leaves loopback."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from serve.settings.record import Setting


class TlsSettings(Setting):
    """Where certificates are, and how old a protocol may be."""

    cert: str | None = Field(
        default=None, description="Absolute path of the certificate with its chain, as PEM; null: no TLS"
    )
    key: str | None = Field(default=None, description="Of its key; null: the key is in the same file")
    client_ca: str | None = Field(
        default=None,
        description="Certificates that vouch for clients, who must show one then; null: none is asked",
    )
    min_version: Literal["1.2", "1.3"] = "1.2"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.cert is None and (self.key is not None or self.client_ca is not None):
            raise ValueError("tls.key and tls.client_ca go with tls.cert")
        return self
