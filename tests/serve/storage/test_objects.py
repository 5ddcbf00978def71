"""Bytes under keys: the same of a folder and of an S3-compatible store."""

from __future__ import annotations

import concurrent.futures
import os
from pathlib import Path

import pytest

from contract.errors import EnvironmentProblem
from serve.storage.objects import FolderObjects, Objects, StoreUnreachable, open_objects
from tests.ports import free_port


@pytest.fixture
def objects(place: str) -> Objects:
    """An empty store."""
    return open_objects(place)


def test_what_was_created_is_read_again_and_never_replaced(objects: Objects) -> None:
    """A second writer of a key is refused, and the first one's bytes stay."""
    objects.create("a/1", b"first")
    with pytest.raises(FileExistsError):
        objects.create("a/1", b"second")
    assert objects.read("a/1") == b"first"
    assert objects.holds("a/1")


def test_of_many_writers_of_one_key_exactly_one_is_told_that_it_wrote(objects: Objects) -> None:
    """Two nodes never both believe that their revision has the number."""

    def write(number: int) -> bool:
        try:
            objects.create("a/1", str(number).encode())
        except FileExistsError:
            return False
        return True

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        won = list(pool.map(write, range(8)))
    assert sum(won) == 1
    assert objects.read("a/1") == str(won.index(True)).encode()


def test_what_is_not_there_is_said_to_be_not_there(objects: Objects, tmp_path: Path) -> None:
    """An absent key is another thing than a store that cannot be asked."""
    assert not objects.holds("a/1")
    assert objects.keys("a") == []
    with pytest.raises(FileNotFoundError):
        objects.read("a/1")
    with pytest.raises(FileNotFoundError):
        objects.get("a/1", tmp_path / "target")


def test_keys_of_a_folder_come_in_order_and_without_those_below(objects: Objects) -> None:
    """A list is of one folder, and may begin after a key."""
    for key in ("a/2", "a/1", "a/3", "a/b/4", "ab/5"):
        objects.create(key, b"x")
    assert objects.keys("a") == ["a/1", "a/2", "a/3"]
    assert objects.keys("a", after="a/1") == ["a/2", "a/3"]


def test_files_come_back_as_they_were_put(objects: Objects, tmp_path: Path) -> None:
    """Large content goes by files; putting it again does no harm."""
    content = os.urandom(11 * 1024 * 1024)
    source = tmp_path / "source"
    source.write_bytes(content)
    objects.put("blobs/1", source)
    objects.put("blobs/1", source)
    objects.get("blobs/1", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == content


def test_a_link_whose_answer_was_lost_is_known_as_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS may ask for a link twice; the second answer says "exists" of the first one's own work."""
    link = os.link

    def twice(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr("serve.storage.objects.os.link", twice)
    FolderObjects(tmp_path).create("a/1", b"mine")
    assert (tmp_path / "a" / "1").read_bytes() == b"mine"


def test_a_store_that_does_not_answer_is_an_os_error_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica that polls goes on serving, and knows that it knows nothing newer."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    objects = open_objects("s3://bucket/prefix")
    with pytest.raises(StoreUnreachable, match="s3://bucket/prefix/a/1"):
        objects.read("a/1")


def test_a_bucket_that_is_not_there_is_not_taken_for_an_empty_one(bucket: str) -> None:
    """A misspelt bucket would else look like a state that begins."""
    objects = open_objects("s3://no-such-bucket/prefix")
    for ask in (lambda: objects.keys("a"), lambda: objects.create("a/1", b"")):
        with pytest.raises(StoreUnreachable, match="no bucket"):
            ask()


def test_a_place_that_names_no_bucket_is_refused_with_the_next_step() -> None:
    """What cannot be a place is said at start, not at the first push."""
    with pytest.raises(EnvironmentProblem, match="AWS_ENDPOINT_URL"):
        open_objects("s3://")
