"""The short way into a gateway replica over gRPC: Ray Serve's ingress, without its bookkeeping per request.

Ray Serve calls `add_servicer` for every gRPC server that it starts: in each gateway replica, and in the proxy
that stands in while there is none. Methods of a service that passes through are run by that server itself.
These servers listen on all interfaces, which cannot be set: on one machine they answer to HAProxy alone.
"""

from __future__ import annotations

import os
from typing import Any

from serve.grpc.messages import SERVICE
from serve.grpc.peers import GRPC_FROM, LOOPBACK, LOOPBACK_PEERS
from serve.grpc.service import InferenceService, handlers

IMPORT_PATH = "serve.ray.grpc_ingress.add_servicer"

_here: list[InferenceService] = []


def options(port: int | None) -> dict[str, Any] | None:
    """Return Serve's gRPC options; None where gRPC is not offered."""
    return None if port is None else {"port": port, "grpc_servicer_functions": [IMPORT_PATH]}


def install(service: InferenceService) -> None:
    """Name the service that this process answers with; there is one per process."""
    _here[:] = [service]


def add_servicer(_: Any, server: Any) -> None:
    """Add our service to a server of Ray's."""
    only_from = LOOPBACK_PEERS if os.environ.get(GRPC_FROM) == LOOPBACK else ()
    server.add_passthrough_service(SERVICE)
    server.add_generic_rpc_handlers((handlers(lambda: _here[0] if _here else None, only_from=only_from),))
