"""Who may reach a gateway."""

from __future__ import annotations

from pydantic import Field

from serve.settings.record import Setting


class AccessSettings(Setting):
    """What is asked of those who reach the gateway, once it has keys."""

    insecure: bool = Field(
        default=False, description="Listen beyond loopback although there is no key: whoever reaches it, asks"
    )
    open_metrics: bool = Field(default=False, description="/metrics without a key")
    policy_keys: tuple[str, ...] = Field(
        default=(),
        description="Public keys (`sluice policy keygen`); only policies that one of them signed come into "
        "force. Empty: any may",
    )
    open_docs: bool = Field(default=False, description="/docs and /openapi.json without a key")
