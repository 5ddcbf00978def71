"""Traffic shares: who gets a canary, what a shadow may never do to live requests, and how answers compare."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from contract.errors import NotReady, Overloaded, StageFailed
from contract.live import Candidate, FamilyReference
from contract.policy import Policy, Stage
from contract.trial import PairCounts, TrialCounts, TrialKind, VerdictRule
from router.decide.cascade import compile_policy
from runtime.api import Logits
from serve.settings.limits import RequestLimits
from serve.settings.traffic import TrafficSettings
from serve.traffic.off_path import MachineLoad
from serve.traffic.plane import TrafficPlane
from serve.traffic.shares import chosen
from serve.types.messages import ClassifyRequest, ClassifyResult
from serve.types.priority import LOWEST_PRIORITY
from serve.types.stage import Snapshot, Trial
from tests.serve.parts import FakeFolder, Kept, two_stage_policy

pytestmark = pytest.mark.anyio
QUIET = TrafficSettings(busy_cpu_share=None)


class Scripted:
    """A stage that finds its class in the text, as in "small=2 large=3?"; "?" says that it is unsure."""

    def __init__(self, variant: str) -> None:
        self.variant = variant
        self.asked: list[tuple[str, int | None]] = []
        self.problem: Exception | None = None
        self.at_once = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def logits(self, texts: Sequence[str], *_: Any, **more: Any) -> Logits:
        """Look the class up in each text."""
        self.asked += [(text, more.get("priority", _[-1] if _ else None)) for text in texts]
        await self.gate.wait()
        if self.problem is not None:
            raise self.problem
        return self.answers(texts)

    def answers(self, texts: Sequence[str]) -> Logits:
        """What the texts say."""
        rows = np.empty((len(texts), 5))
        for row, text in enumerate(texts):
            said = dict(part.split("=") for part in text.split())[self.variant.removeprefix("fake-")]
            surely = 0.5 if said.endswith("?") else 0.99
            rows[row] = (1 - surely) / 4
            rows[row, int(said.removesuffix("?"))] = surely
        return np.log(rows).astype(np.float32)

    def logits_now(self, texts: Sequence[str], deadline_at: float | None) -> Logits | None:
        """At once where told to, else never."""
        if not self.at_once:
            return None
        self.asked += [(text, None) for text in texts]
        return self.answers(texts)

    async def ready(self) -> bool:
        """Always."""
        return True


class World:
    """Three scripted stages; the live policy is small alone, unless told otherwise."""

    def __init__(self, fakes: FakeFolder, settings: TrafficSettings = QUIET, **limits: Any) -> None:
        self.fakes = fakes
        self.kept = Kept()
        self.stages = {name: Scripted(name) for name in fakes.family.names}
        self.snapshot = self.serving(self.policy("small"))
        self.plane = TrafficPlane(lambda: self.snapshot, RequestLimits(**limits), self.kept, settings)

    @staticmethod
    def policy(*variants: str) -> Policy:
        """These variants in a row, each sure at 0.9; the reference is large."""
        names = [f"fake-{variant}" for variant in variants]
        stages = [Stage(variant=name, threshold=0.9, temperature=1.0) for name in names[:-1]]
        return Policy(
            status="uncertified",
            reference="fake-large",
            stages=(*stages, Stage(variant=names[-1], temperature=1.0)),
        ).sealed()

    def serving(self, policy: Policy, trials: tuple[Trial, ...] = ()) -> Snapshot:
        """A snapshot of the same stages."""
        compiled = compile_policy(policy, self.fakes.family.labels)
        return Snapshot(1, policy, compiled, self.fakes.family, self.stages, trials)

    def begin(self, kind: TrialKind, policy: Policy, share: float = 1.0, **rule: Any) -> None:
        """Put a candidate on trial."""
        family = self.fakes.family
        candidate = Candidate(
            id=f"{kind}-2",
            policy=policy,
            family=FamilyReference(sha256=family.sha256, path="/f"),
            share=share,
            since="now",
            since_revision=2,
            rule=VerdictRule(**rule),
        )
        self.snapshot = self.serving(self.snapshot.policy, (Trial(kind, candidate, self.serving(policy)),))
        self.plane.follow(self.snapshot)

    def end(self) -> None:
        """End all trials."""
        self.snapshot = self.serving(self.snapshot.policy)
        self.plane.follow(self.snapshot)

    async def ask(self, *texts: str, key: bytes = b"", model: str = "cascade") -> ClassifyResult:
        """Classify."""
        request = ClassifyRequest(model, list(texts), None, time.monotonic(), sticky_key=key)
        return await self.plane.classify(request)

    async def compared(self) -> TrialCounts:
        """The counts once nothing waits for comparison."""
        async with asyncio.timeout(5):
            while self.plane.waiting_texts:
                await asyncio.sleep(0)
        _, counts = next(iter(self.plane.counts().values()))
        return counts


@asynccontextmanager
async def world(fakes: FakeFolder, settings: TrafficSettings = QUIET, **limits: Any) -> AsyncIterator[World]:
    """A world that leaves no task behind."""
    made = World(fakes, settings, **limits)
    try:
        yield made
    finally:
        made.end()


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
        assert levels == {LOWEST_PRIORITY}


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


def test_the_machines_load_is_looked_at_a_few_times_a_second() -> None:
    """Between looks the last figure stands; without a limit nothing is ever too busy."""
    now = 0.0
    load = MachineLoad(1e-9, lambda: now)
    assert not load()
    until = time.process_time() + 0.02
    while time.process_time() < until:
        pass
    now = 1.0
    assert load()
    assert not MachineLoad(None)()


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


async def test_both_arms_share_one_room(fake_folder: FakeFolder) -> None:
    """A canary does not double what a replica holds at a time; what it refuses is its own failure."""
    async with world(fake_folder, max_in_flight_texts=2) as here:
        here.begin("canary", here.policy("large"))
        here.stages["fake-large"].gate.clear()
        held = asyncio.ensure_future(here.ask("small=1 large=1", "small=1 large=1"))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await here.ask("small=1 large=1")
        here.stages["fake-large"].gate.set()
        await held
        counts = await here.compared()
        assert (counts.candidate.requests, counts.candidate.failed) == (1, 1)


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
        assert two_stage_policy().version != here.snapshot.policy.version
