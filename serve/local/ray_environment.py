"""The environment that Ray starts in: the switches of Ray, Serve and HAProxy for a gateway on one machine.

What listens where, with these switches: HAProxy's front end on the host asked for; the replicas' HTTP ports,
the admin interface and Ray's own ports on loopback. Left on all interfaces is each replica's gRPC port, which
asks for the run's token.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from serve.grpc.peers import GRPC_FROM, LOOPBACK
from serve.local.front_end.frontend import FrontEnd
from serve.local.front_end.install import wrapper_environment
from serve.local.front_end.ports import free_ports
from serve.local.run_folder import MARK

CONTROL_FOLDER = "h"
"""Folder in the run folder for HAProxy's configuration, sockets and last words."""
RAY_FOLDER = "ray"
"""Folder in the run folder for Ray's own files and logs."""


def ray_environment(folder: Path, front: FrontEnd, keeper: Path | None = None) -> dict[str, str]:
    """Return the environment of a run: this process's own, less what would steer Ray, plus the switches.

    Proxies for HTTP are left out too: whatever a run connects to is on this machine. Something that calls
    out, such as a stage behind HTTP, must be told its proxy by a setting. Writes the run's Ray token
    below `folder`, readable by the owner alone.
    """
    haproxy = folder / CONTROL_FOLDER
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    fallback_port, fallback_grpc_port = free_ports(2)
    kept = {name: value for name, value in os.environ.items() if not _steers(name)}
    return (
        kept
        | wrapper_environment(front, keeper)
        | {
            MARK: str(folder),
            "RAY_worker_niceness": "0",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's own ports on loopback alone
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
            "RAY_SERVE_HAPROXY_NBTHREAD": "1",
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "admin.sock"),
            "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(haproxy / "metrics.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "server-state"),
            "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback_port),
            "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(fallback_grpc_port),
            "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
            "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "5",
            "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "1s",
            "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
            "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
            "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S": "1",
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
            "RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS": "1",  # who fails three looks cannot drain
        }
        | _for_grpc(front)
    )


def _for_grpc(front: FrontEnd) -> dict[str, str]:
    """Return what gRPC needs: Ray's servers listen on all interfaces, and take messages of 2 GB."""
    if front.grpc_port is None:
        return {}
    return {GRPC_FROM: LOOPBACK, "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(front.grpc_max_bytes)}


def _steers(name: str) -> bool:
    """Whether a variable of ours would steer Ray, Serve, or where connections go."""
    return name.startswith(("RAY_", "SERVE_")) or name.lower().endswith("_proxy")
