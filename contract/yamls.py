"""YAML files as people write them: read once and the same way, a key that stands twice refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from contract.errors import InputError


def read_yaml(path: Path, *, error: Callable[..., InputError] = InputError) -> Any:
    """Read a YAML file.

    Raises:
        InputError: (of the kind given) when it cannot be read, is not YAML, or gives one key twice, of which
            YAML itself would keep the last without a word.
    """
    try:
        return parse_yaml(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise error("there is no such file", where=path) from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as problem:
        raise error(f"not readable YAML: {problem}", where=path) from None


def parse_yaml(text: str) -> Any:
    """Return the value of one YAML document. Raises yaml.YAMLError, ValueError or RecursionError."""
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _require_single_keys(node)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def line_of(text: str, keys: Sequence[int | str]) -> int | None:
    """Return the line, from 1, of what stands under these keys and places in lists; None where unreadable.

    A key that is not there leaves the line of the mapping in which it is missing; names that are not from
    the document, as of a choice between two forms, are passed over.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    if node is None:
        return None
    line = node.start_mark.line
    for wanted in keys:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode) and key.value == str(wanted):
                    line, node = key.start_mark.line, value
                    break
        elif isinstance(node, yaml.SequenceNode) and isinstance(wanted, int) and wanted < len(node.value):
            node = node.value[wanted]
            line = node.start_mark.line
    return int(line) + 1


def _require_single_keys(node: yaml.Node) -> None:
    waiting, seen = [node], {id(node)}
    while waiting:
        here = waiting.pop()
        inner: list[yaml.Node] = []
        if isinstance(here, yaml.MappingNode):
            found: set[tuple[str, str]] = set()
            for key, value in here.value:
                inner.append(value)
                if not isinstance(key, yaml.ScalarNode):
                    continue
                if (key.tag, key.value) in found:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value!r} stands twice in one mapping",
                        problem_mark=key.start_mark,
                    )
                found.add((key.tag, key.value))
        elif isinstance(here, yaml.SequenceNode):
            inner = list(here.value)
        for one in inner:
            if id(one) not in seen:
                seen.add(id(one))
                waiting.append(one)
