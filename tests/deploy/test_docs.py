"""The documents: every command that they name exists, every link leads somewhere, and words are in order."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from sluicegate.main import cli

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
COMMAND = re.compile(r"(?:^ {4}|`)(sluice [^`\n]+)", flags=re.M)


def _commands(page: Path) -> list[list[str]]:
    """Return the words of each `sluice ...` line, its comment left out."""
    return [found.partition("  #")[0].split() for found in COMMAND.findall(page.read_text())]


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.M)
    return {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_and_flags_exist(page: Path) -> None:
    """A reader who types what a page shows never meets "no such command" or "no such option"."""
    for words in _commands(page):
        command: click.Command = cli
        context = click.Context(cli, info_name="sluice")
        for word in words[1:]:
            if not isinstance(command, click.Group) or word.startswith("-") or word == "...":
                break
            found = command.get_command(context, word)
            assert found is not None, f"{page.name}: {' '.join(words)}"
            command = found
        flags = {flag for p in command.params for flag in (*p.opts, *p.secondary_opts)} | {"--help", "-h"}
        for word in words:
            if word.startswith("--"):
                flag = re.match(r"--[a-z0-9-]+", word)
                assert flag is not None, word
                assert flag.group() in flags | {"--version"}, f"{page.name}: {' '.join(words)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    """Every link to a file or heading of the project finds it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        other = (page.parent / name) if name else page
        assert other.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in _anchors(other), f"{page.name}: {target}"


def test_operators_guide_names_every_command_that_operators_need() -> None:
    """Serving, policies, simulation and decisions are in the guide, with at least a dozen commands."""
    named = {words[1] for words in _commands(ROOT / "docs" / "operating.md") if len(words) > 1}
    assert {"serve", "policy", "simulate", "report", "decide", "tune"} <= named


def test_glossary_is_in_order_and_names_a_word_once() -> None:
    """Entries are sorted, so that a reader finds them."""
    words = re.findall(r"^\*\*(.+?)\.\*\*", (ROOT / "docs" / "glossary.md").read_text(), flags=re.M)
    assert len(words) > 50
    assert words == sorted(set(words), key=str.lower)
