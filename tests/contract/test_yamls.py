"""YAML files are read strictly: what YAML would drop in silence is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract.errors import InputError
from contract.yamls import parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: 1\nb: 2\na: 3\n", "the key 'a' stands twice(?s:.*)line 3"),
        (b"x:\n  - {a: 1, a: 1}\n", "the key 'a' stands twice"),
        (b"a: [1", "not readable YAML"),
        (b"a: 2024-02-30", "not readable YAML"),
        (b"[" * 20_000, "not readable YAML"),
        (b"a: \xff", "not readable YAML"),
        (b"a: 1\n---\nb: 2\n", "not readable YAML"),
    ],
)
def test_what_is_lost_or_broken_is_refused_with_its_line(tmp_path: Path, content: bytes, said: str) -> None:
    """A key that stands twice, days that do not exist, endless nesting, two documents."""
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_yaml(tmp_path / "x.yaml")
    with pytest.raises(InputError, match="no such file"):
        read_yaml(tmp_path / "none.yaml")


def test_keys_may_be_merged_and_shared(tmp_path: Path) -> None:
    """Overriding a merged key is no second key; a file may begin with a byte-order mark, or be empty."""
    text = "base: &b {a: 1, c: 3}\nx: &x {<<: *b, a: 2}\ny: {<<: *x, c: 4}\nz: [*b, *b]\n"
    (tmp_path / "x.yaml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    found = read_yaml(tmp_path / "x.yaml")
    assert (found["x"], found["y"]) == ({"a": 2, "c": 3}, {"a": 2, "c": 4})
    assert found["z"] == [{"a": 1, "c": 3}] * 2
    assert parse_yaml("# nothing\n") is None
