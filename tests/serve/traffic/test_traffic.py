"""Traffic shares: who gets a canary, and what both arms have in common."""

from __future__ import annotations

import asyncio
import math

import pytest

from contract.errors import NotReady, Overloaded, StageFailed, UnknownModel
from contract.trial import ArmCounts, PairCounts, VerdictRule
from router.live.verdict import judge
from serve.traffic.shares import chosen
from tests.serve.parts import FakeFolder
from tests.serve.traffic.arms import World, world

pytestmark = pytest.mark.anyio


def binomial_bounds(n: int, share: float) -> tuple[float, float]:
    """Where a fair share of n lies, four standard errors around."""
    reach = 4 * math.sqrt(share * (1 - share) / n)
    return share - reach, share + reach


@pytest.mark.parametrize("share", [0.02, 0.3, 1.0])
def test_a_share_is_kept_with_keys_and_without(share: float) -> None:
    """Within binomial error; and a share of 1 leaves nobody out."""
    low, high = binomial_bounds(20_000, share)
    by_key = sum(chosen("canary-7", share, f"user {n}".encode()) for n in range(20_000)) / 20_000
    by_lot = sum(chosen("canary-7", share, b"") for _ in range(20_000)) / 20_000
    assert low <= by_key <= high
    assert low <= by_lot <= high


def test_a_key_stays_in_its_arm_while_the_share_grows_and_is_drawn_anew_for_another_trial() -> None:
    """Keys of 10% are among those of 30%; another trial takes other ones."""
    keys = [f"user {n}".encode() for n in range(5000)]
    few = {key for key in keys if chosen("canary-7", 0.1, key)}
    more = {key for key in keys if chosen("canary-7", 0.3, key)}
    others = {key for key in keys if chosen("canary-9", 0.1, key)}
    assert few < more
    assert len(few & others) < 0.2 * len(few)


async def test_without_candidates_requests_take_the_data_planes_own_way(fake_folder: FakeFolder) -> None:
    """Nothing is counted, and the recorder is the one that was given."""
    async with world(fake_folder) as here:
        await here.ask("small=1 large=1")
        assert here.plane.counts() == {}
        assert here.plane._recorder is here.kept
        assert len(here.kept.answers) == 1


async def test_a_canary_answers_its_share_and_says_its_own_policy(fake_folder: FakeFolder) -> None:
    """The same key always sees the same arm, variants by name are left alone, and both arms are counted."""
    async with world(fake_folder) as here:
        canary = here.policy("large")
        here.begin("canary", canary, share=0.4)
        seen: dict[bytes, set[str | None]] = {}
        for n in range(600):
            key = f"user {n % 200}".encode()
            result = await here.ask("small=1 large=2", key=key)
            seen.setdefault(key, set()).add(result.policy_version)
        assert all(len(versions) == 1 for versions in seen.values())
        share = sum(versions == {canary.version} for versions in seen.values()) / len(seen)
        low, high = binomial_bounds(200, 0.4)
        assert low <= share <= high
        by_name = await here.ask("small=1 large=2", model="fake-small")
        assert by_name.policy_version is None
        counts = await here.compared()
        assert counts.candidate.requests == round(600 * share)
        assert counts.live.requests == 600 - counts.candidate.requests
        assert len(here.kept.answers) == 601


async def test_a_request_stays_on_the_snapshot_that_it_began_on(fake_folder: FakeFolder) -> None:
    """Withdrawn under way, a canary still answers what it holds."""
    async with world(fake_folder) as here:
        canary = here.policy("large")
        here.begin("canary", canary)
        here.stages["fake-large"].gate.clear()
        asked = asyncio.ensure_future(here.ask("small=1 large=2"))
        await asyncio.sleep(0)
        begun_on = here.snapshot
        here.end()
        drained = asyncio.ensure_future(here.plane.drained(begun_on))
        assert (await here.ask("small=1 large=2")).policy_version != canary.version
        assert not drained.done()
        here.stages["fake-large"].gate.set()
        assert (await asked).policy_version == canary.version
        await drained


