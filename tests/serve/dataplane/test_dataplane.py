"""The data plane: who answers, and what happens when somebody does not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import numpy as np
import pyarrow.parquet as pq
import pytest

from contract.costs import read_costs
from contract.errors import (
    DeadlineExceeded,
    NotReady,
    Overloaded,
    RequestError,
    StageFailed,
    UnknownModel,
)
from contract.files import inside
from contract.policy import ClassRule, Limits, Policy, Stage
from router.decide.cascade import compile_policy
from router.decide.simulate import simulate
from runtime.api import Logits
from serve.dataplane.plane import DataPlane
from serve.settings.limits import RequestLimits
from serve.types.messages import ClassifyRequest, ClassifyResult
from serve.types.priority import DEFAULT_PRIORITY
from serve.types.recorder import NoRecorder
from serve.types.stage import Snapshot
from tables.predictions import read_predictions
from tests.serve.parts import FakeFolder, Kept, snapshot_of, two_stage_policy

pytestmark = pytest.mark.anyio
LIMITS = RequestLimits(max_in_flight_texts=8)


class Scripted:
    """A stage that answers every text with its class "c<class>@<confidence>", or as told."""

    def __init__(self, variant: str, classes: int = 5) -> None:
        self.variant = variant
        self.classes = classes
        self.seen: list[list[str]] = []
        self.terms: list[tuple[float | None, float | None, int]] = []
        self.problem: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.is_ready = True

    def logits_now(self, texts: Sequence[str], deadline_at: float | None) -> None:
        """Never at once."""

    async def logits(
        self,
        texts: Sequence[str],
        deadline_at: float | None,
        due_at: float | None = None,
        priority: int = DEFAULT_PRIORITY,
    ) -> Logits:
        """Confidence by `text.split()[self.variant's place]`: "0.6 0.9" is 0.6 here and 0.9 at the next."""
        self.seen.append(list(texts))
        self.terms.append((deadline_at, due_at, priority))
        await self.gate.wait()
        if self.problem is not None:
            raise self.problem
        place = {"fake-small": 0, "fake-other": 1, "fake-large": 2}[self.variant]
        rows = []
        for text in texts:
            answer, confidence = text.split()[place].split("@")
            row = np.full(self.classes, (1 - float(confidence)) / (self.classes - 1))
            row[int(answer)] = float(confidence)
            rows.append(np.log(row))
        return np.array(rows, dtype=np.float32)

    async def ready(self) -> bool:
        """As told."""
        return self.is_ready


class World:
    """A data plane over three scripted stages."""

    def __init__(self, fakes: FakeFolder, policy: Policy, limits: RequestLimits = LIMITS) -> None:
        self.fakes = fakes
        self.kept = Kept()
        self.stages = {name: Scripted(name) for name in fakes.family.names}
        self.snapshot = self.with_policy(policy)
        self.plane = DataPlane(lambda: self.snapshot, limits, self.kept)

    def with_policy(self, policy: Policy) -> Snapshot:
        """A snapshot of the same stages."""
        compiled = compile_policy(policy, self.fakes.family.labels)
        return Snapshot(1, policy, compiled, self.fakes.family, self.stages)

    async def ask(
        self, *texts: str, model: str = "cascade", timeout_s: float | None = None
    ) -> ClassifyResult:
        """Classify."""
        return await self.plane.classify(ClassifyRequest(model, list(texts), timeout_s, time.monotonic()))


def three_stages(**limits: float) -> Policy:
    """small -> other -> large at 0.9 and 0.8."""
    return Policy(
        status="uncertified",
        reference="fake-large",
        stages=(
            Stage(variant="fake-small", threshold=0.9),
            Stage(variant="fake-other", threshold=0.8),
            Stage(variant="fake-large"),
        ),
        limits=Limits(**limits),
    ).sealed()


async def test_a_sure_answer_stays_with_the_first_stage(fake_folder: FakeFolder) -> None:
    """Score at or above the threshold: the first stage answers and no other is asked."""
    world = World(fake_folder, two_stage_policy())
    result = await world.ask("1@0.95 - 2@0.99")
    assert (result.predicted, result.variant, result.escalated) == ([1], ["fake-small"], [False])
    assert result.confidence == pytest.approx([0.95], abs=1e-6)
    assert result.policy_version == world.snapshot.policy.version
    assert world.stages["fake-large"].seen == []
    (record,) = world.kept.answers
    assert (record.model, list(record.variants), record.escalation_s) == ("cascade", ["fake-small"], None)


async def test_the_texts_of_one_request_part_ways(fake_folder: FakeFolder) -> None:
    """Unsure texts go on, the others stay, and every answer keeps its place."""
    world = World(fake_folder, three_stages())
    texts = ("0@0.99 - -", "1@0.5 2@0.9 -", "1@0.5 2@0.5 3@0.7", "4@0.95 - -", "0@0.6 0@0.85 -")
    result = await world.ask(*texts)
    assert result.predicted == [0, 2, 3, 4, 0]
    assert result.variant == ["fake-small", "fake-other", "fake-large", "fake-small", "fake-other"]
    assert result.escalated == [False, True, True, False, True]
    assert result.degraded == [False] * 5
    assert world.stages["fake-other"].seen == [[texts[1], texts[2], texts[4]]]
    assert world.stages["fake-large"].seen == [[texts[2]]]
    assert result.probabilities().max(axis=1) == pytest.approx([0.99, 0.9, 0.7, 0.95, 0.85], abs=1e-6)
    (record,) = world.kept.answers
    assert list(record.escalations) == [("fake-small", "fake-other", 3), ("fake-other", "fake-large", 1)]
    assert record.escalation_s is not None


async def test_a_class_may_escalate_past_a_stage(fake_folder: FakeFolder) -> None:
    """A class rule has its own threshold and its own next stage."""
    rules = {fake_folder.family.labels[1]: ClassRule(threshold=0.99, next="fake-large")}
    policy = three_stages()
    first = policy.stages[0].model_copy(update={"per_class": rules})
    world = World(fake_folder, policy.model_copy(update={"stages": (first, *policy.stages[1:])}).sealed())
    result = await world.ask("1@0.95 - 3@0.6", "2@0.95 - -")
    assert result.variant == ["fake-large", "fake-small"]
    assert world.stages["fake-other"].seen == []
    assert list(world.kept.answers[0].escalations) == [("fake-small", "fake-large", 1)]


async def test_a_variant_by_name_answers_alone(fake_folder: FakeFolder) -> None:
    """Asked by name, a variant answers whatever its confidence, and no policy has a part."""
    world = World(fake_folder, two_stage_policy())
    result = await world.ask("- 3@0.3 -", model="fake-other")
    assert (result.predicted, result.variant, result.policy_version) == ([3], ["fake-other"], None)
    assert world.stages["fake-small"].seen == []


async def test_an_unknown_model_is_refused_with_the_known_ones(fake_folder: FakeFolder) -> None:
    """Names come from an allow-list."""
    with pytest.raises(UnknownModel, match="cascade, fake-small"):
        await World(fake_folder, two_stage_policy()).ask("x", model="../etc")


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (Overloaded("full"), "overloaded"),
        (StageFailed("broke"), "failed"),
        (NotReady("gone"), "failed"),
        (DeadlineExceeded("late"), "deadline"),
        (ZeroDivisionError(), "failed"),
    ],
)
async def test_when_the_next_stage_cannot_answer_the_cheap_answer_goes_out(
    fake_folder: FakeFolder, problem: Exception, reason: str
) -> None:
    """Whatever the later stage raises, the client gets the answer in hand, marked degraded."""
    world = World(fake_folder, two_stage_policy())
    world.stages["fake-large"].problem = problem
    result = await world.ask("1@0.95 - -", "2@0.5 - -")
    assert (result.predicted, result.variant) == ([1, 2], ["fake-small"] * 2)
    assert (result.escalated, result.degraded) == ([False, False], [False, True])
    assert list(world.kept.answers[0].degraded) == [(reason, 1)]


@pytest.mark.parametrize("problem", [Overloaded("full"), NotReady("gone"), DeadlineExceeded("late")])
async def test_when_the_first_stage_cannot_answer_the_request_fails(
    fake_folder: FakeFolder, problem: RequestError
) -> None:
    """There is nothing cheaper to fall back on."""
    world = World(fake_folder, two_stage_policy())
    world.stages["fake-small"].problem = problem
    with pytest.raises(type(problem)):
        await world.ask("1@0.95 - -")
    assert world.plane.in_flight == 0


async def test_a_stage_that_breaks_in_its_own_way_fails_generically(fake_folder: FakeFolder) -> None:
    """An error that no stage should raise tells the client nothing."""
    world = World(fake_folder, two_stage_policy())
    world.stages["fake-other"].problem = ValueError("secret path")
    with pytest.raises(StageFailed) as failed:
        await world.ask("- 1@0.9 -", model="fake-other")
    assert "secret" not in str(failed.value)


async def test_logits_of_a_wrong_shape_are_a_failure(fake_folder: FakeFolder) -> None:
    """An answer for other classes is no answer."""
    world = World(fake_folder, two_stage_policy())
    world.stages["fake-large"].classes = 4
    assert (await world.ask("1@0.5 - 1@0.9")).degraded == [True]


async def test_a_deadline_in_the_later_stage_gives_the_cheap_answer(fake_folder: FakeFolder) -> None:
    """A stage that does not answer in time is not waited for."""
    world = World(fake_folder, two_stage_policy())
    world.stages["fake-large"].gate.clear()
    result = await world.ask("1@0.5 - 1@0.9", timeout_s=0.02)
    assert (result.degraded, result.variant) == ([True], ["fake-small"])
    assert list(world.kept.answers[0].degraded) == [("deadline", 1)]


async def test_the_deadline_of_the_policy_holds_where_the_client_sets_none(fake_folder: FakeFolder) -> None:
    """limits.deadline_ms ends the wait for the later stage."""
    world = World(fake_folder, two_stage_policy(deadline_ms=20.0))
    world.stages["fake-large"].gate.clear()
    assert (await world.ask("1@0.5 - 1@0.9")).degraded == [True]


async def test_a_deadline_in_the_first_stage_fails_the_request(fake_folder: FakeFolder) -> None:
    """Without any answer in hand, too late is an error."""
    world = World(fake_folder, two_stage_policy())
    world.stages["fake-small"].gate.clear()
    with pytest.raises(DeadlineExceeded):
        await world.ask("1@0.5 - -", timeout_s=0.01)
    assert world.plane.in_flight == 0


async def test_an_escalation_that_would_end_too_late_is_not_started(fake_folder: FakeFolder) -> None:
    """The learned time of the next stage is compared with what is left."""
    now = [0.0]
    world = World(fake_folder, two_stage_policy())
    world.plane = DataPlane(lambda: world.snapshot, LIMITS, world.kept, clock=lambda: now[0])
    large = world.stages["fake-large"]
    large.gate.clear()
    first = asyncio.create_task(
        world.plane.classify(ClassifyRequest("cascade", ["1@0.5 - 1@0.9"], None, 0.0))
    )
    while not large.seen:
        await asyncio.sleep(0)
    now[0] = 4.0
    large.gate.set()
    assert (await first).escalated == [True]
    hurried = ClassifyRequest("cascade", ["1@0.5 - 1@0.9"], 3.0, 4.0)
    assert (await world.plane.classify(hurried)).degraded == [True]
    assert len(large.seen) == 1
    patient = ClassifyRequest("cascade", ["1@0.5 - 1@0.9"], 20.0, 4.0)
    assert (await world.plane.classify(patient)).escalated == [True]


async def test_a_spent_budget_answers_cheaply_and_keeps_the_least_sure(fake_folder: FakeFolder) -> None:
    """Within one request the budget goes to the texts with the lowest scores."""
    world = World(fake_folder, two_stage_policy(max_escalation_rate=0.0001))
    unsure = ["1@0.5 - 1@0.9"] * 18 + ["1@0.8 - 1@0.9", "1@0.7 - 1@0.9", "1@0.3 - 1@0.9", "1@0.6 - 1@0.9"]
    world.plane = DataPlane(lambda: world.snapshot, RequestLimits(), world.kept)
    result = await world.ask(*unsure)
    assert result.degraded == [False] * 18 + [True, True, False, False]
    assert world.stages["fake-large"].seen == [
        [t for t, d in zip(unsure, result.degraded, strict=True) if not d]
    ]
    assert (await world.ask("1@0.5 - 1@0.9")).degraded == [True]
    assert list(world.kept.answers[0].degraded) == [("budget", 2)]


async def test_a_text_pays_once_for_the_whole_cascade(fake_folder: FakeFolder) -> None:
    """A text that goes on to a third stage counts as one escalated text, as in the policy's limit."""
    policy = Policy(
        status="uncertified",
        reference="fake-large",
        stages=(
            Stage(variant="fake-small", threshold=0.9),
            Stage(variant="fake-other", threshold=0.9),
            Stage(variant="fake-large"),
        ),
        limits=Limits(max_escalation_rate=0.0001),
    ).sealed()
    world = World(fake_folder, policy)
    world.plane = DataPlane(lambda: world.snapshot, RequestLimits(), world.kept)
    result = await world.ask(*["1@0.5 1@0.5 1@0.99"] * 20)
    assert result.variant == ["fake-large"] * 20
    assert not any(result.degraded)


