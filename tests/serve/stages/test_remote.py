"""The stage behind a handle."""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import DeadlineExceeded, Overloaded, StageBroken, StageFailed
from runtime.api import Logits
from serve.settings.resilience import BreakerRules, RetryRules
from serve.settings.stages import BatchRules, StageSettings
from serve.stages import hang_watch
from serve.stages.breaker import StageUnavailable
from serve.stages.call import Ask, Reply, StageUnreachable
from serve.stages.remote import RemoteStage, split
from serve.types.priority import OFF_PATH_PRIORITY
from tests.serve.parts import Kept

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


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until something holds."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


async def works(seconds: float) -> None:
    """Take as long as a replica does."""
    done = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, done.set)
    await done.wait()


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


async def test_a_client_that_leaves_calls_off_what_is_under_way() -> None:
    """The replicas are told the numbers of the asks that nobody waits for, and of no others."""
    peer = Peer()
    told: list[int] = []

    async def call_off(numbers: list[int]) -> None:
        told.extend(numbers)

    remote = RemoteStage("teacher", peer.call, peer.ping, StageSettings(), call_off=call_off)
    peer.gate.clear()
    leaver = asyncio.create_task(remote.logits(["leaver"], None))
    stayer = asyncio.create_task(remote.logits(["stays"], None))
    await until(lambda: len(peer.calls) > 0)
    leaver.cancel()
    await asyncio.gather(leaver, return_exceptions=True)
    await until(lambda: len(told) > 0)
    peer.gate.set()
    await stayer
    asks = {ask.texts[0]: ask.number for call in peer.calls for ask in call}
    assert told == [asks["leaver"]]


async def test_retries_stay_within_their_budget() -> None:
    """Once the bucket is empty a lost call is lost; each refusal is told."""
    peer, kept = Peer(), Kept()
    settings = StageSettings(
        retries=RetryRules(share=0.0), breaker=BreakerRules(enabled=False), calls_in_flight=1
    )
    remote = RemoteStage("teacher", peer.call, peer.ping, settings, recorder=kept)
    peer.gone = 1
    with pytest.raises(StageUnreachable):
        await remote.logits(["abc"], None)
    assert ("retry_refused", "teacher", 1) in kept.incidents
    assert len(peer.calls) == 1


async def test_what_no_client_waits_for_is_not_tried_again() -> None:
    """The budget of retries is for clients."""
    peer = Peer()
    peer.gone = 1
    remote = stage(peer)
    with pytest.raises(StageUnreachable):
        await remote.logits(["abc"], None, None, OFF_PATH_PRIORITY)
    assert len(peer.calls) == 1
    peer.gone = 1
    assert (await remote.logits(["abc"], None))[0, 0] == 3
    assert remote._admission.outstanding == remote._admission.off_path == 0


async def test_a_retry_is_not_sent_beyond_the_deadline() -> None:
    """A call that usually takes longer than is left is not tried again."""
    peer, now = Peer(), [0.0]
    settings = StageSettings(calls_in_flight=1)
    remote = RemoteStage("teacher", peer.call, peer.ping, settings, clock=lambda: now[0])

    async def slow(asks: list[Ask]) -> list[Reply]:
        now[0] += 1.0
        if now[0] > 1.0:
            raise StageUnreachable("gone")
        return [answer(ask.texts) for ask in asks]

    remote._call = slow
    await remote.logits(["a"], None)
    with pytest.raises(StageUnreachable):
        await remote.logits(["a"], 2.5)
    assert now[0] == 2.0


