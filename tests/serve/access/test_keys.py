"""Keys: shown once, kept as hashes, valid until they expire or are revoked, never brought back."""

from __future__ import annotations

import os
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import Forbidden, InputError, Unauthorized
from serve.access.gate import Gate
from serve.access.key_store import KeyStore, open_keys
from serve.access.keys import KeyLimits, created, id_of, matches, mint, revoked, rotated

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    """An empty store in a folder."""
    return open_keys(str(tmp_path))


def bearer(key: str) -> bytes:
    """The header's value."""
    return f"Bearer {key}".encode()


def key_in(store: KeyStore, name: str = "web") -> str:
    """A new key for inference."""
    key, _ = store.create(name, ("infer",), KeyLimits())
    return key


def gate_of(store: KeyStore) -> Gate:
    """A gate on the newest book of a store."""
    gate = Gate()
    book = store.latest()
    assert book is not None
    gate.take(book)
    return gate


def test_nothing_on_disk_holds_a_key_and_only_the_owner_reads_it(store: KeyStore, tmp_path: Path) -> None:
    """The secret part is in no file; the folder and its books are closed to others."""
    key = key_in(store)
    secret = key.split("_", 2)[2]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert secret not in path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700


def test_a_key_lets_in_for_its_scopes_and_for_no_other(store: KeyStore) -> None:
    """Inference keys are no admin keys, nor the other way round; one key may be both."""
    web = key_in(store)
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
    key_in(store)
    with pytest.raises(Unauthorized):
        gate_of(store).identify(shown, "infer")


def test_the_public_part_of_a_key_alone_lets_nobody_in(store: KeyStore) -> None:
    """Right id, wrong secret; and right secret, another's id."""
    web = key_in(store)
    other = key_in(store, "other")
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
    old = key_in(store)
    new, _ = store.rotate("web", timedelta(hours=1))
    store.revoke("web")
    gate = gate_of(store)
    assert gate.keyed
    for key in (old, new):
        with pytest.raises(Unauthorized):
            gate.identify(bearer(key), "infer")
    again = key_in(store)
    assert gate_of(store).identify(bearer(again), "infer").name == "web"


def test_names_that_are_taken_wrong_or_unknown_get_words(store: KeyStore) -> None:
    """Each refusal says what to do."""
    key_in(store)
    with pytest.raises(InputError, match="keys rotate web"):
        key_in(store)
    with pytest.raises(InputError, match="there are: web"):
        store.revoke("wbe")
    for name in ("", "a b", "../x", "ä", "x" * 64, 'a"b'):
        with pytest.raises(InputError, match="no name for a key"):
            key_in(store, name)
    with pytest.raises(InputError):
        revoked(None, "web", NOW)


def test_writers_beside_each_other_lose_no_key(store: KeyStore) -> None:
    """Four writers at a time: each key is in the book at the end."""
    threads = [threading.Thread(target=key_in, args=(store, f"k{n}")) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    book = store.latest()
    assert book is not None
    assert {key.name for key in book.keys} == {"k0", "k1", "k2", "k3"}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, whose files others cannot read")
def test_what_root_writes_the_service_can_read(tmp_path: Path) -> None:
    """`sudo sluice keys` beside a service leaves books, and their folder, to the owner of the state."""
    os.chown(tmp_path, 1234, 1235)
    open_keys(str(tmp_path)).create("web", ("infer",), KeyLimits())
    for path in (tmp_path / "keys", tmp_path / "keys" / "00000001.json"):
        assert (path.stat().st_uid, path.stat().st_gid) == (1234, 1235)
