"""The flags of every command that reads labelled files, with one meaning in all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def column_options(function: F) -> F:
    """Add `--text`, `--label` and `--slice`; each is None where it is not given."""
    for decorate in (
        click.option(
            "--slice",
            "slice_column",
            metavar="COLUMN",
            help="Column of slices; `slice`, if there, by default.",
        ),
        click.option("--label", metavar="COLUMN", help="Column of labels, in place of `label`."),
        click.option(
            "--text", metavar="COLUMN", help="Column of texts, in place of `text`; a.b goes inside."
        ),
    ):
        function = decorate(function)
    return function


def tell(notes: tuple[str, ...]) -> None:
    """Say on stderr what a user should know of how the data were read."""
    for note in notes:
        click.echo(f"data: {note}", err=True)
