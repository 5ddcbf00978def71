"""Which code decides a step's result: found by reading modules, without importing them."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from contract.errors import SluiceError

OWN = ("compress", "router", "runtime", "tables")
# These decide a result through the step's configuration or its inputs' hashes, only carry a step out, or
# repeat in C what modules beside them do.
ELSEWHERE = frozenset(
    {
        "compress.datasets.data",
        "compress.datasets.sources",
        "compress.recipes.data_part",
        "compress.recipes.learning_parts",
        "compress.recipes.parts",
        "compress.recipes.recipe",
        "compress.steps",
        "compress.store",
        "runtime.ngrams._scoring",
    }
)


@cache
def code_of(*modules: str) -> tuple[str, ...]:
    """Return some modules and all of this project's compress, router and runtime that they import, sorted.

    Raises:
        SluiceError: when a module is missing.
    """
    found, queue = set(modules), list(modules)
    while queue:
        for name in _imported(queue.pop()) - found:
            found.add(name)
            queue.append(name)
    return tuple(sorted(found))


@cache
def code_version(modules: tuple[str, ...]) -> str:
    """Return a hash of what some modules do: their syntax trees, without docstrings, comments and layout."""
    digest = hashlib.sha256()
    for name in modules:
        tree = _tree(name)
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
                node.body = node.body[1:]
        digest.update(ast.dump(tree).encode())
    return digest.hexdigest()


def _imported(module: str) -> set[str]:
    names = {node.module or "" for node in ast.walk(_tree(module)) if isinstance(node, ast.ImportFrom)}
    return {name for name in names if name.partition(".")[0] in OWN} - ELSEWHERE


def _tree(module: str) -> ast.Module:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise SluiceError(f"the module {module!r} of a step is missing")
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
