"""What every test here holds to: a sentence that says the behaviour, something asserted, and no sleep."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
# What fails by itself when the behaviour is not there: called on anything, `pytest.raises` as well as a
# numpy comparison or a helper whose name says that it asserts.
ASSERTS = ("raises", "fail", "warns", "match", "expect")
BEGIN = ("assert", "check", "require", "refuse", "verify")


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Return every function of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def named(call: ast.Call) -> str:
    """Return the last part of what is called."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def asserts(function: ast.AST, helpers: dict[str, bool]) -> bool:
    """Whether something in a function can fail it: an assert, an expected error, or a helper with one."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            name = named(node).lstrip("_")
            if name in ASSERTS or name.startswith(BEGIN) or helpers.get(named(node)):
                return True
    return False


def problems(source: str) -> list[str]:
    """Return what is wrong with the tests of a module."""
    tree = ast.parse(source)
    every = list(functions(tree))
    helpers = {one.name: asserts(one, {}) for one in every if not one.name.startswith("test_")}
    found = []
    for one in every:
        if one.name.startswith("test_"):
            said = ast.get_docstring(one) or ""
            if not said.rstrip().endswith("."):
                found.append(f"line {one.lineno}: {one.name} does not say its behaviour in a sentence")
            if not asserts(one, helpers):
                found.append(f"line {one.lineno}: {one.name} asserts nothing")
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and named(node) == "sleep":
            yields = node.args and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0
            if not yields:
                found.append(f"line {node.lineno}: sleeps; wait for an event instead")
    return found


@pytest.mark.parametrize(
    "path", sorted(TESTS.rglob("*.py")), ids=lambda path: path.relative_to(TESTS).as_posix()
)
def test_tests_say_what_they_protect_assert_it_and_never_sleep(path: Path) -> None:
    """Every module of tests keeps the habits; `asyncio.sleep(0)`, which lets others run, is no sleep."""
    assert problems(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ('def test_a():\n    "It is."\n    a()\n', "asserts nothing"),
        ("def test_a():\n    assert a\n", "sentence"),
        ('def test_a():\n    "It is."\n    time.sleep(1)\n    assert a\n', "sleeps"),
        ('async def test_a():\n    "It is."\n    await asyncio.sleep(0.1)\n    assert a\n', "sleeps"),
    ],
)
def test_a_module_without_the_habits_is_found(source: str, word: str) -> None:
    """A test without a sentence, without an assert or with a sleep is named."""
    assert word in "".join(problems(source))
