"""The micro-batcher."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from contract.errors import BadRequest, DeadlineExceeded, NotReady, Overloaded, StageFailed
from serve.settings.stages import BatchRules
from serve.stages.batching import MicroBatcher
from serve.stages.loop_turn import LoopTurn
from tests.serve.parts import Kept

pytestmark = pytest.mark.anyio


class Worker:
    """Upper-cases texts group by group; waits at the gate; fails on a group that holds a bad text."""

    def __init__(self) -> None:
        self.batches: list[list[list[str]]] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()

    def run(self, groups: Sequence[Sequence[str]]) -> list[list[str]]:
        """The work of one batch."""
        self.batches.append([list(group) for group in groups])
        self.entered.release()
        self.gate.wait(10)
        texts = [text for group in groups for text in group]
        if "bad" in texts:
            raise ZeroDivisionError
        if "refused" in texts:
            raise BadRequest("not this text")
        return [[text.upper() for text in group] for group in groups]

    async def busy(self) -> None:
        """Wait until a batch is inside."""
        await asyncio.to_thread(self.entered.acquire)


def batcher(worker: Worker, recorder: Kept | None = None, **rules: Any) -> MicroBatcher[str, list[str]]:
    """A batcher over a worker."""
    return MicroBatcher("m", worker.run, BatchRules(**rules), recorder or Kept())


@pytest.mark.parametrize("run_in", ["thread", "loop"])
async def test_an_idle_batcher_answers_at_once(run_in: str) -> None:
    """One request makes one batch, and a record of it."""
    worker, kept = Worker(), Kept()
    inside = batcher(worker, kept, run_in=run_in)
    assert await inside.submit(["a", "b"], None) == [["A", "B"]]
    assert [(r.variant, r.items, len(r.queue_s)) for r in kept.batches] == [("m", 2, 1)]
    await inside.close()


async def test_requests_that_arrive_while_the_worker_is_busy_go_together() -> None:
    """A busy worker's next batch holds all that waits, up to the limit, in order."""
    worker = Worker()
    worker.gate.clear()
    inside = batcher(worker, max_items=4)
    first = asyncio.create_task(inside.submit(["first"], None))
    await worker.busy()
    waiting = [asyncio.create_task(inside.submit([text], None)) for text in "abcde"]
    await asyncio.sleep(0)
    worker.gate.set()
    assert await first == [["FIRST"]]
    assert await asyncio.gather(*waiting) == [[["A"]], [["B"]], [["C"]], [["D"]], [["E"]]]
    assert [len(batch) for batch in worker.batches] == [1, 4, 1]
    await inside.close()


async def test_requests_of_one_turn_of_the_loop_go_together_on_the_loop() -> None:
    """On the loop, what arrives in one turn is one batch, up to the limit."""
    worker = Worker()
    inside = batcher(worker, run_in="loop", max_items=2)
    answers = await asyncio.gather(*(inside.submit([text], None) for text in "abc"))
    assert answers == [[["A"]], [["B"]], [["C"]]]
    assert worker.batches == [[["a"], ["b"]], [["c"]]]


async def test_a_group_that_does_not_fit_leads_the_next_batch() -> None:
    """Groups are never cut to fill a batch."""
    worker = Worker()
    worker.gate.clear()
    inside = batcher(worker, max_items=3)
    tasks = [asyncio.create_task(inside.submit(["first"], None))]
    await worker.busy()
    tasks += [asyncio.create_task(inside.submit(texts, None)) for texts in (["a", "b"], ["c", "d"], ["e"])]
    await asyncio.sleep(0)
    worker.gate.set()
    await asyncio.gather(*tasks)
    assert worker.batches[1:] == [[["a", "b"]], [["c", "d"], ["e"]]]
    await inside.close()


async def test_a_large_request_runs_in_chunks() -> None:
    """A request above the limit gives one result per chunk, in order."""
    worker = Worker()
    inside = batcher(worker, max_items=2)
    assert await inside.submit(list("abcde"), None) == [["A", "B"], ["C", "D"], ["E"]]
    assert all(len(group) <= 2 for batch in worker.batches for group in batch)
    await inside.close()


async def test_small_requests_get_their_turn_between_the_chunks_of_a_large_one() -> None:
    """A large request holds at most one chunk ahead in the queue, and still counts as a whole."""
    worker = Worker()
    worker.gate.clear()
    inside = batcher(worker, max_items=2)
    large = asyncio.create_task(inside.submit(list("abcdefgh"), None))
    await worker.busy()
    small = asyncio.create_task(inside.submit(["small"], None))
    await asyncio.sleep(0)
    assert inside.outstanding == 9
    worker.gate.set()
    assert await large == [["A", "B"], ["C", "D"], ["E", "F"], ["G", "H"]]
    assert await small == [["SMALL"]]
    order = [text for batch in worker.batches for group in batch for text in group]
    assert order.index("small") == 4
    assert inside.outstanding == 0
    await inside.close()


