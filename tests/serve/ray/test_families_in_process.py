"""Families that take each other's place in gateway and stage replicas of one process, joined without Ray."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from contract.errors import EnvironmentProblem, FamilyError, NotReady, PolicyError, StageFailed
from contract.family import Family, read_family, write_family
from contract.live import Candidate, FamilyReference, Revision
from contract.policy import Policy, Stage, single_variant_policy
from runtime.fake_family import TEACHER, write_fake_family
from runtime.machine import describe_machine
from runtime.room import Room
from serve.control.bootstrap import assign
from serve.control.families import Families, store_of
from serve.control.family_push import FamilyPush
from serve.control.plane import ControlPlane, ReplicaState
from serve.control.revision_store import open_revisions
from serve.ray.gateway_replica import GatewayReplica
from serve.ray.scaling import ASKED
from serve.ray.stage_worker import StageWorker
from serve.settings.gateway import Settings
from serve.settings.slots import SHELF, own_deployment
from serve.settings.stages import FakeSettings, StageSettings
from serve.stages.call import Ask, Reply
from serve.stages.http import HttpStage
from serve.stages.inline import InlineStage
from serve.stages.loading import Assignment
from serve.stages.remote import RemoteStage
from serve.telemetry.metrics import Telemetry
from serve.types.messages import ClassifyRequest, ClassifyResult
from serve.types.recorder import NoRecorder, Recorder
from tests.serve.parts import folder_of
from tests.support.measured import compute_otherwise, write_measured_family

pytestmark = pytest.mark.anyio


class Clock:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class House:
    """A gateway replica, its stage workers and its control plane."""

    def __init__(self, given: Assignment, room_bytes: int = 1 << 40) -> None:
        self.given = given
        self.room_bytes = room_bytes
        self.refusal: str | None = None
        self.clock = Clock()
        self.state = open_revisions(given.state)
        self.workers = {
            name: StageWorker(given, name, lambda _: NoRecorder(), clock=self.clock)
            for name in given.slots.deployments
        }
        self.gateway = GatewayReplica("one", given, self._connect, Telemetry(), clock=self.clock)
        store = store_of(given)
        self.families = Families(
            given, "fake", store, lambda: Room("memory", self.room_bytes, self.room_bytes)
        )
        self.plane = ControlPlane(self.state, self.families.examine, self, self.families.check_room)
        self.push = FamilyPush(self.plane, self.families, store)

    async def start(self) -> House:
        """Load what is in force."""
        for worker in self.workers.values():
            await worker.start(preload=True)
        await self.gateway.start()
        return self

    async def classify(self, texts: list[str]) -> ClassifyResult:
        """Answer by the cascade."""
        request = ClassifyRequest("cascade", texts, None, time.monotonic())
        return await self.gateway.gateway.hot._dataplane.classify(request)

    async def prepare(self, revision: dict[str, Any], *, stages: bool) -> list[str | None]:
        """See Replicas."""
        asked = list(self.workers.values()) if stages else []
        complaints = [await worker.prepare(revision) for worker in asked]
        if any(complaints):
            return complaints
        return [*complaints, await self.gateway.prepare(revision) or self.refusal]

    async def forget(self) -> None:
        """See Replicas."""
        await self.gateway.forget()
        for worker in self.workers.values():
            await worker.forget()

    async def catch_up(self) -> list[ReplicaState]:
        """See Replicas."""
        return [await self.gateway.catch_up()]

    def _connect(self, deployment: str, variant: str, build: str, _: Recorder) -> RemoteStage:
        worker = self.workers[deployment]

        async def call(asks: list[Ask]) -> list[Reply]:
            return await worker.infer(variant, build, asks)

        async def ping() -> bool:
            return await worker.ready(variant, build)

        return RemoteStage(variant, call, ping, StageSettings())


@pytest.fixture
def given(tmp_path: Path) -> Assignment:
    """A run on fakes with a state of its own."""
    return assign(Settings(fake=FakeSettings(delay_ms=0.0), state=str(tmp_path / "state")), tmp_path)


def rebuilt(folder: Path, **more: Any) -> Family:
    """Another fake family of the same names."""
    return write_fake_family(folder, rows=60, seed=5, delay_ms=0.0, **more)


def cascade() -> Policy:
    """Two stages, uncertified."""
    stages = (Stage(variant="fake-small", threshold=0.8), Stage(variant=TEACHER))
    return Policy(status="uncertified", reference=TEACHER, stages=stages).sealed()


async def test_the_old_family_is_freed_in_the_gateway_once_drained_and_in_stages_once_unasked(
    given: Assignment, tmp_path: Path
) -> None:
    """A gateway that has not flipped yet is still answered by the build that it means."""
    house = await House(given).start()
    old = read_family(folder_of(given))
    new = rebuilt(tmp_path / "new")
    await house.push.push(tmp_path / "new", cascade().dump())
    result = await house.classify([f"story {n}" for n in range(40)])
    assert set(result.variant) == {"fake-small", TEACHER}
    assert not any(result.degraded)
    for _ in range(3):
        await asyncio.sleep(0)
    assert house.gateway._families.known == {new.sha256}
    own = house.workers[own_deployment(TEACHER)]
    await own.catch_up()
    assert own._families.known == {old.sha256, new.sha256}
    late = await own.infer(TEACHER, old.build(TEACHER), [Ask(["a"], None)])
    assert not isinstance(late[0], Exception)
    house.clock.now = 60.0
    own.tidy()
    assert own._families.known == {new.sha256}
    with pytest.raises(NotReady, match="not here in that build"):
        await own.infer(TEACHER, old.build(TEACHER), [Ask(["a"], None)])


async def test_what_two_families_share_is_loaded_once(given: Assignment, tmp_path: Path) -> None:
    """A family in which one variant is new loads that one; the policy stays if its variants are the same."""
    house = await House(given).start()
    old = read_family(folder_of(given))
    folder = tmp_path / "new"
    write_fake_family(folder, rows=300, delay_ms={TEACHER: 0.0, "fake-other": 0.5})
    same = [old.build(name) for name in old.names]
    new = read_family(folder)
    assert [new.build(name) in same for name in new.names] == [True, False, True]
    own = house.workers[own_deployment(TEACHER)]
    before = own.stages[TEACHER]
    policy = house.plane.current().policy
    pushed = await house.push.push(folder)
    assert pushed.revision.policy == policy
    assert any("stays: its variants are the same" in words for words in pushed.said)
    assert own.stages[TEACHER] is before


async def test_a_replica_that_cannot_load_it_leaves_all_as_it_was(given: Assignment, tmp_path: Path) -> None:
    """The complaint is passed on, nothing is committed, and what had been loaded is freed."""
    house = await House(given).start()
    rebuilt(tmp_path / "new")
    shelf = house.workers[SHELF]
    in_force = shelf._families.known

    async def refuse(_: Mapping[str, Any]) -> str:
        return "no memory on this node"

    house.gateway.prepare = refuse  # type: ignore[assignment,method-assign]
    with pytest.raises(Exception, match="no memory on this node"):
        await house.push.push(tmp_path / "new", cascade().dump())
    assert house.plane.current().number == 1
    assert shelf._families.known == in_force


async def test_a_refused_push_frees_what_it_loaded_and_nothing_that_is_out_of_force_since_a_moment(
    given: Assignment, tmp_path: Path
) -> None:
    """Requests on the family before, and gateways that have not flipped, go on being answered."""
    house = await House(given).start()
    old = read_family(folder_of(given))
    new = rebuilt(tmp_path / "new")
    await house.push.push(tmp_path / "new", cascade().dump())
    own = house.workers[own_deployment(TEACHER)]
    await own.catch_up()
    refused = rebuilt(tmp_path / "refused", error_rate={TEACHER: 0.5})
    house.refusal = "no memory on this node"
    with pytest.raises(PolicyError, match="no memory on this node"):
        await house.push.push(tmp_path / "refused", cascade().dump())
    assert own._families.known == {old.sha256, new.sha256}
    assert refused.sha256 not in house.gateway._families.known
    late = await own.infer(TEACHER, old.build(TEACHER), [Ask(["a"], None)])
    assert not isinstance(late[0], Exception)


async def test_a_refused_push_right_after_another_leaves_what_stages_have_yet_to_follow(
    given: Assignment, tmp_path: Path
) -> None:
    """A stage that has loaded a family, and not seen yet that it is in force, does not free it."""
    house = await House(given).start()
    new = rebuilt(tmp_path / "new")
    await house.push.push(tmp_path / "new", cascade().dump())
    own = house.workers[own_deployment(TEACHER)]
    loaded = own.stages[TEACHER]
    await house.forget()
    assert own.stages[TEACHER] is loaded
    assert loaded.artifact_sha256 == new.variant(TEACHER).artifact.sha256


async def test_a_push_that_cannot_be_committed_is_forgotten(given: Assignment, tmp_path: Path) -> None:
    """The state directory fails at the last step: nothing that was loaded for it stays."""
    house = await House(given).start()
    rebuilt(tmp_path / "new")

    def full(_: Revision) -> None:
        raise OSError(28, "No space left on device")

    house.state.commit = full  # type: ignore[assignment,method-assign]
    with pytest.raises(OSError, match="No space left"):
        await house.push.push(tmp_path / "new", cascade().dump())
    assert house.gateway._families.known == {read_family(folder_of(given)).sha256}
    assert house.workers[own_deployment(TEACHER)]._families.known == house.gateway._families.known


async def test_what_was_called_off_while_it_loaded_is_not_kept(given: Assignment, tmp_path: Path) -> None:
    """Another replica has refused by then: a late one frees what it loads, and says so."""
    house = await House(given).start()
    rebuilt(tmp_path / "new")
    in_force = house.gateway._families.known
    prepare, load = house.gateway.prepare, house.gateway._families._load
    late: list[asyncio.Task[str | None]] = []
    may_load = threading.Event()

    def slowly(*asked: Any) -> InlineStage | HttpStage:
        may_load.wait(10)
        return load(*asked)

    async def refuse(revision: dict[str, Any]) -> str:
        house.gateway._families._load = slowly
        late.append(asyncio.create_task(prepare(revision)))
        await asyncio.sleep(0)
        return "another one is full"

    house.gateway.prepare = refuse  # type: ignore[assignment,method-assign]
    with pytest.raises(PolicyError, match="another one is full"):
        await house.push.push(tmp_path / "new", cascade().dump())
    may_load.set()
    assert "called off" in str(await late[0])
    assert house.gateway._families.known == in_force
    assert house.gateway._served["fake"].follower.families == in_force


async def test_what_was_prepared_and_never_committed_is_freed_after_a_while(
    given: Assignment, tmp_path: Path
) -> None:
    """Control may die between the two: gateways and stages let go of it by themselves."""
    house = await House(given).start()
    in_force = house.gateway._families.known
    family = rebuilt(tmp_path / "new")
    reference = FamilyReference(name=family.name, sha256=family.sha256, path=str(tmp_path / "new"))
    revision = house.plane.current().serving(cascade(), reference).model_copy(update={"number": 2})
    assert await house.prepare(revision.dump(), stages=True) == [None] * 3
    await house.gateway._served["fake"].follower.look()
    assert family.sha256 in house.gateway._families.known
    house.clock.now = 1000.0
    await house.gateway._served["fake"].follower.look()
    own = house.workers[own_deployment(TEACHER)]
    await own.catch_up()
    assert own._families.known == house.gateway._families.known == in_force


async def test_a_stage_replica_that_starts_during_a_push_has_its_family_before_it_answers(
    given: Assignment, tmp_path: Path
) -> None:
    """It was not there to be asked, and what is committed while it loads is loaded too."""
    house = await House(given).start()
    new = rebuilt(tmp_path / "new")
    own = own_deployment(TEACHER)
    starting = StageWorker(given, own, lambda _: NoRecorder(), clock=house.clock)
    hold = starting._hold

    async def slowly(seated: Any, revision: Revision, *, load: bool) -> None:
        await hold(seated, revision, load=load)
        if revision.number == 1:
            await house.push.push(tmp_path / "new", cascade().dump())

    starting._hold = slowly  # type: ignore[method-assign]
    await starting.start(preload=True)
    assert starting.stages[TEACHER].artifact_sha256 == new.variant(TEACHER).artifact.sha256


async def test_two_families_that_do_not_fit_into_memory_together_are_refused(
    given: Assignment, tmp_path: Path
) -> None:
    """Before anything is loaded; what both share is not counted twice."""
    house = await House(given, room_bytes=1000).start()
    rebuilt(tmp_path / "new")
    with pytest.raises(EnvironmentProblem, match="more memory"):
        await house.push.push(tmp_path / "new", cascade().dump())
    assert house.plane.current().number == 1


async def test_answers_that_are_not_those_of_the_predictions_are_refused(tmp_path: Path) -> None:
    """Stored rows that the new build answers otherwise on this machine keep it out."""
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    here, seeds = describe_machine(), {"small": 1, "large": 2}
    write_measured_family(tmp_path / "old", here, seeds)
    write_measured_family(tmp_path / "new", here, {"small": 3, "large": 4})
    settings = Settings(family=str(tmp_path / "old"), state=str(tmp_path / "state"))
    house = await House(assign(settings, tmp_path)).start()
    compute_otherwise(tmp_path / "new", "small", seed=3, shift=1.0)
    with pytest.raises(FamilyError, match="small gives other answers"):
        await house.push.push(tmp_path / "new")
    assert house.plane.current().number == 1
    write_measured_family(tmp_path / "new", here, {"small": 3, "large": 4})
    pushed = await house.push.push(tmp_path / "new")
    assert pushed.revision.policy == single_variant_policy("large")
    assert any("stored texts as measured" in words for words in pushed.said)


async def test_new_names_take_the_places_that_are_left(given: Assignment, tmp_path: Path) -> None:
    """A new teacher takes the deployment that is empty now, others the shelf; with neither it is refused."""
    family = renamed(tmp_path / "new", {TEACHER: "big", "fake-other": "middle"})
    assert given.place(family, "fake") == {
        "fake-small": "inline",
        "middle": SHELF,
        "big": own_deployment(TEACHER),
    }
    full = given.slots.model_copy(update={"shelf": ()})
    with pytest.raises(FamilyError, match="'middle' has no place"):
        full.place(renamed(tmp_path / "more", {"fake-other": "middle"}), given.settings)
    house = await House(given).start()
    alone = single_variant_policy("big")
    pushed = await house.push.push(tmp_path / "new", alone.dump())
    assert pushed.placed["big"] == own_deployment(TEACHER)
    assert set((await house.classify(["a", "b"])).variant) == {"big"}


async def test_a_pushed_family_stays_in_force_over_a_restart(given: Assignment, tmp_path: Path) -> None:
    """The same command line finds what was pushed; the family that it names seeds only the first revision."""
    house = await House(given).start()
    new = rebuilt(tmp_path / "new")
    await house.push.push(tmp_path / "new", cascade().dump())
    said: list[str] = []
    again = assign(given.settings, tmp_path, said.append)
    assert any("with the family fake" in words and "while the gateway served" in words for words in said)
    assert read_family(folder_of(again)).sha256 == new.sha256
    assert open_revisions(again.state).latest() == house.plane.current()
    back = await House(again).start()
    revision, _ = await back.plane.rollback(1)
    assert revision.family_sha256 == read_family(folder_of(given)).sha256


async def test_another_family_on_the_command_line_is_served_and_so_is_the_first_one_again(
    tmp_path: Path,
) -> None:
    """What a start put in force is not taken for pushed, and its folder may be gone by then."""
    first = rebuilt(tmp_path / "first")
    second = write_fake_family(tmp_path / "second", rows=60, seed=6, delay_ms=1.0)
    assert first.sha256 != second.sha256
    state = str(tmp_path / "state")

    def served(name: str) -> tuple[str, str]:
        said: list[str] = []
        given = assign(Settings(family=str(tmp_path / name), state=state), tmp_path, said.append)
        return read_family(folder_of(given)).sha256, " ".join(said)

    assert served("first")[0] == first.sha256
    assert served("second")[0] == second.sha256
    assert served("first")[0] == first.sha256
    assert served("second")[0] == second.sha256
    shutil.rmtree(tmp_path / "second")
    again, said = served("first")
    assert again == first.sha256
    assert "while the gateway served" not in said


async def test_a_pushed_family_that_is_lost_gives_way_to_the_one_of_the_command_line(
    given: Assignment, tmp_path: Path
) -> None:
    """The gateway starts, and says what is lost."""
    house = await House(given).start()
    new = rebuilt(tmp_path / "new")
    await house.push.push(tmp_path / "new", cascade().dump())
    (Path(given.state) / "store" / "families" / f"{new.sha256}.json").unlink()
    shutil.rmtree(Path(given.state) / "families")
    said: list[str] = []
    again = assign(given.settings, tmp_path, said.append)
    assert any("revision 2 is lost" in words and "not in the store" in words for words in said)
    assert read_family(folder_of(again)).sha256 == read_family(folder_of(given)).sha256
    latest = open_revisions(given.state).latest()
    assert latest is not None
    assert (latest.number, latest.family_sha256) == (3, read_family(folder_of(given)).sha256)


async def test_a_stage_tells_what_gateways_have_outstanding_while_they_call_and_no_longer(
    tmp_path: Path,
) -> None:
    """A call counts however long it takes, and its texts are off once it is answered."""
    slow = Settings(fake=FakeSettings(delay_ms=200.0), state=str(tmp_path / "state"))
    house = House(assign(slow, tmp_path))
    own = house.workers[own_deployment(TEACHER)]
    await own.start(preload=True)
    build = read_family(folder_of(house.given)).build(TEACHER)
    asks = [Ask([f"story {n}" for n in range(8)], None)]
    call = asyncio.create_task(own.infer(TEACHER, build, asks, ("one", 64)))
    while not own.load()[ASKED]:
        await asyncio.sleep(0)
    house.clock.now = 10.0
    assert own.load()[ASKED] == 64
    await call
    assert own.load()[ASKED] == 56
    house.clock.now = 10.5
    assert own.load()[ASKED] == 0
    await own.infer(TEACHER, build, asks, ("one", 8))
    assert own.load()[ASKED] == 0


async def test_a_model_that_hangs_in_a_family_out_of_force_is_still_seen_and_holds_nobody_up(
    given: Assignment, tmp_path: Path
) -> None:
    """What is inside is finished in its own time: following goes on, and health checks see the hang."""
    house = await House(given).start()
    new = rebuilt(tmp_path / "new")
    small = house.gateway._families._stages[read_family(folder_of(given)).build("fake-small")]
    assert isinstance(small, InlineStage)
    release, run = threading.Event(), small._loaded.runtime.logits

    def hangs(*asked: Any) -> Any:
        release.wait(10)
        return run(*asked)

    small._loaded.runtime.logits = hangs  # type: ignore[assignment,method-assign]
    small._batcher._rules = small._batcher._rules.model_copy(update={"hang_s": 0.0})
    caught = asyncio.create_task(small.logits(["a"], None))
    while not small.hangs:
        await asyncio.sleep(0)
    await house.push.push(tmp_path / "new", cascade().dump())
    while house.gateway._families.known != {new.sha256}:
        await asyncio.sleep(0)
    await house.gateway._served["fake"].follower.look()
    with pytest.raises(StageFailed, match="fake-small: a call of the model does not come back"):
        house.gateway.check_hanging()
    release.set()
    assert len(await caught) == 1
    await house.gateway._families.freed()
    house.gateway.check_hanging()
    assert not await small.ready()


@pytest.mark.parametrize("altered", ["gone", "other"])
async def test_a_rollback_takes_the_kept_copy_where_the_folder_is_not_whole_any_more(
    given: Assignment, tmp_path: Path, altered: str
) -> None:
    """One file of the first family's folder is gone, or has other bytes of the same number."""
    house = await House(given).start()
    old = read_family(folder_of(given))
    new = rebuilt(tmp_path / "new")
    await house.push.push(tmp_path / "new", cascade().dump())
    own = house.workers[own_deployment(TEACHER)]
    await own.catch_up()
    house.clock.now = 60.0
    await own.catch_up()
    assert own._families.known == {new.sha256}
    file = folder_of(given) / old.variant(TEACHER).artifact.path
    if altered == "gone":
        file.unlink()
    else:
        file.write_bytes(b"?" * file.stat().st_size)
    revision, _ = await house.plane.rollback(1)
    assert revision.family_sha256 == old.sha256
    assert own.stages[TEACHER].artifact_sha256 == old.variant(TEACHER).artifact.sha256


