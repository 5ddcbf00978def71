"""Families kept and fetched by hash."""

from __future__ import annotations

import concurrent.futures
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract.errors import FamilyError
from contract.family import Family, artifacts_of, read_family
from contract.live import FamilyReference
from runtime.fake_family import write_fake_family
from serve.control.family_store import FamilyStore, open_family_store
from serve.storage.objects import Objects, open_objects


@pytest.fixture
def family(tmp_path: Path) -> Family:
    """A family in `tmp_path/built`."""
    return write_fake_family(tmp_path / "built", rows=60)


Node = Callable[[str], FamilyStore]


@pytest.fixture
def node(place: str, tmp_path: Path) -> Node:
    """The store as a node sees it, which has a cache of its own."""
    return lambda name: open_family_store(place, tmp_path / name)


def folders(cache: Path) -> list[str]:
    """What a user of the cache sees in it."""
    return sorted(path.name for path in cache.iterdir() if not path.name.startswith("."))


def test_a_family_is_fetched_as_it_was_put_also_once_its_folder_is_another(
    node: Node, tmp_path: Path, family: Family
) -> None:
    """A rebuilt or removed folder changes nothing of what was kept."""
    reference = node("head").put(tmp_path / "built", family)
    shutil.rmtree(tmp_path / "built")
    folder = node("other").fetch(reference.sha256)
    assert read_family(folder) == family
    assert folder.is_relative_to(tmp_path / "other")


def test_an_altered_file_is_not_taken_in(node: Node, tmp_path: Path, family: Family) -> None:
    """Its hash is looked at when it is put, so that every node finds what the manifest says."""
    (tmp_path / "built" / "fake-other.json").write_text("{}")
    with pytest.raises(FamilyError, match=r"fake-other\.json"):
        node("head").put(tmp_path / "built", family)


def test_a_file_that_was_altered_in_the_store_is_not_fetched(tmp_path: Path, family: Family) -> None:
    """A node that finds another content has no folder afterwards, and says which file."""
    shared = str(tmp_path / "shared")
    reference = open_family_store(shared, tmp_path / "head").put(tmp_path / "built", family)
    blob = tmp_path / "shared" / "store" / "blobs" / family.variants[0].artifact.sha256
    blob.write_text("{}")
    with pytest.raises(FamilyError, match="altered or incomplete"):
        open_family_store(shared, tmp_path / "other").fetch(reference.sha256)
    assert folders(tmp_path / "other") == []


def test_a_file_that_was_altered_in_the_store_is_put_again(tmp_path: Path, family: Family) -> None:
    """Who has it whole mends the store by a push."""
    shared = str(tmp_path / "shared")
    head = open_family_store(shared, tmp_path / "head")
    reference = head.put(tmp_path / "built", family)
    blob = tmp_path / "shared" / "store" / "blobs" / family.variants[0].artifact.sha256
    blob.write_text("{}")
    assert head.put(tmp_path / "built", family) == reference
    assert read_family(open_family_store(shared, tmp_path / "other").fetch(reference.sha256)) == family


def test_a_folder_that_lacks_a_file_is_passed_over(tmp_path: Path, family: Family) -> None:
    """Its manifest alone is no family: what is kept is fetched."""
    store = open_family_store(str(tmp_path / "shared"), tmp_path / "node")
    reference = store.put(tmp_path / "built", family)
    assert store.locate(reference, tmp_path / "built") == tmp_path / "built"
    (tmp_path / "built" / family.variants[0].artifact.path).unlink()
    assert store.locate(reference, tmp_path / "built") == tmp_path / "node" / family.sha256


def test_what_is_found_in_the_cache_is_held_there(tmp_path: Path, family: Family) -> None:
    """Also where it was named as a folder: another process may not remove it."""
    shared = str(tmp_path / "shared")
    open_family_store(shared, tmp_path / "node").put(tmp_path / "built", family)
    first = open_family_store(shared, tmp_path / "node")
    folder = first.fetch(family.sha256)
    first.let_go(family.sha256)
    reference = FamilyReference(name=family.name, sha256=family.sha256, path="")
    second = open_family_store(shared, tmp_path / "node")
    assert second.locate(reference, folder) == folder
    open_family_store(shared, tmp_path / "node", bound_bytes=0)._make_room()
    assert read_family(folder) == family
    second.let_go(family.sha256)
    open_family_store(shared, tmp_path / "node", bound_bytes=0)._make_room()
    assert not folder.exists()


def test_a_fetch_that_was_killed_leaves_nothing_that_counts(
    node: Node, tmp_path: Path, family: Family
) -> None:
    """Half of a family is no family: the next one begins anew and brings all of it."""
    reference = node("head").put(tmp_path / "built", family)
    half = tmp_path / "other" / f".{reference.sha256}.part"
    half.mkdir(parents=True)
    (half / "family.json").write_text(json.dumps(family.dump()))
    (half / "fake-other.json").write_text("{")
    assert read_family(node("other").fetch(reference.sha256)) == family
    assert folders(tmp_path / "other") == [reference.sha256]
    assert not half.exists()


def test_what_nobody_has_put_is_refused_by_name(node: Node) -> None:
    """An unknown hash is not in the store."""
    with pytest.raises(FamilyError, match="not in the store"):
        node("head").fetch("0" * 64)