@pytest.mark.parametrize("run_in", ["thread", "loop"])
async def test_a_large_request_that_fails_or_leaves_gives_its_room_back(run_in: str) -> None:
    """After a bad chunk, or a client that left, nothing of the rest stays counted, and closing ends."""
    inside = batcher(Worker(), run_in=run_in, max_items=2)
    with pytest.raises(StageFailed):
        await inside.submit(["a", "bad", *"cdefghijkl"], None)
    leaving = asyncio.create_task(inside.submit(list("abcdefghijkl"), None))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await inside.close()
    assert inside.outstanding == 0


async def test_a_lingering_worker_waits_for_company() -> None:
    """With a linger, an idle worker's batch still takes what comes a little later."""
    worker = Worker()
    inside = batcher(worker, max_items=2, linger_s=30.0)
    one = asyncio.create_task(inside.submit(["a"], None))
    await asyncio.sleep(0)
    assert await inside.submit(["b"], None) == [["B"]]
    assert await one == [["A"]]
    assert worker.batches == [[["a"], ["b"]]]
    await inside.close()


async def test_the_queue_is_bounded() -> None:
    """What does not fit is refused at once with a time to come back, and the rest is answered."""
    worker = Worker()
    worker.gate.clear()
    inside = batcher(worker, max_queue_items=3)
    taken = [asyncio.create_task(inside.submit([text], None)) for text in "abc"]
    await worker.busy()
    with pytest.raises(Overloaded, match="full"):
        await inside.submit(["d"], None)
    worker.gate.set()
    assert len(await asyncio.gather(*taken)) == 3
    assert inside.outstanding == 0
    await inside.close()


async def test_a_request_larger_than_the_queue_is_taken_when_there_is_nothing_else() -> None:
    """A bound on waiting texts never makes a legal request impossible."""
    inside = batcher(Worker(), max_queue_items=2, max_items=4)
    assert await inside.submit(list("abc"), None) == [["A", "B", "C"]]
    await inside.close()


async def test_a_request_that_would_wait_too_long_is_refused() -> None:
    """The pace that was learned makes a long queue visible before it is joined."""
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 1.0
        return now

    worker = Worker()
    inside = MicroBatcher("m", worker.run, BatchRules(max_queue_s=0.5), Kept(), clock=clock)
    await inside.submit(["slow by that clock"], None)
    worker.entered.acquire()
    worker.gate.clear()
    task = asyncio.create_task(inside.submit(["a"], None))
    await worker.busy()
    with pytest.raises(Overloaded, match="too long") as refused:
        await inside.submit(["b"], None)
    assert refused.value.retry_after_s > 0.5
    with pytest.raises(Overloaded):
        await inside.submit(["c"], 10_000.0)
    worker.gate.set()
    await task
    await inside.close()


@pytest.mark.parametrize("run_in", ["thread", "loop"])
async def test_a_request_whose_deadline_is_over_is_not_run(run_in: str) -> None:
    """A deadline in the past costs nothing but its refusal."""
    worker = Worker()
    inside = MicroBatcher("m", worker.run, BatchRules(run_in=run_in), Kept(), clock=lambda: 5.0)
    with pytest.raises(DeadlineExceeded):
        await inside.submit(["a"], 5.0)
    assert worker.batches == []
    await inside.close()


async def test_a_deadline_that_passes_in_the_queue_drops_the_request() -> None:
    """When its turn comes too late, a request is refused and its batchmates are answered."""
    now = [0.0]
    worker = Worker()
    worker.gate.clear()
    inside = MicroBatcher("m", worker.run, BatchRules(), Kept(), clock=lambda: now[0])
    first = asyncio.create_task(inside.submit(["first"], None))
    await worker.busy()
    late = asyncio.create_task(inside.submit(["late"], 1.0))
    patient = asyncio.create_task(inside.submit(["patient"], None))
    await asyncio.sleep(0)
    now[0] = 2.0
    worker.gate.set()
    await first
    assert await patient == [["PATIENT"]]
    with pytest.raises(DeadlineExceeded):
        await late
    assert worker.batches[1] == [["patient"]]
    await inside.close()


async def test_a_client_that_left_is_not_run_and_does_no_harm() -> None:
    """Cancelled requests, waiting or running, leave the batcher whole and the queue empty."""
    worker = Worker()
    worker.gate.clear()
    inside = batcher(worker)
    running = asyncio.create_task(inside.submit(["running"], None))
    await worker.busy()
    waiting = asyncio.create_task(inside.submit(["waiting"], None))
    await asyncio.sleep(0)
    running.cancel()
    waiting.cancel()
    await asyncio.gather(running, waiting, return_exceptions=True)
    worker.gate.set()
    assert await inside.submit(["next"], None) == [["NEXT"]]
    assert [["waiting"]] not in worker.batches
    assert inside.outstanding == 0
    await inside.close()


