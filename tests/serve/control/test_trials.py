"""Trials: begun, judged and ended by revisions that carry their evidence; counts exact over replicas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.testclient import TestClient

from contract.errors import InputError, PolicyError
from contract.live import FamilyReference, parse_revision
from contract.policy import Policy, single_variant_policy
from contract.trial import ArmCounts, PairCounts, TrialCounts, TrialKind, VerdictRule
from router.live.verdict import judge
from serve.control.admin_trials import trial_routes
from serve.control.evidence import ReplicaCounts
from serve.control.revision_store import first_revision
from tests.serve.control.trial_world import ALIKE, LIVE, OTHER, WORSE, World
from tests.serve.parts import OnlyLine

pytestmark = pytest.mark.anyio


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A gateway that serves the reference alone."""
    return World(tmp_path)


async def test_a_candidate_on_trial_is_a_revision(world: World) -> None:
    """What is in force stays; the history says who is on trial, at which share."""
    revision = await world.begin(auto="both")
    assert (revision.number, revision.policy, revision.shadow) == (2, LIVE, None)
    assert revision.canary is not None
    assert (revision.canary.policy, revision.canary.share, revision.canary.auto) == (OTHER, 0.1, "both")
    assert revision.reason == f"canary {OTHER.version[:12]} at 0.1"
    assert world.state.latest() == revision


async def test_the_same_policy_again_goes_on_and_another_begins(world: World) -> None:
    """The id, by which keys are hashed and counts are kept, stays, with all that is not said anew."""
    first = await world.begin(auto="both", rule=VerdictRule(no_worse_than=0.02, max_error_rate=0.1))
    more = await world.begin(share=0.5)
    bound = await world.begin(share=0.6, auto="withdraw", rule=VerdictRule(max_error_rate=0.1))
    other = await world.begin(policy=single_variant_policy("fake-other"))
    assert first.canary is not None
    assert more.canary == first.canary.model_copy(update={"share": 0.5})
    assert bound.canary == first.canary.model_copy(update={"share": 0.6, "auto": "withdraw"})
    assert other.canary is not None
    assert other.canary.id != first.canary.id
    assert other.canary.rule == VerdictRule()


async def test_another_rule_needs_to_be_asked_for(world: World) -> None:
    """The counts so far were for the first one; nobody loses them, or a guardrail, by a word left out."""
    first = await world.begin(rule=VerdictRule(max_error_rate=0.1))
    with pytest.raises(PolicyError, match=r"(?s)another no_worse_than.*--anew"):
        await world.begin(rule=VerdictRule(no_worse_than=0.02))
    assert world.plane.current() == first
    anew = await world.begin(rule=VerdictRule(no_worse_than=0.02), anew=True)
    assert first.canary is not None
    assert anew.canary is not None
    assert anew.canary.id != first.canary.id
    assert anew.canary.rule == VerdictRule(no_worse_than=0.02)
    assert [ruling.candidate.id for ruling in anew.rulings] == [first.canary.id]


async def test_what_is_in_force_cannot_be_on_trial_and_what_does_not_fit_is_refused(world: World) -> None:
    """Nothing changes."""
    with pytest.raises(PolicyError, match="in force already"):
        await world.begin(policy=LIVE)
    with pytest.raises(PolicyError, match="stranger"):
        await world.begin(policy=single_variant_policy("stranger"))
    assert len(world.state.history()) == 1


async def test_a_promotion_carries_what_anybody_needs_to_judge_again(world: World) -> None:
    """From the revision's file alone: rule and counts give the verdict that it states."""
    await world.begin()
    world.count(ALIKE)
    revision, _ = await world.trials.end("canary", "promote", "operator")
    assert (revision.policy, revision.canary) == (OTHER, None)
    raw = json.loads((world.folder / "state" / "revisions" / "00000003.json").read_text())
    [ruling] = parse_revision(raw).rulings
    assert (ruling.kind, ruling.decision, ruling.by) == ("canary", "promote", "operator")
    assert judge(ruling.candidate.rule, ruling.counts.pairs, ruling.counts.candidate) == ruling.verdict
    assert ruling.verdict.reason == "no_worse"
    assert "promoted by an operator: no worse than allowed, 1000 texts compared" in revision.reason


