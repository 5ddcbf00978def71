"""Keys: shown once, kept as hashes, valid until they expire or are revoked, never brought back."""

from __future__ import annotations

import json
import os
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import Forbidden, InputError, NotReady, Unauthorized
from serve.access.follower import KeyFollower
from serve.access.gate import Gate
from serve.access.key_store import KeyStore, open_keys
from serve.access.keys import KeyLimits, created, id_of, matches, mint, revoked, rotated
from serve.storage.objects import Objects, StoreUnreachable, open_objects

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    """An empty store in a folder."""
    return open_keys(str(tmp_path))


def bearer(key: str) -> bytes:
    """The header's value."""
    return f"Bearer {key}".encode()


def gate_of(store: KeyStore) -> Gate:
    """A gate on the newest book of a store."""
    gate = Gate()
    book = store.latest()
    assert book is not None
    gate.take(book)
    return gate


def test_nothing_on_disk_holds_a_key_and_only_the_owner_reads_it(store: KeyStore, tmp_path: Path) -> None:
    """The secret part is in no file; the folder and its books are closed to others."""
    key, _ = store.create("web", ("infer",), KeyLimits())
    secret = key.rsplit("_", 1)[-1] if "_" not in key.split("_", 2)[2] else key.split("_", 2)[2]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert secret not in path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700


def test_a_key_lets_in_for_its_scopes_and_for_no_other(store: KeyStore) -> None:
    """Inference keys are no admin keys, nor the other way round; one key may be both."""
    web, _ = store.create("web", ("infer",), KeyLimits())
    both, _ = store.create("both", ("infer", "admin"), KeyLimits())
    gate = gate_of(store)
    assert gate.identify(bearer(web), "infer").name == "web"
    assert gate.identify(bearer(web), None).name == "web"
    assert gate.identify(bearer(both), "admin").name == "both"
    with pytest.raises(Forbidden, match="admin"):
        gate.identify(bearer(web), "admin")


@pytest.mark.parametrize(
    "shown",
    [None, b"", b"Basic abc", b"Bearer", b"Bearer ", b"Bearer x", b"Bearer sluice_", b"Bearer sluice_a_b",
     b"Bearer sluice_\xff\xfe_x", b"Bearer " + b"sluice_" * 1000],
)  # fmt: skip
def test_what_is_no_key_is_refused(store: KeyStore, shown: bytes | None) -> None:
    """Whatever the header holds, the answer is that a valid key is needed."""
    store.create("web", ("infer",), KeyLimits())
    with pytest.raises(Unauthorized):
        gate_of(store).identify(shown, "infer")


def test_the_public_part_of_a_key_alone_lets_nobody_in(store: KeyStore) -> None:
    """Right id, wrong secret; and right secret, another's id."""
    web, _ = store.create("web", ("infer",), KeyLimits())
    other, _ = store.create("other", ("infer",), KeyLimits())
    gate = gate_of(store)
    mixed = "_".join([*web.split("_", 2)[:2], other.split("_", 2)[2]])
    for wrong in (web[:-1], web + "x", mixed, web.replace("sluice", "Sluice")):
        with pytest.raises(Unauthorized):
            gate.identify(bearer(wrong), "infer")


@given(st.binary(max_size=200))
def test_random_bytes_are_never_a_key(shown: bytes) -> None:
    """No bytes raise anything else, and none match."""
    _, record = mint("web", ("infer",), KeyLimits(), NOW)
    gate = Gate()
    gate.take(created(None, record, NOW))
    with pytest.raises(Unauthorized):
        gate.identify(b"Bearer " + shown, "infer")
    assert not matches(shown, bytes.fromhex(record.sha256))
    assert not matches(shown, None)


def test_keys_have_256_bits_and_a_public_id() -> None:
    """Two keys share nothing but the mark; the id finds the record."""
    keys = [mint("web", ("infer",), KeyLimits(), NOW) for _ in range(50)]
    assert len({key for key, _ in keys}) == len({record.id for _, record in keys}) == 50
    for key, record in keys:
        assert id_of(key.encode()) == record.id
        assert len(key.split("_", 2)[2]) == 43  # 32 bytes in base64