async def test_draining_answers_what_is_inside_and_refuses_the_rest(fake_folder: FakeFolder) -> None:
    """A request inside is answered in full, later ones are refused; draining ends with the last answer."""
    world = World(fake_folder, two_stage_policy())
    large = world.stages["fake-large"]
    large.gate.clear()
    asked = asyncio.create_task(world.ask("1@0.5 - 1@0.9"))
    while not large.seen:
        await asyncio.sleep(0)
    draining = asyncio.create_task(world.plane.drain())
    await asyncio.sleep(0)
    assert not draining.done()
    assert not await world.plane.ready()
    with pytest.raises(NotReady, match="stopping"):
        await world.ask("1@0.5 - 1@0.9")
    large.gate.set()
    assert (await asked).degraded == [False]
    await asyncio.wait_for(draining, 5)
    assert world.plane.in_flight == 0


async def test_a_full_gateway_refuses(fake_folder: FakeFolder) -> None:
    """Texts in flight are bounded, except that a single request always fits."""
    world = World(fake_folder, two_stage_policy())
    world.stages["fake-small"].gate.clear()
    inside = asyncio.create_task(world.ask(*["1@0.95 - -"] * 9))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await world.ask("1@0.95 - -")
    world.stages["fake-small"].gate.set()
    assert len((await inside).predicted) == 9


