"""What holds of every Serve config file."""

from __future__ import annotations

import importlib
from typing import Any


def check_serve_config(config: dict[str, Any]) -> None:
    """Check that Ray accepts it, knows every key, and puts a front door on every node at port 8000."""
    schema = importlib.import_module("ray.serve.schema")
    parsed = schema.ServeDeploySchema.model_validate(config)
    assert parsed.http_options.port == 8000
    assert parsed.proxy_location == "EveryNode"
    assert set(config) <= set(schema.ServeDeploySchema.model_fields)
    for application in config["applications"]:
        assert set(application) <= set(schema.ServeApplicationSchema.model_fields)
