"""The documents: every command that they name exists, every link leads somewhere, and words are in order."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from textwrap import dedent, indent

import click
import pytest

from sluicegate.main import cli

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
COMMAND = re.compile(r"(?:^ {4}|`)(sluice [^`\n]+)", flags=re.M)
DECISIONS = ROOT / "docs" / "decisions"


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
            if not isinstance(command, click.Group) or word[0] in "-[" or word in {"...", "COMMAND"}:
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


def _whole_commands(page: Path) -> list[list[str]]:
    """Return the words of each command that stands in a code block of its own, continued lines joined."""
    text = re.sub(r"^```\w*\n(.*?)^```", lambda m: indent(m[1], "    "), page.read_text(), flags=re.M | re.S)
    blocks = "\n".join(line for line in text.splitlines() if line.startswith("    "))
    joined = re.sub(r"\\\n\s*", " ", dedent(blocks))
    return [
        shlex.split(re.split(r" [&|>]", line)[0], comments=True)
        for line in joined.splitlines()
        if line.startswith("sluice ") and "->" not in line  # an arrow draws, nobody types it
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_parse(page: Path) -> None:
    """What a page shows in a block of its own is a whole command: options with values, all arguments."""
    for words in _whole_commands(page):
        if "..." in words:
            continue
        command: click.Command = cli
        context, rest = click.Context(cli, info_name="sluice"), words[1:]
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            found = command.get_command(context, rest[0])
            assert found is not None, " ".join(words)
            command, rest = found, rest[1:]
        if "--help" in rest or isinstance(command, click.Group):
            continue
        try:
            command.make_context(words[1], rest)
        except click.ClickException as problem:
            pytest.fail(f"{page.name}: {' '.join(words)}: {problem.format_message()}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_modules_to_run_exist(page: Path) -> None:
    """Every `python -m MODULE` of this project that a page names can be run."""
    own = {path.name for path in ROOT.iterdir() if path.is_dir()}
    for module in re.findall(r"python3? -m ([a-z_.]+[a-z_])", page.read_text()):
        if module.partition(".")[0] in own:
            path = ROOT.joinpath(*module.split("."))
            assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_make_targets_exist(page: Path) -> None:
    """Every `make TARGET` that a page names is one."""
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    for target in re.findall(r"(?:`|^ {4})make ([a-z0-9-]+)", page.read_text(), flags=re.M):
        assert target in targets, f"{page.name}: make {target}"


def test_decisions_are_all_listed_under_their_titles() -> None:
    """The index names every decision page once, with its date and title, oldest first."""
    entries = re.findall(r"^- (\S+) \[(.+)\]\((.+)\)$", (DECISIONS / "README.md").read_text(), flags=re.M)
    pages = sorted(path for path in DECISIONS.glob("*.md") if path.name != "README.md")
    titles = [path.read_text().partition("\n")[0].removeprefix("# ") for path in pages]
    expected = [(path.name[:10], title, path.name) for path, title in zip(pages, titles, strict=True)]
    assert sorted(entries, key=lambda entry: entry[2]) == expected
    assert [date for date, _, _ in entries] == sorted(date for date, _, _ in entries)


def test_operators_guide_names_every_command_that_operators_need() -> None:
    """Serving, policies, simulation and decisions are in the guide, with at least a dozen commands."""
    named = {words[1] for words in _commands(ROOT / "docs" / "operating.md") if len(words) > 1}
    assert {"serve", "policy", "simulate", "report", "decide", "tune"} <= named


def test_glossary_is_in_order_and_names_a_word_once() -> None:
    """Entries are sorted, so that a reader finds them."""
    words = re.findall(r"^\*\*(.+?)\.\*\*", (ROOT / "docs" / "glossary.md").read_text(), flags=re.M)
    assert len(words) > 50
    assert words == sorted(set(words), key=str.lower)