async def test_draining_waits_for_the_canary_too(fake_folder: FakeFolder) -> None:
    """New requests are refused, and the end comes after the last answer."""
    async with world(fake_folder) as here:
        here.begin("canary", here.policy("large"))
        here.stages["fake-large"].gate.clear()
        held = asyncio.ensure_future(here.ask("small=1 large=1"))
        await asyncio.sleep(0)
        draining = asyncio.ensure_future(here.plane.drain())
        await asyncio.sleep(0)
        with pytest.raises(NotReady):
            await here.ask("small=1 large=1")
        assert not draining.done()
        here.stages["fake-large"].gate.set()
        await held
        await draining


async def test_cost_and_objective_are_counted_per_arm(fake_folder: FakeFolder) -> None:
    """USD by the stages that ran, requests over the objective, escalated texts."""
    async with world(fake_folder) as here:
        here.begin("canary", here.policy("small", "large"), objective_ms=1e-6)
        await here.ask("small=1? large=1", "small=1 large=1")
        counts = (await here.compared()).candidate
        assert (counts.requests, counts.slow, counts.escalated) == (1, 1, 1)
        usd = {v.name: v.usd_per_1k or 0.0 for v in fake_folder.family.variants}
        assert counts.usd == pytest.approx((2 * usd["fake-small"] + usd["fake-large"]) / 1000)


async def test_both_arms_share_one_room(fake_folder: FakeFolder) -> None:
    """Neither doubles what a replica holds; what a full room refuses is the refusing arm's failure."""
    async with world(fake_folder, max_in_flight_texts=2) as here:
        here.snapshot = here.serving(here.policy("small"))
        here.begin("canary", here.policy("large"), share=0.5)
        live, canary = keys_of_both_arms(here)
        here.stages["fake-large"].gate.clear()
        here.stages["fake-small"].gate.clear()
        held = [asyncio.ensure_future(here.ask("small=1 large=1", key=key)) for key in (live, canary)]
        await asyncio.sleep(0)
        for key in (live, canary):
            with pytest.raises(Overloaded):
                await here.ask("small=1 large=1", key=key)
        here.stages["fake-large"].gate.set()
        here.stages["fake-small"].gate.set()
        await asyncio.gather(*held)
        counts = await here.compared()
        assert (counts.candidate.requests, counts.candidate.failed) == (1, 1)
        assert (counts.live.requests, counts.live.failed) == (1, 1)
        assert counts.pairs == PairCounts(same=1, unresolved=1)


def keys_of_both_arms(here: World) -> tuple[bytes, bytes]:
    """A key that the live arm answers, and one that the canary does."""
    keys = [f"user {n}".encode() for n in range(100)]
    canary = here.snapshot.trials[0].candidate
    mine = [key for key in keys if chosen(canary.id, canary.share, key)]
    return next(key for key in keys if key not in mine), mine[0]


async def test_an_older_canary_still_takes_its_part_of_the_room_and_draining_waits_for_it(
    fake_folder: FakeFolder,
) -> None:
    """Another share makes another plane; what the first one holds stays inside until it is answered."""
    async with world(fake_folder, max_in_flight_texts=2) as here:
        here.begin("canary", here.policy("large"))
        here.stages["fake-large"].gate.clear()
        held = asyncio.ensure_future(here.ask("small=1 large=1", "small=1 large=1"))
        await asyncio.sleep(0)
        here.begin("canary", here.policy("large"), share=0.5)
        assert here.plane.in_flight == 2
        with pytest.raises(Overloaded):
            await here.ask("small=1 large=1")
        draining = asyncio.ensure_future(here.plane.drain())
        await asyncio.sleep(0)
        here.plane.follow(here.snapshot)
        assert here.plane._worker is None
        with pytest.raises(NotReady):
            await here.ask("small=1 large=1")
        assert not draining.done()
        here.stages["fake-large"].gate.set()
        await held
        await draining


