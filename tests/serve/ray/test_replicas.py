"""Gateway and stage replicas in one process, joined without Ray."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from contract.errors import DeadlineExceeded, EnvironmentProblem, NotReady, RequestError, StageBroken
from contract.family import read_family
from runtime.fake_family import TEACHER
from serve.control.bootstrap import assign
from serve.ray.gateway_replica import Connect, GatewayReplica
from serve.ray.stage_worker import StageWorker
from serve.settings.gateway import Settings
from serve.settings.slots import SHELF, Slots, own_deployment
from serve.settings.stages import FakeSettings, StageSettings
from serve.stages.call import Ask, Reply
from serve.stages.loading import Assignment, quickest_ms
from serve.stages.remote import RemoteStage
from serve.telemetry.metrics import Telemetry
from serve.types.messages import ClassifyRequest
from serve.types.recorder import NoRecorder, Recorder
from tests.serve.parts import Kept, folder_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def assignment(tmp_path: Path) -> Assignment:
    """What a launcher would tell every process: fakes, with the live state seeded."""
    return assign(Settings(fake=FakeSettings(delay_ms=0.0)), tmp_path)


async def started(
    given: Assignment, deployment: str = SHELF, recorder: Recorder | None = None
) -> StageWorker:
    """A worker of that deployment which knows the family in force and has loaded nothing."""
    worker = StageWorker(given, deployment, lambda _: recorder or NoRecorder())
    await worker.start(preload=False)
    return worker


def on_shelf(given: Assignment) -> Assignment:
    """The same run with the teacher on the shelf too."""
    slots = Slots(inline=("fake-small",), own=(), shelf=("fake-other", TEACHER))
    only = given.families["fake"].model_copy(update={"slots": slots})
    return given.model_copy(update={"families": {"fake": only}})


def build(given: Assignment, variant: str) -> str:
    """The hash of a variant's build."""
    return read_family(folder_of(given)).build(variant)


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
    worker = await started(assignment)
    assert not worker.stages
    assert await worker.ready("fake-other", build(assignment, "fake-other"))
    assert set(worker.stages) == {"fake-other"}
    with pytest.raises(NotReady):
        await worker.ready(TEACHER, build(assignment, TEACHER))
    await worker.close()


async def test_the_shelf_fills_once_the_cascade_answers(assignment: Assignment) -> None:
    """Nothing is loaded before; afterwards the family folder may change without harm."""
    worker = await started(on_shelf(assignment))
    builds = {name: build(assignment, name) for name in ("fake-other", TEACHER)}
    asked = iter([False, False, True])

    async def ready() -> bool:
        assert not worker.stages
        return next(asked)

    await worker.load_when(ready)
    shutil.rmtree(folder_of(assignment))
    for name, sha256 in builds.items():
        assert await worker.ready(name, sha256)
    await worker.close()


async def test_the_shelf_fills_past_a_variant_that_cannot_be_loaded(assignment: Assignment) -> None:
    """One broken file costs one variant."""
    (folder_of(assignment) / "fake-other.json").write_text("{}")
    worker = await started(on_shelf(assignment))

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
    worker = await started(assignment, own_deployment(TEACHER))
    with pytest.raises(NotReady, match="not here in that build"):
        await worker.infer(TEACHER, "0" * 64, [Ask(["a"], None)])
    await worker.close()


async def test_an_altered_artifact_is_not_loaded(assignment: Assignment) -> None:
    """A file that changed after the family was written makes its variant not ready."""
    sha256 = build(assignment, TEACHER)
    (folder_of(assignment) / f"{TEACHER}.json").write_text("{}")
    worker = await started(assignment, own_deployment(TEACHER))
    with pytest.raises(NotReady, match="restart the gateway"):
        await worker.ready(TEACHER, sha256)
    with pytest.raises(NotReady, match="altered or incomplete"):
        await StageWorker(assignment, own_deployment(TEACHER), lambda _: NoRecorder()).start(preload=True)


async def test_errors_of_a_worker_belong_to_single_asks(tmp_path: Path) -> None:
    """A variant that fails on everything says so to each ask, and the call itself succeeds."""
    given = assign(Settings(fake=FakeSettings(delay_ms=0.0, error_rate=1.0)), tmp_path)
    worker = await started(given, own_deployment(TEACHER))
    replies = await worker.infer(TEACHER, build(given, TEACHER), [Ask(["a"], None), Ask(["b"], None)])
    assert [type(reply) for reply in replies] == [StageBroken, StageBroken]
    await worker.close()


async def test_what_nobody_waits_for_is_dropped_from_a_worker(tmp_path: Path) -> None:
    """An ask that is called off while it waits costs no inference; its batchmates are answered."""
    kept = Kept()
    given = assign(Settings(fake=FakeSettings(delay_ms=30.0)), tmp_path)
    worker = await started(given, own_deployment(TEACHER), kept)
    sha256 = build(given, TEACHER)
    assert await worker.ready(TEACHER, sha256)
    stage = worker.stages[TEACHER]
    busy = asyncio.create_task(worker.infer(TEACHER, sha256, [Ask(["a"], None, number=1)]))
    while stage.queued < 1:
        await asyncio.sleep(0)
    asks = [Ask(["b"], None, number=2), Ask(["c"], None, number=3)]
    waiting = asyncio.create_task(worker.infer(TEACHER, sha256, asks))
    while stage.queued < 3:
        await asyncio.sleep(0)
    worker.call_off([2, 99])
    replies = await waiting
    await busy
    assert isinstance(replies[0], DeadlineExceeded)
    assert not isinstance(replies[1], RequestError)
    await worker.close()
    assert sum(record.items for record in kept.batches) == 2


def connected(workers: Mapping[str, StageWorker]) -> Connect:
    """Stages behind these workers, by deployment, without Ray."""

    def connect(deployment: str, variant: str, sha256: str, _: Recorder) -> RemoteStage:
        async def call(asks: list[Ask]) -> list[Reply]:
            return await workers[deployment].infer(variant, sha256, asks)

        async def ping() -> bool:
            return await workers[deployment].ready(variant, sha256)

        return RemoteStage(variant, call, ping, StageSettings())

    return connect


async def test_a_gateway_replica_answers_with_remote_stages(assignment: Assignment) -> None:
    """The cascade runs over an inline stage and a remote one, under the seeded policy."""
    worker = await started(on_shelf(assignment))
    replica = await asyncio.to_thread(
        GatewayReplica, "one", on_shelf(assignment), connected({SHELF: worker}), Telemetry()
    )
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
    empty = assignment.model_copy(update={"state": str(tmp_path / "empty")})
    replica = GatewayReplica("one", empty, connected({}), Telemetry())
    with pytest.raises(NotReady):
        await replica.start()


def test_a_process_whose_model_hangs_ends_itself() -> None:
    """It says why and is gone at once; one whose models come back stays."""
    code = """
from contract.errors import StageFailed
from serve.ray.deployments import leave_if_hanging
def hangs():
    raise StageFailed("teacher: a call of the model does not come back")
leave_if_hanging(lambda: None)
print("stayed", flush=True)
leave_if_hanging(hangs)
print("still here")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "stayed\n")
    assert "teacher: a call of the model does not come back" in done.stderr
