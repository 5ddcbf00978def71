"""Comparisons: what a shadow may never do to live requests, and how answers compare."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from contract.errors import Overloaded, StageFailed
from contract.trial import PairCounts, TrialKind
from runtime.api import Logits
from runtime.load import load_variant
from serve.settings.stages import BatchRules
from serve.settings.traffic import TrafficSettings
from serve.stages.inline import InlineStage
from serve.types.priority import OFF_PATH_PRIORITY
from serve.types.recorder import NoRecorder
from tests.serve.parts import FakeFolder
from tests.serve.traffic.arms import QUIET, world

pytestmark = pytest.mark.anyio


async def test_a_shadow_is_compared_text_by_text_and_the_reference_asked_only_where_arms_differ(
    fake_folder: FakeFolder,
) -> None:
    """Same, worse, better and neither are told apart; clients see the live answers alone."""
    async with world(fake_folder) as here:
        here.begin("shadow", here.policy("other"))
        result = await here.ask(
            "small=1 other=1 large=4",
            "small=1 other=2 large=1",
            "small=1 other=2 large=2",
            "small=1 other=2 large=3",
        )
        assert result.variant == ["fake-small"] * 4
        counts = await here.compared()
        assert counts.pairs == PairCounts(same=1, worse=1, better=1, neither=1)
        assert len(here.stages["fake-large"].asked) == 3
        assert counts.candidate.texts == 4
        assert len(here.kept.answers) == 1
        levels = {level for name in ("other", "large") for _, level in here.stages[f"fake-{name}"].asked}
        assert levels == {OFF_PATH_PRIORITY}


async def test_an_answer_of_the_reference_itself_needs_no_second_asking(fake_folder: FakeFolder) -> None:
    """Where an arm's answer came from the reference, its word is known."""
    async with world(fake_folder) as here:
        here.begin("shadow", here.policy("large"))
        await here.ask("small=1 large=2")
        counts = await here.compared()
        assert counts.pairs == PairCounts(better=1)
        assert len(here.stages["fake-large"].asked) == 1


async def test_a_canarys_answers_are_held_against_what_the_live_policy_would_have_said(
    fake_folder: FakeFolder,
) -> None:
    """Scored off the path; the extra work counts for neither arm."""
    async with world(fake_folder) as here:
        here.begin("canary", here.policy("other"))
        await here.ask("small=1 other=2 large=1", "small=1 other=1 large=1")
        counts = await here.compared()
        assert counts.pairs == PairCounts(same=1, worse=1)
        assert (counts.live.texts, counts.candidate.texts) == (0, 2)


async def test_by_agreement_alone_the_reference_is_never_asked(fake_folder: FakeFolder) -> None:
    """Differences stay unasked; a share of audits asks for so many of them."""
    async with world(fake_folder) as here:
        here.begin("shadow", here.policy("other"), measured_by="agreement")
        await here.ask("small=1 other=2 large=1")
        assert (await here.compared()).pairs == PairCounts(unasked=1)
        assert here.stages["fake-large"].asked == []


async def test_a_shadow_that_fails_costs_no_live_request_anything(fake_folder: FakeFolder) -> None:
    """Answers as before, none degraded or refused; the failures are the shadow's own."""
    async with world(fake_folder) as here:
        here.begin("shadow", here.policy("other"))
        here.stages["fake-other"].problem = StageFailed("broken")
        for _ in range(20):
            result = await here.ask("small=1 other=2 large=1")
            assert result.degraded == [False]
        counts = await here.compared()
        assert counts.pairs == PairCounts(unresolved=20)
        assert (counts.live.failed, counts.candidate.failed) == (0, 20)
        assert here.kept.refusals == []


async def test_a_shadow_waits_until_nothing_live_is_inside_and_sheds_what_has_no_room(
    fake_folder: FakeFolder,
) -> None:
    """While a live request is inside no comparison starts; beyond the queue's bound nothing is kept."""
    async with world(fake_folder, QUIET.model_copy(update={"max_waiting_texts": 3})) as here:
        here.begin("shadow", here.policy("other"))
        here.snapshot = here.serving(here.policy("small", "large"), here.snapshot.trials)
        here.plane.follow(here.snapshot)
        here.stages["fake-large"].gate.clear()
        held = asyncio.ensure_future(here.ask("small=1? other=1 large=1"))
        await asyncio.sleep(0)
        for _ in range(8):
            await here.ask("small=1 other=1 large=1")
        assert here.stages["fake-other"].asked == []
        assert here.plane.waiting_texts == 3
        here.stages["fake-large"].gate.set()
        await held
        counts = await here.compared()
        assert counts.pairs == PairCounts(same=3, shed=6)


async def test_comparisons_go_on_after_a_request_for_a_variant_by_name(fake_folder: FakeFolder) -> None:
    """Such a request holds them up while it is inside, and no longer."""
    async with world(fake_folder) as here:
        here.begin("shadow", here.policy("other"))
        here.stages["fake-large"].gate.clear()
        held = asyncio.ensure_future(here.ask("small=1 large=1", model="fake-large"))
        await asyncio.sleep(0)
        await here.ask("small=1 other=1 large=1")
        here.stages["fake-large"].gate.set()
        await held
        assert (await here.compared()).pairs == PairCounts(same=1)


async def test_live_requests_come_between_the_texts_of_a_comparison(fake_folder: FakeFolder) -> None:
    """Also where a stage answers at once: the loop turns after every text."""
    async with world(fake_folder) as here:
        here.begin("shadow", here.policy("other"))
        here.stages["fake-other"].at_once = True
        await here.ask(*(["small=1 other=1 large=1"] * 40))
        turns = 0
        async with asyncio.timeout(5):
            while here.plane.waiting_texts:
                turns += 1
                await asyncio.sleep(0)
        assert turns >= 40
        assert (await here.compared()).pairs == PairCounts(same=40)


