"""HAProxy's configuration as the installed Ray writes it, for tests that rewrite it."""

from __future__ import annotations

import importlib
from pathlib import Path

PORT = 28_123
UNUSED_PORT = 1
"""Of the first replica; on those of real ones a gateway of another test may answer."""


def rays_configuration(folder: Path, *, port: int = PORT, grpc: bool = False, servers: int = 2) -> str:
    """What the installed Ray writes for one application with some replicas; without any, for none."""
    ray = importlib.import_module("ray.serve._private.haproxy")
    options = importlib.import_module("ray.serve.config")
    config = ray.HAProxyConfig(
        socket_path=str(folder / "admin.sock"),
        server_state_base=str(folder),
        server_state_file=str(folder / "state"),
        http_options=options.HTTPOptions(host="127.0.0.1", port=port),
        is_head=True,
    )
    if grpc:
        config.grpc_options = options.gRPCOptions(port=9000, grpc_servicer_functions=["some.function"])
    named = [ray.ServerConfig(f"replica-{n}", "127.0.0.1", UNUSED_PORT + n) for n in range(servers)]
    backend = ray.BackendConfig(name="http-app", path_prefix="/", servers=named, app_name="app")
    config.has_received_routes = config.has_received_servers = servers > 0
    written = folder / "haproxy.cfg"
    backends = {"http-app": backend} if named else {}
    ray.HAProxyApi(config, backends, str(written))._generate_config_file_internal()
    return written.read_text()
