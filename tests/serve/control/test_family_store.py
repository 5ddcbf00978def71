"""Families kept and fetched by hash."""

from __future__ import annotations

import concurrent.futures
import shutil
from pathlib import Path

import pytest

from contract.errors import FamilyError
from contract.family import Family, read_family
from contract.live import FamilyReference
from runtime.fake_family import write_fake_family
from serve.control.family_store import FamilyStore, FolderBlobs


@pytest.fixture
def family(tmp_path: Path) -> Family:
    """A family in `tmp_path/built`."""
    return write_fake_family(tmp_path / "built", rows=60)


def node(tmp_path: Path, name: str) -> FamilyStore:
    """The store as one node sees it."""
    return FamilyStore(FolderBlobs(tmp_path / "shared"), tmp_path / name)


def test_a_family_is_fetched_as_it_was_put_also_once_its_folder_is_another(
    tmp_path: Path, family: Family
) -> None:
    """A rebuilt or removed folder changes nothing of what was kept."""
    reference = node(tmp_path, "head").put(tmp_path / "built", family)
    shutil.rmtree(tmp_path / "built")
    folder = node(tmp_path, "other").fetch(reference.sha256)
    assert read_family(folder) == family
    assert folder.is_relative_to(tmp_path / "other")


def test_an_altered_file_is_not_taken_in(tmp_path: Path, family: Family) -> None:
    """Its hash is looked at when it is put, so that every node finds what the manifest says."""
    (tmp_path / "built" / "fake-other.json").write_text("{}")
    with pytest.raises(FamilyError, match=r"fake-other\.json"):
        node(tmp_path, "head").put(tmp_path / "built", family)


def test_a_file_that_was_altered_in_the_store_is_not_fetched(tmp_path: Path, family: Family) -> None:
    """A node that finds another content has no folder afterwards, and says which file."""
    reference = node(tmp_path, "head").put(tmp_path / "built", family)
    blob = tmp_path / "shared" / "blobs" / family.variants[0].artifact.sha256
    blob.write_text("{}")
    with pytest.raises(FamilyError, match="altered or incomplete"):
        node(tmp_path, "other").fetch(reference.sha256)
    assert list((tmp_path / "other").iterdir()) == []


def test_what_nobody_has_put_is_refused_by_name(tmp_path: Path) -> None:
    """An unknown hash is not in the store."""
    with pytest.raises(FamilyError, match="not in the store"):
        node(tmp_path, "head").fetch("0" * 64)


def test_processes_of_a_node_may_fetch_at_the_same_time(tmp_path: Path, family: Family) -> None:
    """Whoever is first moves the folder into place; the others use it."""
    reference = node(tmp_path, "head").put(tmp_path / "built", family)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        stores = [node(tmp_path, "other") for _ in range(8)]
        found = set(pool.map(lambda store: store.fetch(reference.sha256), stores))
    assert len(found) == 1
    assert [path.name for path in (tmp_path / "other").iterdir()] == [reference.sha256]


def test_a_folder_of_that_very_build_needs_no_fetching(tmp_path: Path, family: Family) -> None:
    """A path that all nodes see is used; one that holds another build is passed over."""
    store = node(tmp_path, "head")
    built = tmp_path / "built"
    named = FamilyReference(name=family.name, sha256=family.sha256, path=str(built))
    assert store.locate(named) == built
    store.put(built, family)
    write_fake_family(built, rows=60, seed=1)
    assert store.locate(named, tmp_path / "nothing").name == family.sha256
