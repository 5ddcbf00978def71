"""Where questions go that no family here answers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from contract.remote import Credentials
from serve.settings.record import Setting

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class UpstreamSettings(Setting):
    """A decision endpoint that is asked what no family here answers."""

    url: str = Field(
        description="What clients have as their base URL, such as https://api.example.com/v1; `/decisions` "
        "follows it"
    )
    key_env: str | None = Field(
        default=None,
        description="Environment variable of the replicas that holds its key; without one and without "
        "key_file: the client's own key goes on, as long as this gateway has no keys",
    )
    key_file: str | None = Field(
        default=None, description="Absolute path of a file that holds its key; read at each request"
    )
    timeout_s: float = Field(default=30.0, gt=0, description="For an answer; a nearer deadline counts")
    connect_s: float = Field(default=2.0, gt=0, description="For a connection")
    max_in_flight: int = Field(default=256, ge=1, description="Requests out per gateway replica; beyond: 429")
    max_reply_bytes: int = Field(default=1 << 23, gt=0, description="Longer replies are refused")
    usd_per_1k: float | None = Field(
        default=None, ge=0, allow_inf_nan=False, description="Price of 1,000 questions, for costs and quotas"
    )

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, given: str) -> str:
        try:
            parts = urlsplit(given)
            fits = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            fits = False
        if not fits:
            raise ValueError("the upstream's url must be http://HOST[:PORT]/... or https://HOST/...")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError(
                "the upstream's url holds no user name, password or query: see key_env and key_file"
            )
        return given.rstrip("/")

    @property
    def credentials(self) -> Credentials | None:
        """Where its key lies; None where this gateway has none for it."""
        if self.key_env is None and self.key_file is None:
            return None
        return Credentials(env=self.key_env, file=self.key_file)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.key_env is not None and self.key_file is not None:
            raise ValueError("give upstream.key_env or upstream.key_file, and not both")
        if self.key_env is not None and not _VARIABLE.fullmatch(self.key_env):
            raise ValueError("upstream.key_env is the name of an environment variable, not a key")
        if self.key_file is not None and not Path(self.key_file).is_absolute():
            raise ValueError("upstream.key_file must be an absolute path: replicas do not run in your folder")
        return self
