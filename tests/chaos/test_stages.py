"""Stages that answer what is no answer, late or never: an error for those who asked, and no more."""

from __future__ import annotations

import pytest

from tests.chaos.client import PatientClients
from tests.chaos.load import RATE, Load
from tests.chaos.record import Case
from tests.chaos.scene import Scene
from tests.chaos.test_parts import suffer_from

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]


@pytest.mark.parametrize(
    ("fault", "told"), [("wrong_shape", "logits of a wrong shape"), ("not_a_number", "NaN and infinity")]
)
def test_what_is_no_answer_is_never_given_as_one(scene: Scene, fault: str, told: str) -> None:
    """Every tenth request makes the stage fail: exactly these are refused, all others answered."""
    seconds = 8.0 if scene.is_whole else 1.0
    tally = scene.offer(Load(seconds, RATE / 2, "fake-other", faulty=(fault, 10)), counted=True)
    case = Case(f"a stage gives {told} for every tenth request", tally, may_lose=tally.sent // 10)
    scene.record.add(case)
    assert tally.refused == {500: tally.sent // 10}


@pytest.mark.chaos
@pytest.mark.parametrize("fault", ["wrong_shape", "not_a_number"])
def test_where_a_later_stage_gives_no_answer_the_cascade_gives_the_cheap_one(
    scene: Scene, fault: str
) -> None:
    """An escalation that comes back with nothing usable degrades, and nobody is refused."""
    tally = scene.offer(Load(8, faulty=(fault, 5)), counted=True)
    scene.record.add(
        Case(f"the cascade's last stage gives {fault} for every fifth text that reaches it", tally)
    )
    assert tally.answered == tally.sent
    assert tally.degraded > 0


@pytest.mark.chaos
def test_a_stage_that_is_late_now_and_then_delays_and_loses_nobody(scene: Scene) -> None:
    """A second's pause in every hundredth escalation: the cascade answers all, some degraded."""
    tally = scene.offer(Load(10, deadline_ms=500, faulty=("late", 100)))
    scene.record.add(Case("the last stage is a second late for every hundredth text; deadline 500 ms", tally))
    assert tally.answered == tally.sent
    assert tally.slowest_s < 1.0


@pytest.mark.chaos
def test_a_stage_that_never_answers_is_replaced(scene: Scene) -> None:
    """Its process is ended when a call has hung long enough; the cascade does without it meanwhile."""
    case = suffer_from(
        scene,
        "the last stage's model does not come back (a call may take 3 s)",
        part="stage replica",
        fault="never",
    )
    assert case.tally.answered == case.tally.sent


@pytest.mark.chaos
def test_with_the_whole_last_stage_failing_patient_clients_are_answered(scene: Scene) -> None:
    """Clients of the cascade get one answer each while every escalation of the load fails."""
    with PatientClients(scene.house.url) as clients:
        tally = scene.offer(Load(8, faulty=("not_a_number", 1)))
    scene.record.add(Case("every escalation of the load fails", tally, clients))
    assert tally.answered == tally.sent
