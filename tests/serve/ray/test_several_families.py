"""Several families in gateway and stage replicas of one process, joined without Ray: they come and go."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from contract.errors import (
    EnvironmentProblem,
    FamilyError,
    InputError,
    NotReady,
    PolicyError,
    StageFailed,
    UnknownModel,
)
from contract.family import Family
from contract.live import FamilyReference
from contract.policy import Policy, Stage, single_variant_policy, write_policy
from contract.roster import Roster, Seat
from runtime.fake_family import TEACHER, write_fake_family
from runtime.room import Room
from serve.access.key_store import open_keys
from serve.access.keys import KeyLimits
from serve.control import bootstrap
from serve.control.bootstrap import assign
from serve.control.evidence import ReplicaCounts
from serve.control.families import store_of
from serve.control.family_line import FamilyLine
from serve.control.plane import ReplicaState
from serve.control.revision_store import open_revisions
from serve.control.roster_control import RosterControl
from serve.control.roster_store import RosterStore, next_roster
from serve.control.trials import TrialAsked
from serve.ray.gateway_replica import GatewayReplica
from serve.ray.stage_worker import StageWorker
from serve.settings.gateway import FamilySettings, Settings
from serve.settings.slots import INLINE, SHELF, own_deployment
from serve.settings.stages import BatchRules, StageSettings
from serve.stages.call import Ask, Reply
from serve.stages.loading import Assignment
from serve.stages.remote import RemoteStage
from serve.storage.objects import StoreUnreachable
from serve.telemetry.metrics import Telemetry
from serve.types.messages import ClassifyRequest, ClassifyResult
from serve.types.recorder import Recorder

pytestmark = pytest.mark.anyio

ROOM = Room("memory", 1 << 40, 1 << 40)
LABELS = {
    "news": ("business", "entertainment", "politics", "sport", "tech"),
    "mood": ("bad", "good"),
    "topic": ("food", "travel", "work"),
}


class Site:
    """A gateway replica, its stage workers, and control over all families."""

    def __init__(self, given: Assignment) -> None:
        self.given = given
        self.now = 0.0
        self.telemetry = Telemetry()
        self.refusal: str | None = None
        self.workers = {
            name: StageWorker(given, name, self.telemetry.of, clock=self._clock)
            for name in given.slots.deployments
        }
        self.gateway = GatewayReplica("one", given, self._connect, self.telemetry, clock=self._clock)
        self.control = self.make_control(RosterStore(given.state))

    async def start(self) -> Site:
        """Load what is in force."""
        for worker in self.workers.values():
            await worker.start(preload=True)
        await self.gateway.start()
        await self.control.start()
        return self

    def make_control(self, rosters: RosterStore) -> RosterControl:
        """One more that decides over the same replicas."""
        given, store = self.given, store_of(self.given)
        return RosterControl(
            rosters,
            store,
            lambda seat: FamilyLine(
                seat, given, store, OnSite(self, seat), lambda: Room("m", 1 << 40, 1 << 40)
            ),
            may_be_empty=given.settings.may_be_empty,
        )

    async def ask(self, model: str, *texts: str) -> ClassifyResult:
        """Answer by a model."""
        request = ClassifyRequest(model, list(texts) or ["a story"], None, time.monotonic())
        return await self.gateway.gateway.hot._dataplane.classify(request)

    def _clock(self) -> float:
        return self.now

    def _connect(self, deployment: str, variant: str, build: str, recorder: Recorder) -> RemoteStage:
        worker = self.workers[deployment]

        async def call(asks: list[Ask]) -> list[Reply]:
            return await worker.infer(variant, build, asks)

        async def ping() -> bool:
            return await worker.ready(variant, build)

        return RemoteStage(variant, call, ping, self.given.settings.stage_of(variant), recorder=recorder)


class Forgetful(RosterStore):
    """A store whose answer to a commit is lost once."""

    lost = False

    def commit(self, roster: Roster) -> Roster:
        """Write it and fail."""
        written = super().commit(roster)
        if not self.lost:
            self.lost = True
            raise StoreUnreachable("no answer")
        return written


class OnSite:
    """All replicas of a site, asked about one family."""

    def __init__(self, site: Site, seat: Seat) -> None:
        self.site = site
        self.seat = seat

    async def prepare(self, revision: dict[str, Any], *, stages: bool) -> list[str | None]:
        """See Replicas."""
        workers = list(self.site.workers.values()) if stages else []
        found = [await worker.prepare(revision, self.seat.name) for worker in workers]
        prepared = await self.site.gateway.prepare(revision, self.seat.name, self.seat.place)
        return [*found, prepared or self.site.refusal]

    async def forget(self) -> None:
        """See Replicas."""
        await self.site.gateway.forget(self.seat.name)
        for worker in self.site.workers.values():
            await worker.forget(self.seat.name)

    async def catch_up(self) -> list[ReplicaState]:
        """See Replicas."""
        return [await self.site.gateway.catch_up(self.seat.name)]

    async def counts(self) -> list[ReplicaCounts]:
        """See Witnesses."""
        return [await self.site.gateway.counts(self.seat.name)]


def cascade(threshold: float = 0.8) -> Policy:
    """Two stages, uncertified."""
    stages = (Stage(variant="fake-small", threshold=threshold), Stage(variant=TEACHER))
    return Policy(status="uncertified", reference=TEACHER, stages=stages).sealed()


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Three families on disk, of other labels each, and their policies."""
    for name, labels in LABELS.items():
        write_fake_family(tmp_path / name, rows=60, delay_ms=0.0, labels=labels, name=name)
        write_policy(tmp_path / f"{name}.json", cascade())
    return {name: tmp_path / name for name in LABELS}


