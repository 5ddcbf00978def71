"""The store of files by their sha256."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract.errors import FamilyError
from contract.files import sha256_of_bytes
from runtime.artifacts import ArtifactStore


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file to store."""
    path = tmp_path / "model.onnx"
    path.write_bytes(b"weights")
    return path


def test_what_is_put_comes_back(tmp_path: Path, source: Path) -> None:
    """A file is found by its hash, and putting it again changes nothing."""
    store = ArtifactStore(tmp_path / "store")
    digest = store.put(source)
    assert digest == sha256_of_bytes(b"weights") == store.put(source)
    assert digest in store
    assert store.get(digest).read_bytes() == b"weights"
    store.fetch(digest, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"weights"
    assert list(store.verify()) == []


def test_altered_files_are_never_handed_out(tmp_path: Path, source: Path) -> None:
    """Content that is not what its name says is an error and leaves no copy."""
    store = ArtifactStore(tmp_path / "store")
    digest = store.put(source)
    store.get(digest).write_bytes(b"other")
    assert list(store.verify()) == [digest]
    with pytest.raises(FamilyError, match="altered"):
        store.get(digest)
    with pytest.raises(FamilyError, match="altered"):
        store.fetch(digest, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("digest", ["../../etc/passwd", "", "A" * 64, "0" * 63])
def test_only_digests_name_files(tmp_path: Path, digest: str) -> None:
    """Anything but a lower-case sha256 is refused before it becomes a path."""
    with pytest.raises(FamilyError, match="not a sha256"):
        ArtifactStore(tmp_path).get(digest)


def test_absent_files_are_named(tmp_path: Path) -> None:
    """A digest that nobody put is a FamilyError."""
    store = ArtifactStore(tmp_path)
    with pytest.raises(FamilyError, match="missing"):
        store.get("0" * 64)
    with pytest.raises(FamilyError, match="no such artifact"):
        store.fetch("0" * 64, tmp_path / "copy")