@pytest.mark.parametrize("run_in", ["thread", "loop"])
async def test_one_bad_request_does_not_fail_its_batch(run_in: str) -> None:
    """When a batch fails its requests run alone: only the bad one fails, in words that leak nothing."""
    inside = batcher(Worker(), run_in=run_in)
    good, bad, refused, other = await asyncio.gather(
        *(inside.submit([text], None) for text in ("good", "bad", "refused", "other")), return_exceptions=True
    )
    assert (good, other) == ([["GOOD"]], [["OTHER"]])
    assert isinstance(bad, StageFailed)
    assert "division" not in str(bad)
    assert isinstance(refused, BadRequest)
    await inside.close()


async def test_several_lanes_run_at_a_time() -> None:
    """Two lanes hold two batches at once."""
    worker = Worker()
    worker.gate.clear()
    inside = batcher(worker, lanes=2, max_items=1)
    tasks = [asyncio.create_task(inside.submit([text], None)) for text in "ab"]
    await worker.busy()
    await worker.busy()
    worker.gate.set()
    assert await asyncio.gather(*tasks) == [[["A"]], [["B"]]]
    await inside.close()


async def test_closing_finishes_what_is_inside_and_refuses_what_comes() -> None:
    """close() waits for running and waiting requests, and its threads end."""
    worker = Worker()
    worker.gate.clear()
    inside = batcher(worker, max_items=1)
    tasks = [asyncio.create_task(inside.submit([text], None)) for text in "ab"]
    await worker.busy()
    closing = asyncio.create_task(inside.close())
    await asyncio.sleep(0)
    with pytest.raises(NotReady):
        await inside.submit(["late"], None)
    worker.gate.set()
    await closing
    assert await asyncio.gather(*tasks) == [[["A"]], [["B"]]]
    assert not [t for t in threading.enumerate() if t.name == "m-0"]


async def test_a_fast_worker_that_is_idle_answers_without_waiting() -> None:
    """On the loop, with a record; not where others wait, nor once the turn of the loop has done its share."""
    worker, kept, now = Worker(), Kept(), [0.0]
    turn = LoopTurn(0.004)
    inside: MicroBatcher[str, list[str]] = MicroBatcher(
        "m", worker.run, BatchRules(run_in="loop"), kept, clock=lambda: now[0], turn=turn
    )
    assert inside.run_now(["a"], None) == ["A"]
    assert [(r.items, tuple(r.queue_s)) for r in kept.batches] == [(1, (0.0,))]
    waiting = asyncio.create_task(inside.submit(["b"], None))
    await asyncio.sleep(0)
    assert inside.run_now(["c"], None) is None
    assert await waiting == [["B"]]
    turn.used(0.005)
    assert inside.run_now(["d"], None) is None
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert inside.run_now(["e"], None) == ["E"]
    assert inside.run_now(["f"], 0.0) is None, "its deadline is over: submit says so"
    await inside.close()
    assert inside.run_now(["g"], None) is None


async def test_what_a_fast_worker_cannot_answer_ends_in_its_request() -> None:
    """Its own words for clients pass; anything else is a failed stage."""
    inside: MicroBatcher[str, list[str]] = MicroBatcher(
        "m", Worker().run, BatchRules(), Kept(), turn=LoopTurn()
    )
    with pytest.raises(BadRequest):
        inside.run_now(["refused"], None)
    with pytest.raises(StageFailed):
        inside.run_now(["bad"], None)


async def test_without_a_turn_nothing_runs_on_the_loop() -> None:
    """A batcher that was not told that its work is fast hands it to its threads."""
    inside = batcher(Worker())
    assert inside.run_now(["a"], None) is None


async def test_a_batch_on_the_loop_takes_no_more_than_its_share_of_a_turn() -> None:
    """Once the pace is known, a long queue is run in batches of what a turn may take."""
    worker, now = Worker(), [0.0]

    def run(groups: Sequence[Sequence[str]]) -> list[list[str]]:
        now[0] += 0.001 * sum(map(len, groups))
        return worker.run(groups)

    inside: MicroBatcher[str, list[str]] = MicroBatcher(
        "m", run, BatchRules(run_in="loop"), Kept(), clock=lambda: now[0], turn=LoopTurn(0.004)
    )
    assert inside.run_now(["first"], None) == ["FIRST"]
    await asyncio.gather(*(inside.submit([text], None) for text in "abcdefghij"))
    assert [len(batch) for batch in worker.batches] == [1, 4, 4, 2]
    await inside.close()


async def test_one_text_that_takes_longer_than_a_turn_is_not_run_at_once() -> None:
    """It goes by the queue, where admission sees it; once it is quick again the short way is open."""
    now, takes_s = [0.0], 0.3

    def run(groups: Sequence[Sequence[str]]) -> list[list[str]]:
        now[0] += takes_s
        return [list(group) for group in groups]

    inside: MicroBatcher[str, list[str]] = MicroBatcher(
        "m", run, BatchRules(run_in="loop"), Kept(), clock=lambda: now[0], turn=LoopTurn()
    )
    await inside.submit(["a"], None)
    assert inside.run_now(["b"], None) is None
    takes_s = 0.001
    for _ in range(10):
        await inside.submit(["c"], None)
    assert inside.run_now(["d"], None) == ["d"]
