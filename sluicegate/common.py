"""What sub-commands share: options of one meaning everywhere, and the two streams."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console

F = TypeVar("F", bound=Callable[..., Any])

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
ANY_PATH = click.Path(path_type=Path)


class _Place(click.Path):
    """A folder, as an absolute path; or a place in an object store, left as it is."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the place as text."""
        if isinstance(value, str) and value.startswith("s3://"):
            return value
        return str(Path(str(super().convert(value, param, ctx))).resolve())


PLACE = _Place(file_okay=False)
PLACES = "FOLDER|s3://BUCKET/PREFIX"

progress_console = Console(stderr=True)
result_console = Console()

json_option = click.option("--json", "as_json", is_flag=True, help="Write the result to stdout as JSON.")


def provider_option(function: F) -> F:
    """Add `--provider`."""
    return click.option(
        "--provider",
        type=click.Choice(["cpu", "cuda", "tensorrt"]),
        default="cpu",
        show_default=True,
        help="ONNX Runtime execution provider. What is not installed fails at start.",
    )(function)


def watts_option(function: F) -> F:
    """Add `--watts-per-core`."""
    return click.option(
        "--watts-per-core",
        type=click.FloatRange(min=0, min_open=True),
        metavar="N",
        help="A busy CPU-second takes N joules. Default: CodeCarbon's figure.",
    )(function)


def print_json(value: Any) -> None:
    """Write one JSON document to stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