def serving(folders: dict[str, Path], *names: str, **more: Any) -> Assignment:
    """A run that starts with these families."""
    root = folders["news"].parent
    families = tuple(
        FamilySettings(path=str(folders[name]), policy=str(root / f"{name}.json")) for name in names
    )
    told = {"families": families, "state": str(root / "state")} | more
    return assign(Settings.model_validate(told), root)


async def test_two_families_have_their_own_labels_policies_and_figures(folders: dict[str, Path]) -> None:
    """A push to one leaves revision, policy and counts of the other as they were."""
    site = await Site(serving(folders, "news", "mood")).start()
    texts = [f"story {n}" for n in range(40)]
    for name in ("news", "mood"):
        result = await site.ask(name, *texts)
        assert (result.labels, set(result.variant)) == (LABELS[name], {"fake-small", TEACHER})
    before = await site.ask("mood", *texts)
    never = single_variant_policy("fake-small")
    revision, [state] = await site.control.line("news").plane.push(never.dump())
    assert (revision.number, state.revision) == (2, 2)
    assert set((await site.ask("news", *texts)).variant) == {"fake-small"}
    after = await site.ask("mood", *texts)
    assert (after.policy_version, after.variant) == (before.policy_version, before.variant)
    assert site.control.line("mood").plane.current().number == 1
    page = site.gateway._metrics_page().decode()
    for line in (
        'sluice_revision{family="news"} 2.0',
        'sluice_revision{family="mood"} 1.0',
        'sluice_request_duration_seconds_count{family="mood",model="cascade",stage="total"} 3.0',
        'sluice_request_duration_seconds_count{family="news",model="cascade",stage="total"} 2.0',
    ):
        assert line in page
    with pytest.raises(PolicyError, match="several families are served, or none: news, mood"):
        site.control.line(None)


