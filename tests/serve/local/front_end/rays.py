"""HAProxy's configuration as the installed Ray writes it, for tests that rewrite it."""

from __future__ import annotations

import importlib
from pathlib import Path

PORT = 28_123


def rays_configuration(folder: Path, *, port: int = PORT, grpc: bool = False) -> str:
    """What the installed Ray writes for one application with two replicas."""
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
    servers = [ray.ServerConfig(name=f"replica-{n}", host="127.0.0.1", port=30_000 + n) for n in range(2)]
    backend = ray.BackendConfig(name="http-app", path_prefix="/", servers=servers, app_name="app")
    written = folder / "haproxy.cfg"
    ray.HAProxyApi(config, {"http-app": backend}, str(written))._generate_config_file_internal()
    return written.read_text()