async def test_a_rollback_that_does_not_fit_into_memory_is_refused(given: Assignment, tmp_path: Path) -> None:
    """Whoever asks for a family that is not loaded: a rollback, and a candidate's trial too."""
    house = await House(given).start()
    rebuilt(tmp_path / "new")
    await house.push.push(tmp_path / "new", cascade().dump())
    house.room_bytes = 1000
    with pytest.raises(EnvironmentProblem, match="more memory"):
        await house.plane.rollback(1)
    reference = await asyncio.to_thread(house.plane._state.read, 1)
    candidate = Candidate(
        id="c", policy=cascade(), family=reference.family, share=0.1, since="now", since_revision=3
    )
    with pytest.raises(EnvironmentProblem, match="more memory"):
        await house.plane.commit(lambda now: now.model_copy(update={"canary": candidate}), "canary")
    assert house.plane.current().number == 2


async def test_where_nodes_are_many_the_heads_memory_is_not_held_against_all_processes(
    given: Assignment,
    tmp_path: Path,
) -> None:
    """It says nothing of other nodes: who loads finds out."""
    house = await House(given).start()
    families = Families(given, "fake", store_of(given), None)
    rebuilt(tmp_path / "new")
    assert families.examine_folder(
        tmp_path / "new", print, families.examine(house.plane.current().family).family
    )


