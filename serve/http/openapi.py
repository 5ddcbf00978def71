"""The description of the HTTP interface, as committed in docs/openapi.json."""

from __future__ import annotations

import json
from typing import Any

from contract.errors import NotReady
from serve.dataplane.plane import DataPlane
from serve.http.app import Gateway
from serve.settings.limits import RequestLimits
from serve.types.recorder import NoRecorder
from serve.types.stage import Snapshot


def build() -> dict[str, Any]:
    """Return the OpenAPI document; it does not depend on what is served."""
    limits, recorder = RequestLimits(), NoRecorder()
    gateway = Gateway(DataPlane(_nothing, limits, recorder), limits, recorder, bytes)
    return gateway.shell.openapi()


def render() -> str:
    """Return the document as committed: `python -m serve.http.openapi > docs/openapi.json`."""
    return json.dumps(build(), indent=2, ensure_ascii=False) + "\n"


def _nothing() -> Snapshot:
    raise NotReady("nothing is served")


if __name__ == "__main__":
    print(render(), end="")  # noqa: T201