async def test_a_stage_that_fails_is_not_asked_but_probed() -> None:
    """After five failures nobody reaches it; a second later one probe does, and closes the breaker."""
    peer, kept, now = Peer(), Kept(), [0.0]
    broken = True

    async def call(asks: list[Ask]) -> list[Reply]:
        peer.calls.append(asks)
        return [StageBroken("fails") if broken else answer(ask.texts) for ask in asks]

    remote = RemoteStage("teacher", call, peer.ping, StageSettings(), recorder=kept, clock=lambda: now[0])
    for _ in range(5):
        with pytest.raises(StageBroken):
            await remote.logits(["a"], None)
    for _ in range(50):
        with pytest.raises(StageUnavailable):
            await remote.logits(["a"], None)
    assert len(peer.calls) == 5
    broken = False
    now[0] = 1.1
    assert (await remote.logits(["abc"], None))[0, 0] == 3
    assert [kind for kind, _, _ in kept.incidents] == [
        "breaker_closed", "breaker_open", "breaker_half_open", "breaker_closed"
    ]  # fmt: skip


async def test_a_request_that_fails_for_its_own_fault_opens_nothing() -> None:
    """A text that no model answers may come a hundred times."""
    peer = Peer()
    remote = stage(peer)
    for _ in range(100):
        with pytest.raises(StageFailed):
            await remote.logits(["bad"], None)
    assert (await remote.logits(["abc"], None))[0, 0] == 3


async def test_a_stage_that_hangs_is_a_stage_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """When one late call has run on in vain and nothing was answered, all the late ones were failures."""
    monkeypatch.setattr(hang_watch, "HANG_S", 0.3)
    peer = Peer()
    peer.gate.clear()
    remote = stage(peer)
    for _ in range(5):
        with pytest.raises(DeadlineExceeded):
            await remote.logits(["a"], time.monotonic() + 0.04)
    await until(lambda: remote._breaker.state != "closed")
    with pytest.raises(StageUnavailable):
        await remote.logits(["a"], None)


async def test_a_client_with_a_short_deadline_opens_nothing() -> None:
    """Its texts take longer than it waits; the call that runs on is answered, so the stage is well."""

    async def call(asks: list[Ask]) -> list[Reply]:
        if asks[0].texts == ["long"]:
            await works(0.15)
        return [answer(ask.texts) for ask in asks]

    remote = RemoteStage("teacher", call, Peer().ping, StageSettings(breaker=BreakerRules(min_failures=1)))
    await remote.logits(["a"], None)
    for _ in range(3):
        with pytest.raises(DeadlineExceeded):
            await remote.logits(["long"], time.monotonic() + 0.1)
    assert (await remote.logits(["abc"], None))[0, 0] == 3


@pytest.mark.parametrize("reply", [DeadlineExceeded("called off"), Overloaded("full")])
async def test_a_refusal_neither_closes_a_breaker_nor_teaches_the_pace(reply: Reply) -> None:
    """A probe that is called off or refused says nothing of the stage, and nor does its time."""
    now = [0.0]

    async def call(asks: list[Ask]) -> list[Reply]:
        return [reply for _ in asks]

    remote = RemoteStage("teacher", call, Peer().ping, StageSettings(), clock=lambda: now[0])
    remote._forecast.came_back(1, 0.0, 0.5)
    for _ in range(5):
        remote._breaker.failed(0.0, "it fails")
    now[0] = 1.1
    with pytest.raises((DeadlineExceeded, Overloaded)):
        await remote.logits(["a"], None)
    assert remote._breaker.state == "half_open"
    assert remote._forecast.pace.of(1) == 0.5


async def test_a_call_that_the_transport_cancels_is_tried_again() -> None:
    """It is a lost replica, for this request and for the one behind it."""
    calls: list[list[Ask]] = []

    async def call(asks: list[Ask]) -> list[Reply]:
        calls.append(asks)
        if len(calls) == 1:
            raise asyncio.CancelledError
        return [answer(ask.texts) for ask in asks]

    remote = RemoteStage("teacher", call, Peer().ping, StageSettings(calls_in_flight=1))
    async with asyncio.timeout(5):
        first, second = await asyncio.gather(remote.logits(["a"], None), remote.logits(["bb"], None))
    assert (first[0, 0], second[0, 0]) == (1, 2)


