"""What is open without a key, once a gateway has keys: health, and what the settings leave open."""

from __future__ import annotations

from serve.settings.access import AccessSettings

HEALTH = frozenset({"/v2/health/live", "/v2/health/ready"})
DOCS = frozenset({"/docs", "/openapi.json"})
METRICS = "/metrics"


def is_open(path: str, access: AccessSettings) -> bool:
    """Return whether a path is answered without a key; one that is written another way is not."""
    if path in HEALTH:
        return True
    if path == METRICS:
        return access.open_metrics
    return access.open_docs and path in DOCS