async def test_a_family_comes_and_goes_while_requests_of_the_others_go_on(folders: dict[str, Path]) -> None:
    """Nobody's request is lost: those of the one that goes are answered if they were inside."""
    site = await Site(serving(folders, "news", "mood")).start()
    answered: list[tuple[str, ...]] = []
    stop = asyncio.Event()

    async def client(model: str) -> None:
        while not stop.is_set():
            answered.append((await site.ask(model, f"story {len(answered)}")).labels)

    clients = [asyncio.create_task(client(name)) for name in ("news", "mood", "news/fake-large")]
    loaded = await site.control.load(folders["topic"], raw_policy=cascade().dump())
    assert (loaded.name, loaded.revision.number, loaded.revision.is_seed) == ("topic", 1, False)
    assert loaded.placed == {"fake-small": SHELF, "fake-other": SHELF, TEACHER: SHELF}
    assert (await site.ask("topic", *[f"story {n}" for n in range(40)])).labels == LABELS["topic"]
    inside = [asyncio.create_task(site.ask("topic/fake-large", f"late {n}")) for n in range(50)]
    await asyncio.sleep(0)
    await site.control.unload("topic")
    assert all(result.labels == LABELS["topic"] for result in await asyncio.gather(*inside))
    with pytest.raises(UnknownModel):
        await site.ask("topic")
    stop.set()
    await asyncio.gather(*clients)
    assert answered.count(LABELS["news"]) > 0
    assert answered.count(LABELS["mood"]) > 0
    assert site.control.current().names == ("news", "mood")


async def test_what_only_an_unloaded_family_needed_is_freed(folders: dict[str, Path]) -> None:
    """In the gateway once drained, in stages once nobody can ask any more."""
    site = await Site(serving(folders, "news", "mood")).start()
    here, shelf = site.gateway._families.known, site.workers[SHELF]._families.known
    await site.control.load(folders["topic"], name="trips")
    assert len(site.workers[SHELF]._families.known) == len(shelf) + 1
    await site.control.unload("trips")
    while site.gateway._going:
        await asyncio.sleep(0)
    assert site.gateway._families.known == here
    await site.workers[SHELF].catch_up()
    assert len(site.workers[SHELF]._families.known) == len(shelf) + 1
    site.now = 1000.0
    await site.workers[SHELF].catch_up()
    assert site.workers[SHELF]._families.known == shelf


async def test_a_load_that_a_replica_refuses_leaves_all_as_it_was(folders: dict[str, Path]) -> None:
    """No roster is committed, what was loaded is freed, and the same load works afterwards."""
    site = await Site(serving(folders, "news")).start()
    known = site.gateway._families.known
    site.refusal = "no memory on this node"
    with pytest.raises(PolicyError, match="no memory on this node"):
        await site.control.load(folders["mood"])
    assert site.control.current().number == 1
    assert (site.gateway._families.known, site.gateway._coming) == (known, {})
    site.refusal = None
    await site.control.load(folders["mood"])
    assert (await site.ask("mood")).labels == LABELS["mood"]
    with pytest.raises(PolicyError, match="a family is served as mood already"):
        await site.control.load(folders["mood"])
    with pytest.raises(FamilyError, match="other characters"):
        await site.control.load(folders["mood"], name="mood/2")


async def test_who_was_alone_keeps_its_short_names_and_the_last_is_not_unloaded(
    folders: dict[str, Path],
) -> None:
    """Clients of a lone family see nothing of a second one."""
    site = await Site(serving(folders, "news")).start()
    assert (await site.ask("cascade")).labels == LABELS["news"]
    with pytest.raises(PolicyError, match="news is the only family"):
        await site.control.unload("news")
    await site.control.load(folders["mood"])
    assert (await site.ask("cascade")).labels == LABELS["news"]
    assert (await site.ask(TEACHER)).labels == LABELS["news"]
    await site.control.unload("news")
    for model in ("cascade", TEACHER, "news"):
        with pytest.raises(UnknownModel):
            await site.ask(model)
    assert (await site.ask("mood")).labels == LABELS["mood"]
    await site.control.load(folders["news"])
    assert (await site.ask("cascade")).labels == LABELS["news"]


async def test_a_load_whose_answer_was_lost_counts_and_can_be_taken_back(folders: dict[str, Path]) -> None:
    """The family is served once, whoever asks again, and no roster is written that nobody could read."""
    site = await Site(serving(folders, "news")).start()
    control = site.make_control(Forgetful(site.given.state))
    await control.start()
    with pytest.raises(StoreUnreachable):
        await control.load(folders["mood"])
    with pytest.raises(PolicyError, match="a family is served as mood already"):
        await control.load(folders["mood"])
    await site.gateway.catch_up()
    assert (await site.ask("mood")).labels == LABELS["mood"]
    await control.unload("mood")
    assert control.current().names == ("news",)
    await control.load(folders["mood"])
    assert [roster.names for roster in control.history()][2:] == [("news",), ("news", "mood")]