async def test_small_requests_get_their_turn_between_the_parts_of_a_large_one() -> None:
    """A remote stage holds no more of it than one part beyond its calls."""
    peer = Peer()
    remote = stage(peer, max_items=2)
    peer.gate.clear()
    large = asyncio.create_task(remote.logits(["large"] * 10, None))
    await until(lambda: len(peer.calls) > 0)
    small = asyncio.create_task(remote.logits(["small"], None))
    await until(lambda: remote.queued == 11)
    peer.gate.set()
    await asyncio.gather(large, small)
    sent = [ask.texts[0] for call in peer.calls for ask in call]
    assert sent.index("small") <= 3


async def test_what_waits_behind_a_stage_that_fails_is_told_at_once() -> None:
    """When the breaker opens, requests in the queue do not wait for their turn to fail."""
    peer = Peer()
    rules = BreakerRules(min_failures=1)
    settings = StageSettings(breaker=rules, calls_in_flight=1, retries=RetryRules(share=0.0))
    remote = RemoteStage("teacher", peer.call, peer.ping, settings)
    peer.gate.clear()
    peer.gone = 1
    first = asyncio.create_task(remote.logits(["a"], None))
    await until(lambda: len(peer.calls) > 0)
    waiting = asyncio.create_task(remote.logits(["b"], None))
    await until(lambda: remote.queued == 2)
    peer.gate.set()
    results = await asyncio.gather(first, waiting, return_exceptions=True)
    assert [type(result) for result in results] == [StageUnreachable, StageUnavailable]
    assert len(peer.calls) == 1


async def test_a_late_call_is_sent_to_a_second_replica() -> None:
    """The first answer counts, the other call is cancelled, and both are told."""
    kept = Kept()
    calls: list[str] = []

    async def call(asks: list[Ask]) -> list[Reply]:
        number = len(calls)
        calls.append("sent")
        try:
            if number == 0:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            calls[number] = "cancelled"
            raise
        return [answer(ask.texts) for ask in asks]

    settings = StageSettings(replicas=2, hedge_after=1.0)
    remote = RemoteStage("teacher", call, Peer().ping, settings, recorder=kept)
    assert (await remote.logits(["abc"], None))[0, 0] == 3
    await until(lambda: calls == ["cancelled", "sent"])
    assert kept.incidents[1:] == [("hedge_sent", "teacher", 1), ("hedge_won", "teacher", 1)]


async def test_a_hedge_that_is_refused_does_not_beat_the_first_call() -> None:
    """A quick refusal loses while the other call is out; the refusal is told where both refuse."""
    calls: list[list[Ask]] = []

    async def call(asks: list[Ask]) -> list[Reply]:
        calls.append(asks)
        if len(calls) == 1:
            await until(lambda: len(calls) > 1)
            await works(0.02)
            return [answer(ask.texts) for ask in asks]
        return [Overloaded("full") for _ in asks]

    remote = RemoteStage("teacher", call, Peer().ping, StageSettings(replicas=2, hedge_after=1.0))
    assert (await remote.logits(["abc"], None))[0, 0] == 3
    assert len(calls) == 2


@pytest.mark.parametrize("settings", [StageSettings(hedge_after=1.0), StageSettings(replicas=2)])
def test_hedging_is_off_unless_it_is_asked_for_and_can_help(settings: StageSettings) -> None:
    """With one replica, or without the setting, the call is the very same function."""
    peer = Peer()
    remote = RemoteStage("teacher", peer.call, peer.ping, settings)
    assert remote._call == peer.call


async def test_the_urgent_go_out_first() -> None:
    """What waits for a busy stage leaves by priority, not by arrival."""
    peer = Peer()
    peer.gate.clear()
    remote = stage(peer, max_items=1)
    tasks = [asyncio.create_task(remote.logits(["first"], None))]
    await until(lambda: len(peer.calls) > 0)
    for name, priority in (("low", 9), ("usual", 5), ("urgent", 1)):
        tasks.append(asyncio.create_task(remote.logits([name], None, None, priority)))
    await until(lambda: remote.queued == 4)
    peer.gate.set()
    await asyncio.gather(*tasks)
    assert [call[0].texts[0] for call in peer.calls] == ["first", "urgent", "usual", "low"]


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