async def test_a_replica_that_fell_behind_answers_by_no_canary_either(fake_folder: FakeFolder) -> None:
    """What it would answer is out of force; the candidate has no part in that."""
    async with world(fake_folder) as here:
        here.begin("canary", here.policy("large"))
        here.behind = True
        with pytest.raises(NotReady):
            await here.ask("small=1 large=1")
        assert (await here.compared()).candidate.failed == 0


async def test_a_trial_that_ended_keeps_no_text(fake_folder: FakeFolder) -> None:
    """Neither what waits, nor what a request that was inside would still bring."""
    async with world(fake_folder) as here:
        here.begin("canary", here.policy("large"))
        here.stages["fake-large"].gate.clear()
        held = asyncio.ensure_future(here.ask("small=1 large=1"))
        await asyncio.sleep(0)
        here.stages["fake-large"].gate.set()
        here.end()
        await held
        assert here.plane.waiting_texts == 0
        assert here.plane._off_path is None
        here.begin("shadow", here.policy("other"))
        here.stages["fake-small"].gate.clear()
        held = asyncio.ensure_future(here.ask("small=1 other=1 large=1"))
        await asyncio.sleep(0)
        here.begin("shadow", here.policy("other"), share=0.9)
        here.stages["fake-small"].gate.set()
        await held
        assert here.plane.waiting_texts == 0
        assert (await here.compared()).pairs == PairCounts(shed=1)


async def test_a_canary_that_refuses_is_not_promoted_for_what_it_answers(fake_folder: FakeFolder) -> None:
    """Each text that it owes an answer counts as the worst it could be; a client's mistake does not."""
    async with world(fake_folder) as here:
        here.begin("canary", here.policy("other"))
        here.stages["fake-other"].problem = StageFailed("broken")
        for _ in range(3):
            with pytest.raises(StageFailed):
                await here.ask("small=1 other=1 large=1", "small=1 other=1 large=1")
        with pytest.raises(UnknownModel):
            await here.ask("small=1 other=1 large=1", model="nobody")
        counts = await here.compared()
        assert (counts.candidate.failed, counts.pairs) == (3, PairCounts(unresolved=6))
        many = PairCounts(same=500, unresolved=5000)
        assert judge(VerdictRule(), many, ArmCounts(requests=500, failed=5000)).decision == "undecided"


async def test_what_load_took_from_a_canary_is_neither_for_nor_against_it(fake_folder: FakeFolder) -> None:
    """Its answer came from a cheaper stage since another failed: nobody knows what it would have said."""
    async with world(fake_folder) as here:
        here.snapshot = here.serving(here.policy("other"))
        here.begin("canary", here.policy("small", "large"))
        here.stages["fake-large"].problem = StageFailed("broken")
        result = await here.ask("small=1? other=2 large=2", "small=2 other=2 large=2")
        assert (result.degraded, list(result.by_load)) == ([True, False], [True, False])
        counts = await here.compared()
        assert counts.pairs == PairCounts(same=1, unresolved=1)


async def test_what_the_policys_own_budget_took_is_compared_on_both_sides(fake_folder: FakeFolder) -> None:
    """A limit on escalations is a choice of the policy, and its answers are what it is worth."""
    async with world(fake_folder) as here:
        frugal = here.policy("small", "large", budget=0.0)
        here.begin("canary", frugal, measured_by="agreement")
        result = await here.ask("small=1? large=2")
        assert (result.degraded, list(result.by_load)) == ([True], [])
        here.snapshot = here.serving(here.snapshot.policy)
        assert (await here.compared()).pairs == PairCounts(same=1)
        here.end()
        here.snapshot = here.serving(frugal)
        here.begin("shadow", here.policy("other"), measured_by="agreement")
        await here.ask("small=1? other=1 large=2")
        assert (await here.compared()).pairs == PairCounts(same=1)
