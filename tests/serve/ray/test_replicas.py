"""Gateway and stage replicas in one process, joined without Ray."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from pathlib import Path

import pytest

from contract.errors import EnvironmentProblem, NotReady, StageFailed
from runtime.fake_family import TEACHER
from serve.control.bootstrap import assign
from serve.control.revision_store import open_revisions
from serve.ray.gateway_replica import GatewayReplica
from serve.ray.stage_worker import StageWorker
from serve.settings.gateway import Settings
from serve.settings.stages import FakeSettings
from serve.stages.loading import Assignment, quickest_ms
from serve.stages.remote import Ask, RemoteStage, Reply
from serve.telemetry.metrics import Telemetry
from serve.types.messages import ClassifyRequest
from serve.types.recorder import NoRecorder

pytestmark = pytest.mark.anyio


@pytest.fixture
def assignment(tmp_path: Path) -> Assignment:
    """What a launcher would tell every process: fakes, with the live state seeded."""
    return assign(Settings(fake=FakeSettings(delay_ms=0.0)), tmp_path)


def test_another_package_of_our_name_is_refused(assignment: Assignment) -> None:
    """A process that finds another `serve` than the launcher's says so instead of running it."""
    foreign = assignment.model_copy(update={"package": "/somewhere/serve"})
    with pytest.raises(EnvironmentProblem, match="/somewhere/serve"):
        foreign.check_package()


def test_a_state_of_another_family_is_named_at_start(tmp_path: Path) -> None:
    """A policy that was pushed for another build goes out of force, and the start says so."""
    state = str(tmp_path / "state")
    said: list[str] = []
    for seed in (1, 2):
        (tmp_path / str(seed)).mkdir()
        assign(Settings(fake=FakeSettings(seed=seed), state=state), tmp_path / str(seed), said.append)
    assert [line for line in said if "another family" in line and "revision 1 is out of force" in line]


async def test_a_worker_loads_what_is_asked_for_and_no_more(assignment: Assignment) -> None:
    """The shelf holds nothing until a variant is wanted, and only variants of its own."""
    worker = StageWorker(assignment, ("fake-other",), NoRecorder())
    assert not worker.stages
    assert await worker.ready("fake-other")
    assert set(worker.stages) == {"fake-other"}
    with pytest.raises(NotReady):
        await worker.ready("fake-large")
    await worker.close()


async def test_the_shelf_fills_once_the_cascade_answers(assignment: Assignment) -> None:
    """Nothing is loaded before; afterwards the family folder may change without harm."""
    worker = StageWorker(assignment, ("fake-other", TEACHER), NoRecorder())
    asked = iter([False, False, True])

    async def ready() -> bool:
        assert not worker.stages
        return next(asked)

    await worker.load_when(ready)
    shutil.rmtree(assignment.family)
    assert await worker.ready("fake-other")
    assert await worker.ready(TEACHER)
    await worker.close()


async def test_the_shelf_fills_past_a_variant_that_cannot_be_loaded(assignment: Assignment) -> None:
    """One broken file costs one variant."""
    (Path(assignment.family) / "fake-other.json").write_text("{}")
    worker = StageWorker(assignment, ("fake-other", TEACHER), NoRecorder())

    async def ready() -> bool:
        return True

    await worker.load_when(ready)
    assert set(worker.stages) == {TEACHER}
    await worker.close()


def test_a_slow_moment_does_not_decide_where_a_stage_runs() -> None:
    """Of ten calls the quickest counts."""
    now = iter([0.0, 5.0, *(n + part for n in range(10, 19) for part in (0.0, 0.25))])
    assert quickest_ms(lambda: None, 10, lambda: next(now)) == 250.0


async def test_a_worker_refuses_another_build(assignment: Assignment) -> None:
    """An escalation that was meant for other weights is not answered by these."""
    worker = StageWorker(assignment, (TEACHER,), NoRecorder())
    with pytest.raises(NotReady, match="another build"):
        await worker.infer(TEACHER, "0" * 64, [Ask(["a"], None)])
    await worker.close()


async def test_an_altered_artifact_is_not_loaded(assignment: Assignment) -> None:
    """A file that changed after the family was written makes its variant not ready."""
    (Path(assignment.family) / f"{TEACHER}.json").write_text("{}")
    worker = StageWorker(assignment, (TEACHER,), NoRecorder())
    with pytest.raises(NotReady, match="restart the gateway"):
        await worker.load(TEACHER)


async def test_errors_of_a_worker_belong_to_single_asks(tmp_path: Path) -> None:
    """A variant that fails gives each ask a StageFailed, and the call itself succeeds."""
    given = assign(Settings(fake=FakeSettings(delay_ms=0.0, error_rate=1.0)), tmp_path)
    worker = StageWorker(given, (TEACHER,), NoRecorder())
    sha256 = (await worker.load(TEACHER)).artifact_sha256
    replies = await worker.infer(TEACHER, sha256, [Ask(["a"], None), Ask(["b"], None)])
    assert [type(reply) for reply in replies] == [StageFailed, StageFailed]
    await worker.close()


async def test_a_gateway_replica_answers_with_remote_stages(assignment: Assignment) -> None:
    """The cascade runs over an inline stage and a remote one, under the seeded policy."""
    worker = StageWorker(assignment, (TEACHER, "fake-other"), NoRecorder())

    def remote(name: str) -> RemoteStage:
        async def call(asks: list[Ask]) -> list[Reply]:
            return await worker.infer(name, (await worker.load(name)).artifact_sha256, asks)

        async def ping() -> bool:
            return await worker.ready(name)

        return RemoteStage(name, call, ping, assignment.settings.stage_of(name))

    remotes = {name: remote(name) for name in (TEACHER, "fake-other")}
    state = open_revisions(assignment.state)
    replica = await asyncio.to_thread(GatewayReplica, "one", assignment, remotes, Telemetry(), state)
    await replica.start()
    assert replica.healthy
    dataplane = replica.gateway.hot._dataplane
    texts = [f"sport: story {n}" for n in range(50)]
    result = await dataplane.classify(ClassifyRequest("cascade", texts, None, time.monotonic()))
    assert set(result.variant) == {"fake-small", TEACHER}
    states = await replica.catch_up()
    assert (states.replica, states.pid, states.revision) == ("one", os.getpid(), 1)
    await worker.close()


async def test_a_gateway_replica_without_a_revision_does_not_start(
    assignment: Assignment, tmp_path: Path
) -> None:
    """An empty state directory is an error at start, not a gateway without a policy."""
    empty = open_revisions(str(tmp_path / "empty"))
    replica = GatewayReplica("one", assignment, {}, Telemetry(), empty)
    with pytest.raises(NotReady):
        await replica.start()