async def test_a_withdrawal_leaves_what_is_in_force_and_the_other_trial(world: World) -> None:
    """Only that candidate goes; ending it twice is refused."""
    await world.begin("canary")
    await world.begin("shadow", single_variant_policy("fake-other"))
    revision, _ = await world.trials.end("canary", "withdraw", "operator")
    assert (revision.policy, revision.canary) == (LIVE, None)
    assert revision.shadow is not None
    assert len(revision.rulings) == 1
    with pytest.raises(PolicyError, match="no canary is on trial"):
        await world.trials.end("canary", "withdraw", "operator")


@pytest.mark.parametrize("ending", ["push", "rollback"])
async def test_a_push_and_a_rollback_end_trials(world: World, ending: str) -> None:
    """Candidates were held against a policy that is no longer in force."""
    await world.begin()
    world.count(ALIKE)
    await world.trials.look()
    if ending == "push":
        revision, _ = await world.plane.push(single_variant_policy("fake-other").dump())
    else:
        revision, _ = await world.plane.rollback(2)
    assert list(revision.trials()) == []
    [ruling] = revision.rulings
    assert (ruling.by, ruling.decision, ruling.counts) == ("change", "withdraw", ALIKE)
    assert ruling.verdict.reason == "no_worse"


async def test_who_replaces_or_is_promoted_over_another_trial_ends_it_with_a_ruling(world: World) -> None:
    """No end of a trial is without its counts."""
    third = single_variant_policy("fake-other")
    await world.begin("canary")
    world.count(ALIKE)
    await world.trials.look()
    replaced = await world.begin("canary", third)
    assert [(one.by, one.candidate.policy, one.counts) for one in replaced.rulings] == [
        ("change", OTHER, ALIKE)
    ]
    await world.begin("shadow")
    promoted, _ = await world.trials.end("canary", "promote", "operator")
    assert [(one.kind, one.by, one.decision) for one in promoted.rulings] == [
        ("canary", "operator", "promote"), ("shadow", "change", "withdraw")
    ]  # fmt: skip
    assert parse_revision(promoted.dump()) == promoted


async def test_another_change_keeps_the_trial_and_forgets_the_ruling(world: World) -> None:
    """A ruling belongs to the revision that it made."""
    await world.begin("canary")
    await world.begin("shadow", single_variant_policy("fake-other"))
    await world.trials.end("canary", "withdraw", "operator")
    revision, _ = await world.plane.commit(lambda now: now.model_copy(update={"later": 1}), "something else")
    assert revision.shadow is not None
    assert revision.rulings == ()


@pytest.mark.parametrize(
    ("auto", "counts", "policy", "on_trial"),
    [
        ("both", ALIKE, OTHER, False),
        ("both", WORSE, LIVE, False),
        ("withdraw", ALIKE, LIVE, True),
        ("withdraw", WORSE, LIVE, False),
        ("off", ALIKE, LIVE, True),
        ("off", WORSE, LIVE, True),
        ("both", TrialCounts(pairs=PairCounts(same=50)), LIVE, True),
    ],
)
@pytest.mark.parametrize("kind", ["canary", "shadow"])
async def test_a_verdict_does_what_it_may_and_no_more(
    world: World, kind: TrialKind, auto: str, counts: TrialCounts, policy: Policy, on_trial: bool
) -> None:
    """Promoted or withdrawn by itself where that was asked for; otherwise it only tells."""
    await world.begin(kind, auto=auto)
    world.count(counts)
    await world.trials.look()
    revision = world.plane.current()
    assert revision.policy == policy
    assert bool(list(revision.trials())) == on_trial
    if not on_trial:
        assert [ruling.by for ruling in revision.rulings] == ["verdict"]
        assert "by its verdict" in revision.reason