async def test_two_that_decide_for_one_state_do_not_serve_a_family_twice(folders: dict[str, Path]) -> None:
    """Each sees what the other has loaded and unloaded."""
    site = await Site(serving(folders, "news")).start()
    other = site.make_control(RosterStore(site.given.state))
    await other.start()
    await site.control.load(folders["mood"])
    with pytest.raises(PolicyError, match="a family is served as mood already"):
        await other.load(folders["mood"])
    await other.unload("mood")
    await site.control.load(folders["mood"])
    assert (await site.ask("mood")).labels == LABELS["mood"]


async def test_a_roster_that_nobody_can_read_is_not_written_and_not_followed(
    folders: dict[str, Path],
) -> None:
    """A replica goes on with the one that it has, and says what is wrong."""
    site = await Site(serving(folders, "news", "mood")).start()
    rosters = RosterStore(site.given.state)
    roster = site.control.current()
    twice = roster.model_copy(update={"seats": (*roster.seats, roster.seats[0]), "number": 2})
    with pytest.raises(PolicyError, match="two families have one name"):
        rosters.commit(twice)
    rosters._documents.write(2, twice.dump())
    state = await site.gateway.catch_up("news")
    assert "two families have one name" in str(state.problem)
    assert site.gateway.healthy
    assert (await site.ask("mood")).labels == LABELS["mood"]


async def test_a_name_that_clients_know_as_a_variant_is_not_given_to_a_family(
    folders: dict[str, Path],
) -> None:
    """Neither by a load, nor by a push to the family that is asked by short names, nor by its return."""
    site = await Site(serving(folders, "news")).start()
    with pytest.raises(
        PolicyError, match="clients of news know one of its variants as fake-small"
    ) as refused:
        await site.control.load(folders["mood"], name="fake-small")
    assert refused.value.hint == "--as NAME"
    await site.control.load(folders["mood"])
    await site.control.unload("news")
    await site.control.load(folders["topic"], name="fake-small")
    with pytest.raises(PolicyError, match="fake-small is a variant of it"):
        await site.control.load(folders["news"])
    rosters, latest = RosterStore(site.given.state), site.control.current()
    rosters.commit(next_roster(latest, latest.with_seat(Seat(name="news")), "as a release before left it"))
    await site.control._follow()
    write_fake_family(folders["news"], rows=60, delay_ms=0.1, labels=LABELS["news"], name="news")
    with pytest.raises(PolicyError, match="fake-small is a variant of it"):
        await site.control.line("news").push.push(folders["news"])


async def test_who_loads_is_told_which_families_have_the_same_labels(folders: dict[str, Path]) -> None:
    """Decisions that name no model go on to the first of them."""
    site = await Site(serving(folders, "news", "mood")).start()
    loaded = await site.control.load(folders["news"], name="news-2")
    assert any("news has the same labels" in words for words in loaded.said)
    assert not any("mood" in words for words in loaded.said)