async def test_control_uses_a_cached_family_only_while_it_looks_at_it(
    given: Assignment, tmp_path: Path
) -> None:
    """What it has looked at may leave the cache for others."""
    house = await House(given).start()
    for seed in (6, 7, 8):
        write_fake_family(tmp_path / str(seed), rows=60, seed=seed, delay_ms=0.0)
        await house.push.push(tmp_path / str(seed), cascade().dump())
    assert house.push._store._held == {}
    await house.plane.rollback(2)
    again = Families(given, "fake", house.push._store, house.families._room)
    for revision in house.plane.history():
        again.examine(revision.family)
    assert house.push._store._held == {}


async def test_a_variant_in_the_deployment_of_another_is_told_whose_settings_it_has(
    given: Assignment, tmp_path: Path
) -> None:
    """The replicas are the deployment's; threads and batches are not inherited."""
    told = given.settings.model_copy(update={"stages": {TEACHER: StageSettings(threads=2)}})
    house = await House(given.model_copy(update={"settings": told})).start()
    renamed(tmp_path / "new", {TEACHER: "big"})
    pushed = await house.push.push(tmp_path / "new", single_variant_policy("big").dump())
    assert any(f"those of stages.{TEACHER} are that variant's own" in words for words in pushed.said)


def renamed(folder: Path, names: Mapping[str, str]) -> Family:
    """A fake family with other names of some variants, and no predictions."""
    family = rebuilt(folder)
    variants = tuple(v.model_copy(update={"name": names.get(v.name, v.name)}) for v in family.variants)
    told = {"variants": variants, "teacher": names.get(family.teacher, family.teacher), "predictions": None}
    write_family(folder, family.model_copy(update=told))
    return read_family(folder)


async def test_a_candidate_needs_the_labels_that_clients_get(given: Assignment, tmp_path: Path) -> None:
    """Both arms answer the same clients; the refusal names no option that `canary` lacks."""
    write_fake_family(tmp_path / "other", labels=("yes", "no"), rows=60)
    with pytest.raises(FamilyError, match="a candidate needs the labels") as refused:
        await (await House(given).start()).push.bring(tmp_path / "other")
    assert "--new-labels" not in str(refused.value)
