"""The command-line reference: written from the commands, whole, with examples that parse."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
import pytest

from sluicegate.reference import Page, pages, render, take_apart

PAGES = list(pages())
WRITTEN = Path(__file__).parents[2] / "docs" / "cli.md"


def test_the_page_is_what_the_commands_say() -> None:
    """docs/cli.md is up to date: `python -m sluicegate.reference > docs/cli.md` would change nothing."""
    assert WRITTEN.read_text() == render(), "run: python -m sluicegate.reference > docs/cli.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_option_is_explained(page: Page) -> None:
    """No command, option or sub-command is left without words, and each command has an example."""
    assert page.text
    assert page.examples, f"{page.name} --help has no example"
    for parameter in page.command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{page.name} {parameter.opts[0]} has no help"
    assert f"## {page.name}\n" in WRITTEN.read_text()


@pytest.mark.parametrize(
    ("page", "example"),
    [(page, example) for page in PAGES for example in page.examples],
    ids=lambda value: None if isinstance(value, Page) else value.splitlines()[0],
)
def test_every_example_parses(page: Page, example: str) -> None:
    """Each example is accepted by the command it explains: its options, their values, its arguments."""
    words = shlex.split(example.replace("\\\n", " "))
    own = page.name.split()
    assert words[: len(own)] == own
    page.command.make_context(page.name, words[len(own) :])


def test_help_is_taken_apart_by_its_blocks() -> None:
    """Paragraphs are joined, kept blocks stay, and an example keeps the lines that continue it."""
    text, examples = take_apart(
        "Do it\nwell.\n\n\b\n  a: 1\n    b: 2\n\n\b\nExample: sluice x \\\\\n    --y\nExample: sluice z"
    )
    assert text == ("Do it well.", "    a: 1\n      b: 2")
    assert examples == ("sluice x \\\\\n    --y", "sluice z")