async def test_a_verdict_on_one_candidate_ends_no_other(world: World) -> None:
    """While counts are gathered an operator may put another one there, or take the leave to act back."""
    await world.begin(auto="both")
    world.count(ALIKE)
    gather = world.gateway.counts
    asked = 0

    async def meanwhile() -> list[ReplicaCounts]:
        nonlocal asked
        asked += 1
        if asked == 2:
            await world.begin(policy=single_variant_policy("fake-other"), auto="both")
        return await gather()

    world.gateway.counts = meanwhile  # type: ignore[method-assign]
    await world.trials.look()
    revision = world.plane.current()
    assert revision.policy == LIVE
    assert revision.canary is not None
    assert revision.canary.policy == single_variant_policy("fake-other")


async def test_a_verdict_acts_on_what_it_says_now_and_where_it_may_now(world: World) -> None:
    """Late counts change it; another `auto` binds it, as soon as it is in force."""
    await world.begin(auto="both")
    world.count(TrialCounts(pairs=PairCounts(same=500)))
    gather = world.gateway.counts
    asked = 0

    async def late() -> list[ReplicaCounts]:
        nonlocal asked
        asked += 1
        if asked == 2:
            world.count(TrialCounts(pairs=PairCounts(same=500, worse=8)))
        return await gather()

    world.gateway.counts = late  # type: ignore[method-assign]
    await world.trials.look()
    assert world.plane.current().canary is not None
    world.count(ALIKE)
    asked = 2

    async def bound() -> list[ReplicaCounts]:
        nonlocal asked
        asked += 1
        if asked == 4:
            await world.begin(share=0.2, auto="withdraw")
        return await gather()

    world.gateway.counts = bound  # type: ignore[method-assign]
    await world.trials.look()
    assert world.plane.current().canary is not None
    await world.trials.look()
    assert world.plane.current().policy == LIVE


async def test_a_guardrail_withdraws_whatever_the_answers(world: World) -> None:
    """Too many of the canary's requests fail."""
    await world.begin(auto="withdraw", rule=VerdictRule(max_error_rate=0.01))
    failing = ArmCounts(requests=900, failed=100)
    world.count(TrialCounts(candidate=failing, pairs=PairCounts(same=5000)))
    await world.trials.look()
    assert "too many of its requests fail" in world.plane.current().reason


async def test_counts_are_exact_over_replicas_that_come_and_go(world: World) -> None:
    """Told twice counts once; what a replica said last stays when it is gone; restarts lose nothing kept."""
    one = TrialCounts(pairs=PairCounts(same=10))
    two = TrialCounts(pairs=PairCounts(same=15, worse=1))
    await world.begin()
    world.count(one, "a")
    await world.trials.look()
    await world.trials.look()
    world.count(two, "a")
    world.count(one, "b")
    [trial] = await world.trials.standing()
    assert trial["counts"]["pairs"] == PairCounts(same=25, worse=1).model_dump()
    world.restart()
    del world.gateway.told["a"]
    world.count(one, "c")
    [trial] = await world.trials.standing()
    assert trial["counts"]["pairs"] == PairCounts(same=35, worse=1).model_dump()
    world.restart()
    world.gateway.told.clear()
    [trial] = await world.trials.standing()
    assert trial["counts"]["pairs"] == PairCounts(same=35, worse=1).model_dump()


async def test_a_long_trial_is_written_by_the_hundredth(world: World) -> None:
    """Growth below that is not worth a write."""
    await world.begin()
    trial = next(candidate.id for _, candidate in world.plane.current().trials())
    for same in (1000, 1005, 1009, 1020):
        world.count(TrialCounts(pairs=PairCounts(same=same)))
        await world.trials.look()
    files = sorted((world.folder / "state" / "trials" / trial).iterdir())
    assert [file.name for file in files] == ["00000001.json", "00000002.json"]


