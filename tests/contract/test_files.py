"""Files: atomic, canonical, and inside their folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import FamilyError, InputError
from contract.files import (
    atomic_path,
    canonical_json,
    check_sha256,
    inside,
    read_json,
    sha256_of_json,
    write_json,
)

JSON_KEYS = st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=8), max_size=6)


@given(JSON_KEYS)
def test_canonical_json_ignores_key_order(value: dict[str, object]) -> None:
    """Two dictionaries with the same items have the same canonical bytes and hash."""
    turned = dict(reversed(list(value.items())))
    assert canonical_json(value) == canonical_json(turned)
    assert sha256_of_json(value) == sha256_of_json(turned)


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    """A write that fails half-way leaves the earlier content and no temporary file."""
    target = tmp_path / "a.json"
    write_json(target, {"old": 1})

    def fail_half_way() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert read_json(target) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "a\\b", ""])
def test_paths_that_leave_the_folder_are_refused(tmp_path: Path, path: str) -> None:
    """Absolute paths, parents, backslashes and empty paths are refused."""
    with pytest.raises(FamilyError, match="leaves"):
        inside(tmp_path, path)


def test_links_that_lead_outside_are_refused(tmp_path: Path) -> None:
    """A link inside the folder that points outside is refused."""
    folder = tmp_path / "family"
    folder.mkdir()
    (tmp_path / "secret").write_text("x")
    (folder / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(FamilyError, match="outside"):
        inside(folder, "link")


@pytest.mark.parametrize("path", ["a\0b", "a\ud800", "a" * 5000])
def test_what_no_file_can_be_named_is_refused(tmp_path: Path, path: str) -> None:
    """NUL, half a surrogate pair and names beyond what a file system holds."""
    with pytest.raises(FamilyError, match="no path that a file can have"):
        inside(tmp_path, path)


def test_a_byte_order_mark_is_no_part_of_json(tmp_path: Path) -> None:
    """Costs and policies that were edited on Windows begin with a mark."""
    (tmp_path / "x.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "x.json") == {"a": 1}


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    """A manifest that names such a link gets an answer."""
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(FamilyError, match=r"leads back to itself|missing"):
        check_sha256(inside(tmp_path, "loop"), "0")


@pytest.mark.parametrize(
    ("content", "rule"), [(b"{", "not JSON"), (b"\xff\xfe", "UTF-8"), (b"[" * 100_000, "not JSON")]
)
def test_unreadable_json_names_the_file_and_rule(tmp_path: Path, content: bytes, rule: str) -> None:
    """Broken, non-UTF-8 and absurdly nested files are refused by name."""
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rule) as caught:
        read_json(path)
    assert "x.json" in str(caught.value)