async def test_a_request_works_on_one_snapshot_from_start_to_end(fake_folder: FakeFolder) -> None:
    """A policy that arrives while a request is inside changes nothing for it, and waits for it to leave."""
    world = World(fake_folder, two_stage_policy())
    old = world.snapshot
    world.stages["fake-large"].gate.clear()
    inside = asyncio.create_task(world.ask("1@0.5 - 2@0.9"))
    while not world.stages["fake-large"].seen:
        await asyncio.sleep(0)
    world.snapshot = world.with_policy(three_stages())
    later = await world.ask("1@0.95 - -")
    draining = asyncio.create_task(world.plane.drained(old))
    await asyncio.sleep(0)
    assert not draining.done()
    world.stages["fake-large"].gate.set()
    assert (await inside).policy_version == old.policy.version
    assert later.policy_version == world.snapshot.policy.version
    await draining
    await world.plane.drained(old)


async def test_ready_needs_every_stage_of_the_policy(fake_folder: FakeFolder) -> None:
    """A variant outside the cascade may be away; a stage may not."""
    world = World(fake_folder, two_stage_policy())
    world.stages["fake-other"].is_ready = False
    assert await world.plane.ready()
    assert await world.plane.model_ready("cascade")
    assert not await world.plane.model_ready("fake-other")
    world.stages["fake-large"].is_ready = False
    assert not await world.plane.ready()
    with pytest.raises(UnknownModel):
        await world.plane.model_ready("nobody")


