"""The options of the commands that steer a running gateway."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from serve.control.admin_client import DEFAULT_URL

F = TypeVar("F", bound=Callable[..., Any])


def admin_url_option(function: F) -> F:
    """Add `--admin-url`."""
    return click.option(
        "--admin-url", default=DEFAULT_URL, show_default=True, help="The gateway's admin port."
    )(function)


def family_option(function: F) -> F:
    """Add `--family`."""
    return click.option(
        "--family",
        metavar="NAME",
        help="Of several families that are served, the one meant. [default: the only one]",
    )(function)