async def test_a_busy_machine_compares_nothing(fake_folder: FakeFolder) -> None:
    """What was not begun is counted as such, and is no evidence."""
    async with world(fake_folder, TrafficSettings(busy_cpu_share=1e-9)) as here:
        here.begin("shadow", here.policy("other"))
        here.plane._off_path._busy = lambda: True  # type: ignore[union-attr]
        await here.ask("small=1 other=2 large=1")
        counts = await here.compared()
        assert counts.pairs == PairCounts(busy=1)
        assert counts.pairs.n == 0


async def test_what_a_live_answer_lacked_is_not_held_against_it(fake_folder: FakeFolder) -> None:
    """A text whose live answer was degraded is left out of a shadow's comparison."""
    async with world(fake_folder) as here:
        here.snapshot = here.serving(here.policy("small", "large"))
        here.begin("shadow", here.policy("other"))
        here.stages["fake-large"].problem = StageFailed("broken")
        result = await here.ask("small=1? other=1 large=1", "small=1 other=1 large=1")
        assert result.degraded == [True, False]
        assert (await here.compared()).pairs == PairCounts(same=1, degraded=1)


async def test_a_comparison_that_load_made_cheaper_is_not_finished(fake_folder: FakeFolder) -> None:
    """The other arm answered by a cheaper stage than it wanted: that says nothing of the policy."""
    async with world(fake_folder) as here:
        here.begin("shadow", here.policy("other", "large"))
        here.stages["fake-large"].problem = StageFailed("broken")
        await here.ask("small=1 other=1? large=1")
        assert (await here.compared()).pairs == PairCounts(unresolved=1)
        here.stages["fake-other"].problem = Overloaded("full")
        await here.ask("small=1 other=1? large=1")
        assert (await here.compared()).pairs == PairCounts(unresolved=1, busy=1)


async def test_a_change_of_share_keeps_the_counts_and_sheds_what_waits(fake_folder: FakeFolder) -> None:
    """The same trial on a newer snapshot counts on."""
    async with world(fake_folder) as here:
        here.begin("shadow", here.policy("other"))
        await here.ask("small=1 other=1 large=1")
        await here.compared()
        await here.ask("small=1 other=1 large=1")
        here.begin("shadow", here.policy("other"), share=0.5)
        counts = await here.compared()
        assert counts.pairs == PairCounts(same=1, shed=1)
        assert counts.live.requests == 2


async def test_nothing_is_compared_in_turns_of_the_loop_that_bring_requests(fake_folder: FakeFolder) -> None:
    """Clients that are always ready leave no turn free, though no answer of theirs ever waits."""
    async with world(fake_folder) as here:
        here.begin("shadow", here.policy("other"))
        here.stages["fake-small"].at_once = here.stages["fake-other"].at_once = True
        for _ in range(100):
            await here.ask("small=1 other=1 large=1")
            await asyncio.sleep(0)
        assert here.stages["fake-other"].asked == []
        assert (await here.compared()).pairs == PairCounts(same=100)


@pytest.mark.parametrize(("kind", "compared"), [("canary", 1), ("shadow", 0)])
async def test_a_canary_is_compared_now_and_then_however_busy(
    fake_folder: FakeFolder, kind: TrialKind, compared: int
) -> None:
    """One text a second, the newest, while live requests are inside and the machine is busy; no shadow."""
    async with world(fake_folder) as here:
        here.begin(kind, here.policy("other"))
        off_path = here.plane._off_path
        assert off_path is not None
        off_path._busy = lambda: True
        here.stages["fake-large"].gate.clear()
        held = asyncio.ensure_future(here.ask("small=1 large=1", model="fake-large"))
        await asyncio.sleep(0)
        for said in (1, 1, 2):
            await here.ask(f"small={said} other={said} large=1")
        while here.plane.waiting_texts > 3 - compared:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        [(_, counts)] = here.plane.counts().values()
        assert counts.pairs == PairCounts(same=compared)
        off_path._last_of_a_canary -= 1.0
        off_path.freed()
        here.stages["fake-large"].gate.set()
        await held
        assert (await here.compared()).pairs == PairCounts(same=2 * compared, busy=3 - 2 * compared)


async def test_a_stage_that_compares_lets_clients_in_as_if_it_were_idle(fake_folder: FakeFolder) -> None:
    """On a real stage that takes 60 ms, a request that is due in 90 ms is not refused for a comparison."""
    loaded = load_variant(fake_folder.folder, fake_folder.family, "fake-small")
    stage = InlineStage(loaded, BatchRules(max_items=1, run_in="thread"), NoRecorder())
    run, go, inside = stage._run, threading.Event(), threading.Event()

    def slow(groups: Sequence[Sequence[str]]) -> list[Logits]:
        inside.set()
        go.wait(10)
        return run(groups)

    stage._batcher._run = slow
    with stage._batcher._lock:
        stage._batcher._forecast.learn(1, 0.06)
    beside = asyncio.ensure_future(stage.logits(["a"], None, None, OFF_PATH_PRIORITY))
    await asyncio.to_thread(inside.wait, 10)
    due_at = time.monotonic() + 0.09
    client = asyncio.ensure_future(stage.logits(["b"], None, due_at))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await stage.logits(["c"], None, due_at)
    go.set()
    await asyncio.gather(client, beside)
    await stage.close()
