"""What a gate does while the books of keys that it follows change, break, or are out of reach."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contract.errors import InputError, NotReady, Unauthorized
from serve.access.follower import KeyFollower
from serve.access.gate import Gate
from serve.access.key_store import KeyStore, open_keys
from serve.access.keys import KeyLimits
from serve.storage.objects import Objects, StoreUnreachable, open_objects

pytestmark = pytest.mark.anyio


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


class Followed:
    """A store with one key, `web`, and a gate that follows it, by a view of the store of its own if given."""

    def __init__(self, folder: Path, view: Any = None) -> None:
        self.store = open_keys(str(folder))
        self.web, _ = self.store.create("web", ("infer",), KeyLimits())
        self.gate = Gate()
        self.follower = KeyFollower(self.store if view is None else KeyStore(view), self.gate)
        self.second_book = folder / "keys" / "00000002.json"

    async def look(self) -> None:
        """Follow what is in the store now."""
        await self.follower.catch_up()

    def lets_in(self, key: str | None = None) -> str:
        """Whom the gate takes the holder of the key for."""
        return self.gate.identify(f"Bearer {key or self.web}".encode(), "infer").name


@pytest.fixture
async def followed(tmp_path: Path) -> Followed:
    """A store whose one key is in force at the gate."""
    made = Followed(tmp_path)
    await made.look()
    return made


async def test_a_book_that_cannot_be_read_shuts_the_gate_until_one_can(followed: Followed) -> None:
    """It may revoke a key: rather nobody is let in than somebody who must not be."""
    followed.second_book.write_text("{")
    await followed.look()
    with pytest.raises(NotReady):
        followed.lets_in()
    followed.second_book.unlink()
    followed.store.create("other", ("infer",), KeyLimits())
    await followed.look()
    assert followed.lets_in() == "web"


async def test_a_state_directory_that_vanishes_leaves_the_keys_as_they_are(
    followed: Followed, tmp_path: Path
) -> None:
    """Nothing newer is known, so what is known holds."""
    (tmp_path / "keys").rename(tmp_path / "away")
    await followed.look()
    assert followed.lets_in() == "web"


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
    assert gate.identify(f"Bearer {web}".encode(), "infer").name == "web"


async def test_removing_a_broken_book_puts_the_keys_before_it_in_force_again(followed: Followed) -> None:
    """No key has to change for that."""
    followed.second_book.write_text("{")
    await followed.look()
    assert followed.gate.is_shut
    followed.second_book.unlink()
    await followed.look()
    assert followed.lets_in() == "web"


@pytest.mark.parametrize("problem", [PermissionError(13, "Permission denied"), OSError(5, "I/O error")])
async def test_a_book_that_is_listed_and_not_readable_shuts_the_gate(
    tmp_path: Path, problem: OSError
) -> None:
    """What was written by another user may revoke a key, and so may what a disk does not give back."""
    objects = Unreadable(open_objects(str(tmp_path)), problem)
    followed = Followed(tmp_path, objects)
    await followed.look()
    followed.store.revoke("web")
    objects.is_broken = True
    await followed.look()
    with pytest.raises(NotReady):
        followed.lets_in()
    objects.is_broken = False
    await followed.look()
    with pytest.raises(Unauthorized):
        followed.lets_in()


@pytest.mark.parametrize(
    "wrong",
    [{"sha256": "00"}, {"sha256": "z" * 64}, {"expires_at": "soon"}, {"expires_at": "2026-11-29T12:00:00"}],
)
async def test_a_record_that_no_gate_can_check_is_refused_when_it_is_read(
    followed: Followed, wrong: dict[str, str]
) -> None:
    """The error names file and field, the gate is shut, and following goes on."""
    raw = json.loads(followed.second_book.with_name("00000001.json").read_text())
    raw["number"] = 2
    raw["keys"][0] |= wrong
    followed.second_book.write_text(json.dumps(raw))
    with pytest.raises(InputError, match=rf"00000002\.json: keys\.0\.{next(iter(wrong))}"):
        followed.store.latest()
    await followed.look()
    with pytest.raises(NotReady):
        followed.lets_in()


async def test_a_store_that_is_away_is_told_once_with_its_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One line when it goes and one when it is back, however often it is asked."""
    objects = Cut(open_objects(str(tmp_path)))
    followed = Followed(tmp_path, objects)
    for _ in range(5):
        await followed.look()
    objects.is_away = False
    for _ in range(5):
        await followed.look()
    away, back = caplog.records
    assert "the store does not answer" in away.getMessage()
    assert "can be reached again" in back.getMessage()
