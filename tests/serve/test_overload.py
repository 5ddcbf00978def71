"""A gateway over a stage of known speed, asked for three times what it holds by our own load generator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from contract.policy import Policy, Stage
from loadtest.runner import LoadPlan, drive
from router.decide.cascade import compile_policy
from runtime.fake_family import write_fake_family
from runtime.load import load_variant
from serve.dataplane.plane import DataPlane
from serve.http.app import Gateway
from serve.settings.limits import RequestLimits
from serve.settings.stages import BatchRules
from serve.stages.inline import InlineStage
from serve.types.stage import Snapshot
from tables.labelled import from_rows
from tests.serve.parts import Kept, serving

pytestmark = pytest.mark.timing

OBJECTIVE_MS = 500.0
DELAY_MS = 10.0
LARGE = "fake-large"


@dataclass(frozen=True)
class Overloaded:
    """A gateway whose large variant takes 10 ms a text and whose small one takes next to nothing."""

    url: str
    kept: Kept


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Overloaded]:
    """On a real server; the cascade sends every text on to the large variant."""
    folder = tmp_path_factory.mktemp("overload")
    family = write_fake_family(folder, delay_ms={LARGE: DELAY_MS}, rows=100)
    kept = Kept()
    stages = {
        name: InlineStage(
            load_variant(folder, family, name),
            BatchRules(run_in="thread" if name == LARGE else "loop"),
            kept,
        )
        for name in family.names
    }
    policy = Policy(
        status="uncertified",
        reference=LARGE,
        stages=(Stage(variant="fake-small", threshold=1.1), Stage(variant=LARGE)),
    ).sealed()
    snapshot = Snapshot(1, policy, compile_policy(policy, family.labels), family, stages)
    limits = RequestLimits(objective_ms=OBJECTIVE_MS)
    dataplane = DataPlane(lambda: snapshot, limits, kept)
    with serving(Gateway(dataplane, limits, kept, lambda: b"")) as url:
        yield Overloaded(url, kept)


def plan(url: str, model: str) -> LoadPlan:
    """Three times the capacity for two seconds."""
    texts = from_rows([(f"sport: story {n}", "sport") for n in range(500)])
    return LoadPlan(
        url, texts, 3000 / DELAY_MS, 2.0, model=model, slo_ms=OBJECTIVE_MS, warmup_s=0.5, meter=False
    )


def test_three_times_the_capacity_is_answered_in_time_or_refused(gateway: Overloaded) -> None:
    """Every request has its reply; a third is answered, 95 of 100 in time, the rest told to come back."""
    result = drive(plan(gateway.url, LARGE))
    by_status = Counter(result.requests["status"].to_pylist())
    n = sum(by_status.values())
    assert set(by_status) == {200, 429}
    assert 0.2 < by_status[200] / n < 0.5
    late = sum(
        status == 200 and latency > OBJECTIVE_MS
        for status, latency in zip(
            result.requests["status"].to_pylist(), result.requests["latency_ms"].to_pylist(), strict=True
        )
    )
    assert late <= 0.05 * by_status[200]


def test_escalations_are_browned_out_before_anything_is_refused(gateway: Overloaded) -> None:
    """The cascade at three times its last stage's capacity answers everybody, most of them degraded.

    A pause of the whole machine that is longer than the objective may refuse what came meanwhile.
    """
    result = drive(plan(gateway.url, "cascade"))
    by_status = Counter(result.requests["status"].to_pylist())
    assert set(by_status) <= {200, 429}
    assert by_status[429] <= 0.02 * by_status[200]
    degraded = Counter(result.requests["degraded"].to_pylist())
    assert degraded[True] > degraded[False] > 0