async def test_without_a_snapshot_nothing_is_ready() -> None:
    """Before the first revision every request is refused, and ready says no."""

    def nothing() -> Snapshot:
        raise NotReady("no revision yet")

    plane = DataPlane(nothing, LIMITS, NoRecorder())
    assert not await plane.ready()
    with pytest.raises(NotReady):
        await plane.classify(ClassifyRequest("cascade", ["a"], None, 0.0))


async def test_agreement_counts_the_stages_that_ran(fake_folder: FakeFolder) -> None:
    """With the agreement score, two stages that agree are surer than one of any confidence."""
    policy = three_stages()
    second = Stage(variant="fake-other", score="agreement", threshold=0.75)
    stages = (policy.stages[0], second, policy.stages[2])
    world = World(fake_folder, policy.model_copy(update={"stages": stages}).sealed())
    result = await world.ask("1@0.5 1@0.6 -", "1@0.5 2@0.99 4@0.9")
    assert result.variant == ["fake-other", "fake-large"]


@pytest.mark.parametrize("temperature", [None, 2.0])
async def test_live_answers_are_those_of_the_replay(
    fake_folder: FakeFolder, temperature: float | None
) -> None:
    """Row by row, gateway and `simulate` give the same label, variant, confidence, escalation, and cost."""
    family = fake_folder.family
    assert family.predictions is not None
    assert family.costs is not None
    assert family.data is not None
    policy = two_stage_policy()
    first = policy.stages[0].model_copy(update={"temperature": temperature, "threshold": 0.8})
    policy = policy.model_copy(update={"stages": (first, policy.stages[1])}).sealed()
    predictions = read_predictions(inside(fake_folder.folder, family.predictions.path), labels=family.labels)
    costs = read_costs(inside(fake_folder.folder, family.costs.path))
    simulated = simulate(predictions, costs, policy)
    expected = simulated.answers()
    texts = pq.read_table(inside(fake_folder.folder, family.data.path))["text"].to_pylist()
    snapshot = snapshot_of(fake_folder, policy, NoRecorder())
    recorder = Kept()
    plane = DataPlane(lambda: snapshot, RequestLimits(), recorder)
    got = []
    for start in range(0, len(texts), 50):
        result = await plane.classify(
            ClassifyRequest("cascade", texts[start : start + 50], None, time.monotonic())
        )
        for row in range(len(result.predicted)):
            got.append(
                {
                    "label": family.labels[result.predicted[row]],
                    "confidence": result.confidence[row],
                    "variant": result.variant[row],
                    "escalated": result.escalated[row],
                }
            )
    assert [without_confidence(a) for a in got] == [without_confidence(a) for a in expected]
    assert [a["confidence"] for a in got] == pytest.approx([a["confidence"] for a in expected], abs=1e-6)
    assert 0.01 < np.mean([a["escalated"] for a in got]) < 0.9
    usd = sum(
        sum(record.prices.charges(record.runs()).values()) for record in recorder.answers if record.prices
    )
    assert usd * 1000 / len(texts) == pytest.approx(simulated.figures["usd_per_1k"])


def without_confidence(answer: dict[str, object]) -> dict[str, object]:
    """The answer without its confidence."""
    return {key: value for key, value in answer.items() if key != "confidence"}