def test_after_a_rotation_both_keys_are_valid_until_the_overlap_ends() -> None:
    """The new key has name, scopes and limits of the old one; the old one ends by itself."""
    limits = KeyLimits(rate_per_s=5)
    _, first = mint("web", ("infer",), limits, NOW)
    book = created(None, first, NOW)
    _, book = rotated(book, "web", timedelta(hours=1), NOW)
    assert [key.name for key in book.valid(NOW + timedelta(minutes=59), "infer")] == ["web", "web"]
    assert [key.id for key in book.valid(NOW + timedelta(minutes=60), "infer")] == [book.keys[-1].id]
    assert book.keys[-1].limits == limits


def test_a_second_rotation_gives_the_first_key_no_more_time() -> None:
    """An overlap ends no later than it was to end."""
    _, first = mint("web", ("infer",), KeyLimits(), NOW)
    _, book = rotated(created(None, first, NOW), "web", timedelta(minutes=5), NOW)
    _, book = rotated(book, "web", timedelta(hours=9), NOW)
    assert len(book.valid(NOW + timedelta(minutes=6), "infer")) == 2


def test_revoking_ends_every_key_of_the_name_and_frees_it(store: KeyStore) -> None:
    """Old and new key of a rotation go together; the gate asks for keys even when none is left."""
    old, _ = store.create("web", ("infer",), KeyLimits())
    new, _ = store.rotate("web", timedelta(hours=1))
    store.revoke("web")
    gate = gate_of(store)
    assert gate.keyed
    for key in (old, new):
        with pytest.raises(Unauthorized):
            gate.identify(bearer(key), "infer")
    again, _ = store.create("web", ("infer",), KeyLimits())
    assert gate_of(store).identify(bearer(again), "infer").name == "web"


def test_names_that_are_taken_wrong_or_unknown_get_words(store: KeyStore) -> None:
    """Each refusal says what to do."""
    store.create("web", ("infer",), KeyLimits())
    with pytest.raises(InputError, match="keys rotate web"):
        store.create("web", ("infer",), KeyLimits())
    with pytest.raises(InputError, match="there are: web"):
        store.revoke("wbe")
    for name in ("", "a b", "../x", "ä", "x" * 64, 'a"b'):
        with pytest.raises(InputError, match="no name for a key"):
            store.create(name, ("infer",), KeyLimits())
    with pytest.raises(InputError):
        revoked(None, "web", NOW)