async def test_counts_that_cannot_be_read_are_those_before_them(world: World) -> None:
    """A damaged file costs its hundredth; with none left, an operator still ends the trial."""
    await world.begin()
    trial = next(candidate.id for _, candidate in world.plane.current().trials())
    for same in (1000, 2000):
        world.count(TrialCounts(pairs=PairCounts(same=same)))
        await world.trials.look()
    first, last = sorted((world.folder / "state" / "trials" / trial).iterdir())
    last.write_text("[]")
    world.gateway.told.clear()
    world.restart()
    [told] = await world.trials.standing()
    assert told["counts"]["pairs"]["same"] == 1000
    world.count(TrialCounts(pairs=PairCounts(same=3000)))
    await world.trials.look()
    assert (last.parent / "00000003.json").is_file()
    for file in last.parent.iterdir():
        file.write_text("{")
    world.restart()
    revision, _ = await world.trials.end("canary", "withdraw", "operator")
    assert revision.canary is None
    assert first.is_file()


async def test_a_store_that_is_away_stops_verdicts_and_no_operator(world: World) -> None:
    """What was kept of replicas that are gone is missing then, and a verdict would be about a part."""
    await world.begin(auto="both")
    world.count(ALIKE)
    keys = world.evidence._objects.keys

    def away(_: str) -> list[str]:
        raise OSError("no route")

    world.evidence._objects.keys = away  # type: ignore[method-assign, assignment]
    await world.trials.look()
    assert world.plane.current().canary is not None
    world.evidence._objects.keys = keys  # type: ignore[method-assign]
    await world.trials.look()
    assert world.plane.current().policy == OTHER
    await world.begin(policy=single_variant_policy("fake-other"))
    world.evidence._objects.keys = away  # type: ignore[method-assign, assignment]
    revision, _ = await world.trials.end("canary", "withdraw", "operator")
    assert revision.canary is None


async def test_the_admin_interface_begins_tells_and_ends_trials(world: World) -> None:
    """With the refusals of people's mistakes in words."""

    async def body(request: Request) -> Any:
        return await request.json()

    class Nowhere:
        """Finds no family."""

        async def bring(self, _: Path) -> FamilyReference:
            """Refuse."""
            raise InputError("no such family")

    line = OnlyLine(world.plane, world.trials, Nowhere())

    app = Starlette(
        routes=trial_routes(lambda _: line, body),
        exception_handlers={InputError: lambda _, problem: _refused(problem)},
    )
    client = TestClient(app)
    asked = {"policy": OTHER.dump(), "share": 0.25, "rule": {"no_worse_than": 0.02}}
    assert client.get("/trials").json() == []
    begun = client.put("/trials/canary", json=asked).json()
    assert begun["revision"]["canary"]["share"] == 0.25
    world.count(ALIKE)
    [told] = client.get("/trials").json()
    assert (told["kind"], told["agreement"], told["verdict"]["decision"]) == ("canary", 1.0, "promote")
    assert told["arms"]["canary"]["usd_per_1k"] == 0.5
    assert client.post("/trials/canary/promote").json()["revision"]["policy"]["version"] == OTHER.version
    assert client.put("/trials/mirror", json=asked).status_code == 404
    assert client.post("/trials/canary/forget").status_code == 404
    for wrong in (
        {**asked, "share": 0},
        {**asked, "shares": 1},
        {**asked, "family": "/nowhere"},
        {**asked, "family": "here"},
    ):
        assert client.put("/trials/shadow", json=wrong).status_code == 400


def _refused(problem: Exception) -> Any:
    from starlette.responses import JSONResponse

    return JSONResponse({"error": str(problem)}, 400)


def test_a_revision_lists_the_families_of_its_candidates_once() -> None:
    """The one in force first: replicas load the others beside it."""
    mine = FamilyReference(name="f", sha256="a", path="/a")
    other = FamilyReference(name="g", sha256="b", path="/b")
    first = first_revision(LIVE, mine, "seed")
    assert first.families == (mine,)
    candidate = {
        "id": "canary-2", "policy": OTHER.dump(), "family": other.model_dump(), "share": 0.5, "since": "now",
        "since_revision": 2,
    }  # fmt: skip
    both = parse_revision({**first.dump(), "canary": candidate, "shadow": candidate | {"id": "shadow-2"}})
    assert both.families == (mine, other)
    same = parse_revision({**first.dump(), "canary": candidate | {"family": mine.model_dump()}})
    assert same.families == (mine,)
    assert parse_revision(both.dump()) == both
