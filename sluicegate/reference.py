"""The command-line reference, written from the commands themselves: `python -m sluicegate.reference`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import cleandoc
from textwrap import dedent, indent

import click

from sluicegate.main import cli

START = """# The command line

Every command and option, as `sluice COMMAND --help` shows them. This page is written by
`python -m sluicegate.reference > docs/cli.md`, and a test compares the two.

Results go to stdout (`--json` for programs), progress and problems to stderr. Exit codes: 0 done, 1 failed,
2 wrong usage, 3 ran but the target was not met, 130 interrupted. `python -m sluicegate` is the same command
where the script `sluice` is not on the path.

Completion of commands and options, for bash (zsh_source and fish_source likewise):

    eval "$(_SLUICE_COMPLETE=bash_source sluice)"
"""


@dataclass(frozen=True)
class Page:
    """One command: its words (`sluice policy push`), its object, and its help text taken apart.

    Attributes:
        text: paragraphs and preformatted blocks, as Markdown.
        examples: commands to type, continued lines kept.
    """

    name: str
    command: click.Command
    context: click.Context
    text: tuple[str, ...]
    examples: tuple[str, ...]


def pages() -> Iterator[Page]:
    """Yield every command in the order of the work, sub-commands after their group."""
    yield from _pages(cli, click.Context(cli, info_name="sluice"))


def _pages(group: click.Group, context: click.Context) -> Iterator[Page]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        inner = click.Context(command, info_name=name, parent=context)
        text, examples = take_apart(command.help or "")
        yield Page(inner.command_path, command, inner, text, examples)
        if isinstance(command, click.Group):
            yield from _pages(command, inner)


def take_apart(help_text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    r"""Return a help text's paragraphs and its examples; `\b` starts a block that keeps its lines."""
    text: list[str] = []
    examples: list[str] = []
    for block in re.split(r"\n\s*\n", cleandoc(help_text)):
        kept = block.startswith("\b")
        lines = block.removeprefix("\b").strip("\n").splitlines()
        if lines and lines[0].startswith("Example:"):
            for line in lines:
                if line.startswith("Example:"):
                    examples.append(line.removeprefix("Example:").strip())
                elif examples:
                    examples[-1] += f"\n{line}"
        elif kept:
            text.append(indent(dedent("\n".join(lines)), "    "))
        else:
            text.append(" ".join(line.strip() for line in lines))
    return tuple(text), tuple(examples)


def _options(page: Page) -> Iterator[str]:
    for parameter in page.command.get_params(page.context):
        record = parameter.get_help_record(page.context)
        if record is not None and "--help" not in parameter.opts:
            flags, meaning = record
            if meaning:
                yield f"- `{flags}`: {' '.join(meaning.split())}"


def render() -> str:
    """Return the whole page as Markdown."""
    parts = [START]
    for page in pages():
        usage = " ".join([page.name, *page.command.collect_usage_pieces(page.context)])
        parts.append(f"## {page.name}\n\n`{usage}`\n")
        parts += [f"{paragraph}\n" for paragraph in page.text]
        options = list(_options(page))
        if options:
            parts.append("\n".join(options) + "\n")
        if page.examples:
            shown = "\n".join(f"    {line}" for example in page.examples for line in example.splitlines())
            parts.append(f"{'Example' if len(page.examples) == 1 else 'Examples'}:\n\n{shown}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.stdout.write(render())
