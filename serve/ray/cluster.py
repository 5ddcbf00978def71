"""The gateway for `serve deploy` and KubeRay: the application that a Serve config file names.

Ray runs already, with the switches in its environment (deploy/ray.env); what `sluice serve` does on one
machine before Ray starts is the operator's part there.
"""

from __future__ import annotations

import logging
import os
import secrets
import tempfile
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator
from ray import serve as ray_serve

from contract.errors import EnvironmentProblem, InputError
from contract.records import first_problem
from serve.control.admin_address import check_admin
from serve.control.bootstrap import assign
from serve.control.exposure import beyond_loopback, check_guarded
from serve.ray.deployments import make_application
from serve.settings.file import read_settings
from serve.settings.gateway import Settings
from serve.settings.record import Setting
from serve.telemetry.dead_files import DEPLOY_PREFIX

SWITCHES = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_AUTH_MODE": "token",
}

MESSAGE_SIZE = "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE"


class ClusterArguments(Setting):
    """`args` of the application in a Serve config file."""

    settings: Settings | None = None
    settings_file: str | None = Field(
        default=None, description="In place of `settings`: a file on the node that builds the application"
    )
    metrics: str = Field(
        default="/tmp",
        description="Folder on every node; each deploy makes one of its own in it for its processes' metrics",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.settings is None) == (self.settings_file is None):
            raise ValueError("give settings or settings_file, and not both")
        return self

    def read(self) -> Settings:
        """Return the settings. Raises InputError where the file breaks a rule."""
        return self.settings or read_settings(Path(str(self.settings_file)))[0]


def application(args: dict[str, Any]) -> ray_serve.Application:
    """Return the whole gateway as one Serve application.

    Args:
        args: the JSON form of ClusterArguments. The settings need `family`, `families` or `fake`, which only
            the node that builds the application has to see, and `state`, a folder that every node sees or
            s3://BUCKET/PREFIX; `host` and `port` only describe what `http_options` sets.

    Raises:
        InputError: an argument breaks a rule, or family and policy do not fit.
        EnvironmentProblem: Ray runs without the switches that the gateway is built on.
    """
    try:
        given = ClusterArguments.model_validate(args)
    except ValidationError as problem:
        raise InputError(first_problem(problem), where="args", hint="see deploy/ray-serve.yaml") from None
    missing = [name for name, value in SWITCHES.items() if os.environ.get(name) != value]
    if missing:
        raise EnvironmentProblem(
            f"Ray was started without {', '.join(missing)}", hint="start every node with deploy/ray.env"
        )
    settings = given.read()
    if settings.state is None:
        raise InputError("settings.state is needed: every node must see the same revisions", where="args")
    _check_message_size(settings)
    _check_has_effect(settings)
    check_guarded("settings.host", settings.host, settings)
    check_admin(settings)
    metrics = Path(given.metrics) / f"{DEPLOY_PREFIX}{secrets.token_hex(8)}"
    scratch = Path(tempfile.mkdtemp(prefix="sluicegate-"))
    # At this level it is in the logs of the deploy, whatever Ray leaves out of them.
    tell = logging.getLogger(__name__).warning
    return make_application(assign(settings, scratch, tell, share=True), metrics, many_nodes=True)


def _check_message_size(settings: Settings) -> None:
    """Raise EnvironmentProblem where Ray's gRPC servers read more of a message than one may be."""
    wanted = str(settings.limits.max_message_bytes)
    if settings.grpc_port is not None and os.environ.get(MESSAGE_SIZE) != wanted:
        raise EnvironmentProblem(
            f"with grpc_port Ray must be started with {MESSAGE_SIZE}={wanted}: else its servers read "
            "messages of 2 GiB before anybody has shown a key",
            hint="start every node with deploy/ray.env, and change it there with limits.max_body_bytes",
        )


def _check_has_effect(settings: Settings) -> None:
    """Raise InputError for certificates that nobody would show: on a cluster Ray's own front doors stand."""
    if settings.tls.cert is not None and not beyond_loopback(settings.admin_host):
        raise InputError(
            "settings.tls has no effect on a cluster whose admin interface stays on loopback",
            where="args",
            hint="leave it out: TLS for clients is the load balancer's",
        )