async def test_families_of_one_roster_do_not_free_each_other_while_they_load(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the first has loaded stays while the second loads and a third looks around."""
    site = await Site(serving(folders, "news")).start()
    load = site.gateway._families.load

    async def load_and_tidy(reference: FamilyReference) -> Any:
        found = await load(reference)
        asyncio.get_running_loop().call_soon(site.gateway._tidy)
        return found

    monkeypatch.setattr(site.gateway._families, "load", load_and_tidy)
    serving(folders, "news", "mood", "topic")
    await site.gateway.catch_up()
    assert set(site.gateway._served) == {"news", "mood", "topic"}
    needed = frozenset[str]().union(*(served.families for served in site.gateway._served.values()))
    assert site.gateway._families.known == needed


async def test_a_place_belongs_to_whoever_had_it_last(folders: dict[str, Path]) -> None:
    """In whatever order the families are named, each goes on with its own policy and history."""
    await Site(serving(folders, "news")).start()
    alone = await Site(serving(folders, "mood")).start()
    await alone.control.line("mood").plane.push(cascade(0.6).dump())
    both = await Site(serving(folders, "news", "mood")).start()
    places = {name: line.seat.place for name, line in both.control.lines.items()}
    assert places == {"news": "of/news", "mood": ""}
    assert (await both.ask("mood")).policy_version == cascade(0.6).version
    assert (await both.ask("news")).labels == LABELS["news"]


async def test_a_family_that_cannot_be_loaded_fails_alone_and_is_tried_again(
    folders: dict[str, Path],
) -> None:
    """The replica starts without it; with its files back it is served."""
    given = serving(folders, "news", "mood")
    artifact = folders["mood"] / "fake-small.json"
    whole = artifact.read_bytes()
    artifact.write_bytes(b"{}")
    site = await Site(given).start()
    assert site.gateway.healthy
    assert await site.gateway.ready()
    assert (await site.ask("news")).labels == LABELS["news"]
    with pytest.raises(NotReady):
        await site.ask("mood")
    artifact.write_bytes(whole)
    state = await site.gateway.catch_up("mood")
    assert (state.revision, state.problem) == (1, None)
    assert (await site.ask("mood")).labels == LABELS["mood"]


async def test_a_stage_worker_begins_with_the_families_that_load(folders: dict[str, Path]) -> None:
    """It tries the others again as it follows; where none loads it does not begin."""
    given = serving(folders, "news", "mood")
    artifacts = [folders[name] / f"{TEACHER}.json" for name in ("mood", "news")]
    whole = [artifact.read_bytes() for artifact in artifacts]
    artifacts[0].write_bytes(b"{}")
    site = await Site(given).start()
    assert (await site.ask(f"news/{TEACHER}")).labels == LABELS["news"]
    with pytest.raises((NotReady, StageFailed)):
        await site.ask(f"mood/{TEACHER}")
    artifacts[1].write_bytes(b"{}")
    with pytest.raises(NotReady):
        await Site(given).workers[own_deployment(TEACHER)].start(preload=True)
    artifacts[0].write_bytes(whole[0])
    await site.workers[own_deployment(TEACHER)].catch_up()
    assert (await site.ask(f"mood/{TEACHER}")).labels == LABELS["mood"]


async def test_a_family_under_another_name_frees_what_only_the_name_before_had_here(
    folders: dict[str, Path],
) -> None:
    """What the guest has on the shelf leaves the gateway once nobody is served under the old name."""
    site = await Site(serving(folders, "news")).start()
    assert site.gateway._families.stages
    loaded = await site.control.load(folders["news"], name="press")
    assert INLINE not in loaded.placed.values()
    await site.control.unload("news")
    while site.gateway._going:
        await asyncio.sleep(0)
    await site.gateway._families.freed()
    assert site.gateway._families.stages == ()
    assert (await site.ask("press")).labels == LABELS["news"]
    [names] = site.gateway._names._names.values()
    assert names == ["press"]


async def test_one_that_was_loaded_and_cannot_run_any_more_keeps_no_gateway_from_starting(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is left out in words; one that the start names is still refused."""
    site = await Site(serving(folders, "news")).start()
    await site.control.load(folders["mood"])
    told: list[str] = []

    def check(family: Family, _: str) -> None:
        if family.name == "mood":
            raise EnvironmentProblem("a library is missing")

    monkeypatch.setattr(bootstrap, "check_family_runs", check)
    settings = site.given.settings
    again = await Site(assign(settings, folders["news"].parent, told.append)).start()
    assert (await again.ask("cascade")).labels == LABELS["news"]
    assert any("mood is not served" in words and "a library is missing" in words for words in told)
    with pytest.raises(EnvironmentProblem):
        serving(folders, "mood")


async def test_the_same_start_finds_what_was_loaded_pushed_and_unloaded(folders: dict[str, Path]) -> None:
    """Another list of names is served as it is asked for; places and histories stay with the names."""
    site = await Site(serving(folders, "news", "mood")).start()
    await site.control.load(folders["topic"], raw_policy=cascade(0.5).dump())
    await site.control.line("news").plane.push(cascade(0.6).dump())
    await site.control.unload("mood")
    again = await Site(serving(folders, "news", "mood")).start()
    assert list(again.given.families) == ["news", "topic"]
    assert own_deployment(TEACHER) in again.given.slots.deployments
    assert (await again.ask("topic")).policy_version == cascade(0.5).version
    assert (await again.ask("news")).policy_version == cascade(0.6).version
    assert [entry.number for entry in again.control.line("news").plane.history()] == [1, 2]
    fresh = await Site(serving(folders, "mood", "news")).start()
    assert set(fresh.given.families) == {"news", "topic"}  # the order of names is nothing
    other = await Site(serving(folders, "mood")).start()
    assert list(other.given.families) == ["mood"]
    assert (await other.ask("cascade")).labels == LABELS["mood"]


async def test_a_lone_family_with_a_name_of_its_own_is_found_by_its_hash(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """In a state that a gateway without rosters has left, where only the name of the manifest stands."""
    given = FamilySettings(path=str(folders["news"]), name="press")
    told = Settings(families=(given,), state=str(tmp_path / "state"))
    site = await Site(assign(told, tmp_path)).start()
    await site.control.line("press").plane.push(cascade(0.6).dump())
    for file in (tmp_path / "state" / "roster").iterdir():
        file.unlink()
    mood = FamilySettings(path=str(folders["mood"]))
    both = await Site(assign(told.model_copy(update={"families": (mood, given)}), tmp_path)).start()
    assert both.control.line("press").seat.place == ""
    assert (await both.ask("press")).policy_version == cascade(0.6).version


async def test_a_state_of_one_family_is_read_as_before_and_stays_where_it_is(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """A gateway without rosters has left it: its revisions stay at the root, others go beside them."""
    alone = Settings(family=str(folders["news"]), state=str(tmp_path / "state"))
    site = await Site(assign(alone, tmp_path)).start()
    await site.control.line("news").plane.push(cascade(0.6).dump())
    for file in (tmp_path / "state" / "roster").iterdir():
        file.unlink()
    both = await Site(serving(folders, "mood", "news")).start()
    assert both.control.line("news").plane.current().number == 2
    assert both.control.line("news").seat.place == ""
    assert both.control.line("mood").seat.place == "of/mood"
    assert (await both.ask("news")).policy_version == cascade(0.6).version
    latest = open_revisions(str(tmp_path / "state")).latest()
    assert latest is not None
    assert latest.number == 2


async def test_a_gateway_may_begin_without_any_family_where_somebody_else_answers(
    folders: dict[str, Path],
) -> None:
    """It is ready, has a shelf for those that come, and the first is asked by short names too."""
    with pytest.raises(ValueError, match="give a family folder"):
        serving(folders)
    upstream = {"url": "http://127.0.0.1:9/v1"}
    site = await Site(serving(folders, upstream=upstream)).start()
    assert list(site.workers) == [SHELF]
    assert await site.gateway.ready()
    assert site.gateway.healthy
    with pytest.raises(UnknownModel):
        await site.ask("cascade")
    await site.control.load(folders["mood"], raw_policy=cascade().dump())
    for model in ("mood", "cascade", "mood/fake-other"):
        assert (await site.ask(model)).labels == LABELS["mood"]
    again = await Site(serving(folders, upstream=upstream)).start()
    assert list(again.workers) == [own_deployment(TEACHER), SHELF]
    assert (await again.ask("mood")).labels == LABELS["mood"]
    await again.control.unload("mood")
    assert await again.gateway.ready()


async def test_a_flood_at_one_family_does_not_keep_the_other_waiting(folders: dict[str, Path]) -> None:
    """Both have their last stage in one process: the flood fills its own queue, and is refused there."""
    for name in ("news", "mood"):
        delays = {TEACHER: 2.0}
        write_fake_family(folders[name], rows=60, delay_ms=delays, labels=LABELS[name], name=name)
    rules = StageSettings(batch=BatchRules(max_queue_items=128))
    site = await Site(serving(folders, "news", "mood", stage=rules)).start()
    worker = site.workers[own_deployment(TEACHER)]
    assert len({stage.family for stage in worker._families.stages if stage.variant == TEACHER}) == 2

    async def flood(number: int) -> None:
        with suppress(Exception):
            await site.ask(f"news/{TEACHER}", f"flood {number}")

    flooding = [asyncio.create_task(flood(n)) for n in range(400)]
    while not any(stage.queued for stage in worker._families.stages):
        await asyncio.sleep(0)
    for n in range(5):
        result = await site.ask(f"mood/{TEACHER}", f"calm {n}")
        assert not any(result.degraded)
    assert sum(not task.done() for task in flooding) > 20
    await asyncio.gather(*flooding)
    page = site.gateway._metrics_page().decode()
    assert f'family="news",model="{TEACHER}",outcome="ok",variant="{TEACHER}"' in page


def test_two_families_of_one_name_need_another_for_one(folders: dict[str, Path]) -> None:
    """The refusal says how; with names of their own both are served, each in its own place."""
    root = folders["news"].parent
    twice = (FamilySettings(path=str(folders["news"])), FamilySettings(path=str(folders["news"])))
    with pytest.raises(InputError, match="two families would be served as 'news'"):
        assign(Settings(families=twice, state=str(root / "state")), root)
    named = (twice[0], twice[1].model_copy(update={"name": "news-2"}))
    given = assign(Settings(families=named, state=str(root / "state")), root)
    assert list(given.families) == ["news", "news-2"]
    family = store_of(given).locate(open_revisions(given.state, "of/news-2").read(1).family, *given.folders)
    assert family == folders["news"]
    assert INLINE not in given.slots.deployments


async def test_trials_of_two_families_are_counted_each_for_itself(folders: dict[str, Path]) -> None:
    """Candidates of one policy on trial at both: ids that are alike, and nothing is mixed up."""
    site = await Site(serving(folders, "news", "mood")).start()
    candidate = single_variant_policy("fake-small")
    for name in ("news", "mood"):
        asked = TrialAsked(policy=candidate.dump(), share=1.0)
        await site.control.line(name).trials.begin("canary", asked)
    for _ in range(3):
        assert (await site.ask("news")).policy_version == candidate.version
    assert (await site.ask("mood")).policy_version == candidate.version
    [news] = await site.control.line("news").trials.standing()
    [mood] = await site.control.line("mood").trials.standing()
    assert news["id"] == mood["id"]
    counted = [trial["counts"]["candidate"]["requests"] for trial in (news, mood)]
    assert counted == [3, 1]
    revision, _ = await site.control.line("news").trials.end("canary", "promote", "operator")
    assert revision.policy == candidate
    assert site.control.line("mood").plane.current().canary is not None
    assert (await site.ask("news")).policy_version == candidate.version
    site.gateway.flush()
    page = site.gateway._metrics_page().decode()
    assert 'sluice_arm_requests_total{arm="canary",family="news",outcome="ok"} 3.0' in page
    assert 'sluice_arm_requests_total{arm="canary",family="mood",outcome="ok"} 1.0' in page


async def test_a_key_pays_for_all_families_from_one_purse(folders: dict[str, Path]) -> None:
    """What it spends at one is not there for the other."""
    site = await Site(serving(folders, "news", "mood")).start()
    open_keys(site.given.state).create("shop", ("infer",), KeyLimits(usd_per_day=1.0))
    await site.gateway.catch_up("news")
    meter = site.gateway._accounts.meter("shop")
    assert meter is not None
    spent = [0.0]
    for name in ("news", "mood"):
        request = ClassifyRequest(name, ["a story"], None, time.monotonic(), caller="shop")
        await site.gateway.gateway.hot._dataplane.classify(request)
        spent.append(meter.usd)
    assert spent == sorted(set(spent))
