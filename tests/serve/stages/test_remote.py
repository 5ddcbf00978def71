"""The stage behind a handle."""

from __future__ import annotations

import asyncio
import pickle
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import DeadlineExceeded, Overloaded, StageFailed
from runtime.api import Logits
from serve.settings.stages import BatchRules, StageSettings
from serve.stages.remote import Ask, RemoteStage, Reply, StageUnreachable, split

pytestmark = pytest.mark.anyio


def answer(texts: list[str]) -> Logits:
    """Logits whose first column is the length of the text."""
    return np.array([[float(len(text)), 0.0] for text in texts], dtype=np.float32)


class Peer:
    """A replica as the handle shows it: answers with text lengths once `gate` is open."""

    def __init__(self) -> None:
        self.calls: list[list[Ask]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.gone = 0

    async def call(self, asks: list[Ask]) -> list[Reply]:
        """Reply as a replica would."""
        self.calls.append(asks)
        await self.gate.wait()
        if self.gone:
            self.gone -= 1
            raise StageUnreachable("gone")
        return [StageFailed("bad") if "bad" in ask.texts else answer(ask.texts) for ask in asks]

    async def ping(self) -> bool:
        """Answer once the gate is open."""
        await self.gate.wait()
        return True


def stage(peer: Peer, **rules: int | float) -> RemoteStage:
    """A stage with one call in flight."""
    settings = StageSettings(batch=BatchRules.model_validate(rules), calls_in_flight=1)
    return RemoteStage("teacher", peer.call, peer.ping, settings)


async def test_an_idle_stage_is_called_at_once_and_a_busy_one_collects() -> None:
    """The first request goes alone; those that arrive meanwhile share one call."""
    peer = Peer()
    peer.gate.clear()
    remote = stage(peer)
    first = asyncio.create_task(remote.logits(["a"], None))
    while not peer.calls:
        await asyncio.sleep(0)
    others = [asyncio.create_task(remote.logits(["b" * n], None)) for n in (2, 3, 4)]
    while remote.queued < 4:
        await asyncio.sleep(0)
    peer.gate.set()
    assert (await first)[0, 0] == 1
    assert [(await task)[0, 0] for task in others] == [2, 3, 4]
    assert [len(asks) for asks in peer.calls] == [1, 3]
    assert remote.queued == 0


async def test_one_bad_request_fails_alone() -> None:
    """A reply that is an error reaches only the request that it answers."""
    peer = Peer()
    peer.gate.clear()
    remote = stage(peer)
    tasks = [asyncio.create_task(remote.logits([text], None)) for text in ("x", "bad", "good")]
    while remote.queued < 3:
        await asyncio.sleep(0)
    peer.gate.set()
    assert (await tasks[2])[0, 0] == 4
    with pytest.raises(StageFailed):
        await tasks[1]


async def test_a_lost_replica_is_tried_once_more() -> None:
    """A call whose replica died goes out again; a second loss is told to the client."""
    peer = Peer()
    peer.gone = 1
    assert (await stage(peer).logits(["abc"], None))[0, 0] == 3
    peer.gone = 2
    with pytest.raises(StageUnreachable):
        await stage(peer).logits(["abc"], None)


async def test_a_deadline_ends_the_wait() -> None:
    """A request whose deadline passes while the replica is silent fails and frees its room."""
    peer = Peer()
    peer.gate.clear()
    remote = stage(peer)
    with pytest.raises(DeadlineExceeded):
        await remote.logits(["a"], time.monotonic() + 0.01)
    assert remote.queued == 0


async def test_a_client_that_leaves_costs_nothing_more() -> None:
    """A cancelled request is not sent once its turn comes, and the others go on."""
    peer = Peer()
    peer.gate.clear()
    remote = stage(peer)
    first = asyncio.create_task(remote.logits(["a"], None))
    leaver = asyncio.create_task(remote.logits(["leaver"], None))
    stayer = asyncio.create_task(remote.logits(["stays"], None))
    while remote.queued < 3:
        await asyncio.sleep(0)
    leaver.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaver
    peer.gate.set()
    await asyncio.gather(first, stayer)
    assert [ask.texts for ask in peer.calls[1]] == [["stays"]]


async def test_a_full_queue_refuses() -> None:
    """Beyond `max_queue_items` the answer is Overloaded at once."""
    peer = Peer()
    peer.gate.clear()
    remote = stage(peer, max_queue_items=2)
    held = [asyncio.create_task(remote.logits([text], None)) for text in "ab"]
    while remote.queued < 2:
        await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await remote.logits(["c"], None)
    peer.gate.set()
    await asyncio.gather(*held)


async def test_a_large_request_is_cut_and_put_together_in_order() -> None:
    """A request of more texts than a call holds comes back as one array, rows in order."""
    peer = Peer()
    rows = await stage(peer, max_items=2).logits(["a", "bb", "ccc", "dddd", "eeeee"], None)
    assert rows[:, 0].tolist() == [1, 2, 3, 4, 5]
    assert len(peer.calls) == 3


async def test_a_broken_call_is_a_failed_stage() -> None:
    """An unexpected exception from the transport reaches the client as StageFailed, without its text."""

    async def broken(asks: list[Ask]) -> list[Reply]:
        raise ValueError("secret")

    remote = RemoteStage("teacher", broken, Peer().ping, StageSettings())
    with pytest.raises(StageFailed) as caught:
        await remote.logits(["a"], None)
    assert "secret" not in str(caught.value)


@given(st.lists(st.text(max_size=20), min_size=1, max_size=40), st.integers(1, 8), st.integers(1, 60))
def test_split_keeps_every_text_in_order(texts: list[str], items: int, size: int) -> None:
    """Parts joined are the texts; no part breaks a bound unless one text alone does."""
    parts = list(split(texts, items, size))
    assert [text for part, _ in parts for text in part] == texts
    for part, total in parts:
        assert total == sum(len(text.encode("utf-8", "replace")) for text in part)
        assert len(part) <= items
        assert total <= size or len(part) == 1


def test_what_crosses_the_handle_pickles() -> None:
    """Asks, and every error that a stage raises, survive pickling with their fields."""
    assert pickle.loads(pickle.dumps(Ask(["a"], 0.5))) == Ask(["a"], 0.5)
    full = pickle.loads(pickle.dumps(Overloaded("full", retry_after_s=3.0)))
    assert (full.message, full.retry_after_s) == ("full", 3.0)
    assert isinstance(pickle.loads(pickle.dumps(StageUnreachable("gone"))), StageUnreachable)