def test_writers_beside_each_other_lose_no_key(store: KeyStore) -> None:
    """Four writers at a time: each key is in the book at the end."""
    threads = [
        threading.Thread(target=store.create, args=(f"k{n}", ("infer",), KeyLimits())) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    book = store.latest()
    assert book is not None
    assert {key.name for key in book.keys} == {"k0", "k1", "k2", "k3"}


@pytest.mark.anyio
async def test_a_book_that_cannot_be_read_shuts_the_gate_until_one_can(
    store: KeyStore, tmp_path: Path
) -> None:
    """It may revoke a key: rather nobody is let in than somebody who must not be."""
    web, _ = store.create("web", ("infer",), KeyLimits())
    gate = Gate()
    follower = KeyFollower(store, gate)
    await follower.catch_up()
    (tmp_path / "keys" / "00000002.json").write_text("{")
    await follower.catch_up()
    with pytest.raises(NotReady):
        gate.identify(bearer(web), "infer")
    (tmp_path / "keys" / "00000002.json").unlink()
    store.create("other", ("infer",), KeyLimits())
    await follower.catch_up()
    assert gate.identify(bearer(web), "infer").name == "web"


@pytest.mark.anyio
async def test_a_state_directory_that_vanishes_leaves_the_keys_as_they_are(
    store: KeyStore, tmp_path: Path
) -> None:
    """Nothing newer is known, so what is known holds."""
    web, _ = store.create("web", ("infer",), KeyLimits())
    gate = Gate()
    follower = KeyFollower(store, gate)
    await follower.catch_up()
    (tmp_path / "keys").rename(tmp_path / "away")
    await follower.catch_up()
    assert gate.identify(bearer(web), "infer").name == "web"


@pytest.mark.anyio
async def test_nobody_is_let_in_before_it_is_known_whether_there_are_keys(tmp_path: Path) -> None:
    """A process that starts while the keys cannot be read asks for one, and opens once it has looked."""
    reachable = open_objects(str(tmp_path))
    for keyed in (False, True):
        if keyed:
            web, _ = KeyStore(reachable).create("web", ("infer",), KeyLimits())
        objects, gate = Cut(reachable), Gate()
        follower = KeyFollower(KeyStore(objects), gate)
        await follower.catch_up()
        assert gate.keyed
        with pytest.raises(NotReady):
            gate.identify(None, "infer")
        objects.is_away = False
        await follower.catch_up()
        assert gate.keyed is keyed
        assert not gate.is_shut
    assert gate.identify(bearer(web), "infer").name == "web"


@pytest.mark.anyio
async def test_removing_a_broken_book_puts_the_keys_before_it_in_force_again(
    store: KeyStore, tmp_path: Path
) -> None:
    """No key has to change for that."""
    web, _ = store.create("web", ("infer",), KeyLimits())
    gate = Gate()
    follower = KeyFollower(store, gate)
    await follower.catch_up()
    (tmp_path / "keys" / "00000002.json").write_text("{")
    await follower.catch_up()
    assert gate.is_shut
    (tmp_path / "keys" / "00000002.json").unlink()
    await follower.catch_up()
    assert gate.identify(bearer(web), "infer").name == "web"


@pytest.mark.anyio
@pytest.mark.parametrize("problem", [PermissionError(13, "Permission denied"), OSError(5, "I/O error")])
async def test_a_book_that_is_listed_and_not_readable_shuts_the_gate(
    store: KeyStore, tmp_path: Path, problem: OSError
) -> None:
    """What was written by another user may revoke a key, and so may what a disk does not give back."""
    web, _ = store.create("web", ("infer",), KeyLimits())
    gate, objects = Gate(), Unreadable(open_objects(str(tmp_path)), problem)
    follower = KeyFollower(KeyStore(objects), gate)
    await follower.catch_up()
    store.revoke("web")
    objects.is_broken = True
    await follower.catch_up()
    with pytest.raises(NotReady):
        gate.identify(bearer(web), "infer")
    objects.is_broken = False
    await follower.catch_up()
    with pytest.raises(Unauthorized):
        gate.identify(bearer(web), "infer")


@pytest.mark.anyio
@pytest.mark.parametrize(
    "wrong",
    [{"sha256": "00"}, {"sha256": "z" * 64}, {"expires_at": "soon"}, {"expires_at": "2026-11-29T12:00:00"}],
)
async def test_a_record_that_no_gate_can_check_is_refused_when_it_is_read(
    store: KeyStore, tmp_path: Path, wrong: dict[str, str]
) -> None:
    """The error names file and field, the gate is shut, and following goes on."""
    web, _ = store.create("web", ("infer",), KeyLimits())
    gate = Gate()
    follower = KeyFollower(store, gate)
    await follower.catch_up()
    raw = json.loads((tmp_path / "keys" / "00000001.json").read_text())
    raw["number"] = 2
    raw["keys"][0] |= wrong
    (tmp_path / "keys" / "00000002.json").write_text(json.dumps(raw))
    with pytest.raises(InputError, match=rf"00000002\.json: keys\.0\.{next(iter(wrong))}"):
        store.latest()
    await follower.catch_up()
    with pytest.raises(NotReady):
        gate.identify(bearer(web), "infer")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, whose files others cannot read")
def test_what_root_writes_the_service_can_read(tmp_path: Path) -> None:
    """`sudo sluice keys` beside a service leaves books, and their folder, to the owner of the state."""
    os.chown(tmp_path, 1234, 1235)
    open_keys(str(tmp_path)).create("web", ("infer",), KeyLimits())
    for path in (tmp_path / "keys", tmp_path / "keys" / "00000001.json"):
        assert (path.stat().st_uid, path.stat().st_gid) == (1234, 1235)


class Unreadable:
    """A store that lists what it does not give, once somebody says so."""

    def __init__(self, objects: Objects, problem: OSError) -> None:
        self._objects = objects
        self._problem = problem
        self.is_broken = False

    def read(self, key: str) -> bytes:
        """See Objects."""
        if self.is_broken:
            raise self._problem
        return self._objects.read(key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)


class Cut:
    """A store that cannot be reached until somebody says so."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self.is_away = True

    def __getattr__(self, name: str) -> Any:
        if self.is_away:
            raise StoreUnreachable("the store does not answer")
        return getattr(self._objects, name)


@pytest.mark.anyio
async def test_a_store_that_is_away_is_told_once_with_its_reason(
    store: KeyStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One line when it goes and one when it is back, however often it is asked."""
    objects = Cut(open_objects(str(tmp_path)))
    follower = KeyFollower(KeyStore(objects), Gate())
    for _ in range(5):
        await follower.catch_up()
    objects.is_away = False
    for _ in range(5):
        await follower.catch_up()
    away, back = caplog.records
    assert "the store does not answer" in away.getMessage()
    assert "can be reached again" in back.getMessage()