class Counting:
    """A store that counts what is asked of it."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self.got: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)

    def get(self, key: str, target: Path) -> None:
        """Count, and get."""
        self.got.append(key)
        self._objects.get(key, target)


def test_of_many_on_a_node_one_fetches(place: str, node: Node, tmp_path: Path, family: Family) -> None:
    """Eight replicas that start at a time take each file from the store once."""
    reference = node("head").put(tmp_path / "built", family)
    counting = Counting(open_objects(f"{place}/store"))
    stores = [FamilyStore(counting, tmp_path / "other") for _ in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda store: store.fetch(reference.sha256), stores))
    assert found == {tmp_path / "other" / reference.sha256}
    assert len(counting.got) == len(set(counting.got)) > 0


def test_what_another_family_of_the_node_has_is_not_fetched_again(
    place: str, tmp_path: Path, family: Family
) -> None:
    """A family that differs in its manifest alone costs its manifest, not the teacher's weights again."""
    objects = Counting(open_objects(f"{place}/store"))
    store = FamilyStore(objects, tmp_path / "other")
    renamed = family.model_copy(update={"name": "renamed"})
    for each in (family, renamed):
        store.put(tmp_path / "built", each)
    store.fetch(family.sha256)
    before = len(objects.got)
    assert read_family(store.fetch(renamed.sha256)).name == "renamed"
    assert len(objects.got) == before


def test_the_cache_keeps_to_its_bound_and_to_what_is_in_use(
    place: str, tmp_path: Path, family: Family
) -> None:
    """The longest unused goes first; what a process holds stays, whatever the bound."""
    size = sum(artifact.bytes for artifact in artifacts_of(family))
    named = [family.model_copy(update={"name": name}) for name in ("a", "b", "c")]

    def store() -> FamilyStore:
        return open_family_store(place, tmp_path / "node", 2 * size)

    for each in named:
        store().put(tmp_path / "built", each)
    holding, passing = store(), store()
    holding.fetch(named[0].sha256)
    passing.fetch(named[1].sha256)
    passing.let_go(named[1].sha256)
    passing.fetch(named[2].sha256)
    assert folders(tmp_path / "node") == sorted(each.sha256 for each in (named[0], named[2]))


def test_a_name_that_is_no_hash_is_not_made_a_path(node: Node) -> None:
    """What a revision says never leads out of the cache."""
    with pytest.raises(FamilyError, match="no sha256"):
        node("head").fetch("../../etc")


def test_a_folder_of_that_very_build_needs_no_fetching(node: Node, tmp_path: Path, family: Family) -> None:
    """A path that all nodes see is used; one that holds another build is passed over."""
    store = node("head")
    built = tmp_path / "built"
    named = FamilyReference(name=family.name, sha256=family.sha256, path=str(built))
    assert store.locate(named) == built
    store.put(built, family)
    write_fake_family(built, rows=60, seed=1)
    assert store.locate(named, tmp_path / "nothing").name == family.sha256


@pytest.mark.parametrize("torn", ["lacks a file", "short file", "empty manifest", "killed eviction"])
def test_a_folder_of_the_cache_that_is_not_whole_is_fetched_again(
    tmp_path: Path, family: Family, torn: str
) -> None:
    """As a process leaves it that is killed while it removes one, or a machine that loses its power."""
    shared, cache = str(tmp_path / "state"), tmp_path / "node"
    open_family_store(shared, cache).put(tmp_path / "built", family)
    folder = open_family_store(shared, cache).fetch(family.sha256)
    first = folder / artifacts_of(family)[0].path
    if torn == "lacks a file":
        first.unlink()
    elif torn == "short file":
        short = first.read_bytes()[:-1]
        first.unlink()  # the store may have the same file
        first.write_bytes(short)
    elif torn == "empty manifest":
        (folder / "family.json").unlink()
        (folder / "family.json").touch()
    else:
        folder.rename(cache / f".{family.sha256}.gone")
    again = open_family_store(shared, cache).fetch(family.sha256)
    assert read_family(again) == family
    assert not list(cache.glob(".*.gone"))


def test_room_is_made_before_a_family_is_fetched(
    tmp_path: Path, family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk never has to hold more than the bound; what is removed goes in one step."""
    shared, cache = str(tmp_path / "state"), tmp_path / "node"
    other = write_fake_family(tmp_path / "other", rows=60, seed=2)
    store = open_family_store(shared, cache)
    store.put(tmp_path / "built", family)
    store.put(tmp_path / "other", other)
    store.fetch(family.sha256)
    store.let_go(family.sha256)
    small = open_family_store(shared, cache, bound_bytes=sum(each.bytes for each in artifacts_of(other)))
    seen: list[list[str]] = []
    get = type(small._objects).get

    def watched(self: Any, key: str, target: Path) -> None:
        seen.append(folders(cache))
        get(self, key, target)

    monkeypatch.setattr(type(small._objects), "get", watched)
    small.fetch(other.sha256)
    assert seen
    assert family.sha256 not in {name for names in seen for name in names}


def test_a_file_that_changes_while_it_is_kept_is_told_and_mended_by_the_next_push(
    tmp_path: Path, family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No manifest names what was kept of it, and the same push again keeps the right one."""
    store = open_family_store(str(tmp_path / "state"), tmp_path / "node")
    put = type(store._objects).put
    altered = tmp_path / "altered"
    altered.write_text("{}")
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(type(store._objects), "put", lambda self, key, _: put(self, key, altered))
        with pytest.raises(FamilyError, match="changed while it was kept"):
            store.put(tmp_path / "built", family)
    assert not list((tmp_path / "state").rglob("families/*.json"))
    store.put(tmp_path / "built", family)
    assert read_family(store.fetch(family.sha256)) == family
