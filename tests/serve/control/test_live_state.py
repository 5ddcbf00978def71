"""Revisions in each kind of store, replicas that follow them, the control plane that writes them; no Ray."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import RayError
from starlette.testclient import TestClient

from contract.errors import NotReady, PolicyError
from contract.family import Family
from contract.live import FamilyReference, Revision, parse_revision
from contract.policy import Gear, Policy, Stage, single_variant_policy
from runtime.fake_family import write_fake_family
from serve.access.key_store import open_keys
from serve.control.admin import make_admin
from serve.control.follower import Follower
from serve.control.plane import ControlPlane, Examined, ReplicaState
from serve.control.revision_store import (
    RevisionStore,
    RevisionTaken,
    first_revision,
    following,
    open_revisions,
)
from serve.ray.all_replicas import AllReplicas
from serve.stages.loading import make_snapshot
from serve.storage.objects import open_objects
from serve.types.stage import Snapshot
from tests.ports import free_port
from tests.serve.parts import OnlyLine

pytestmark = pytest.mark.anyio


@pytest.fixture
def family(tmp_path: Path) -> Family:
    """A family of fakes."""
    return write_fake_family(tmp_path / "family", rows=60)


@pytest.fixture
def state(place: str) -> RevisionStore:
    """An empty state directory, then an empty place in an object store."""
    return open_revisions(place)


def revision(latest: Revision | None, policy: Policy, family: Family) -> Revision:
    """The revision that follows."""
    named = FamilyReference(name=family.name, sha256=family.sha256, path="/f")
    if latest is None:
        return first_revision(policy, named, "test")
    return following(latest, latest.serving(policy, named), "test")


def seeded(state: RevisionStore, family: Family, variant: str = "fake-large") -> Revision:
    """The first revision, committed."""
    first = revision(None, single_variant_policy(variant), family)
    state.commit(first)
    return first


def follower(state: RevisionStore, family: Family) -> Follower:
    """A replica that holds every variant (by name only)."""

    async def load(found: Revision) -> Snapshot:
        return make_snapshot(found, family, {})

    return Follower(state, load)


class Replicas:
    """Replicas in this process, one of which may refuse to prepare."""

    def __init__(self, *followers: Follower) -> None:
        self.followers = followers
        self.refusal: str | None = None
        self.forgotten = False

    async def prepare(self, revision: dict[str, Any], *, stages: bool) -> list[str | None]:
        """Prepare on each."""
        for each in self.followers:
            await each.prepare(Revision.model_validate(revision))
        return [self.refusal, *(None for _ in self.followers)]

    async def forget(self) -> None:
        """Let go on each."""
        self.forgotten = True
        for each in self.followers:
            each.forget_prepared()

    async def catch_up(self) -> list[ReplicaState]:
        """Catch up each."""
        return [ReplicaState("r", 1, await each.catch_up(), each.problem) for each in self.followers]


class Broadcasting:
    """A deployment handle whose replicas give these replies."""

    def __init__(self, replies: list[Any]) -> None:
        self.replies = replies

    def broadcast(self, _: str, *__: Any) -> Broadcasting:
        """Return the response."""
        return self

    def results(self, *, timeout_s: float, return_exceptions: bool) -> list[Any]:
        """Return the replies, or raise the first error, as Serve does."""
        errors = [reply for reply in self.replies if isinstance(reply, Exception)]
        if errors and not return_exceptions:
            raise errors[0]
        return self.replies


def control(state: RevisionStore, family: Family, replicas: Replicas) -> ControlPlane:
    """A control plane over these replicas."""
    return ControlPlane(state, lambda _: Examined(family, {}), replicas)


def test_a_revision_is_written_once(state: RevisionStore, family: Family) -> None:
    """The second writer of a number is refused, and the first one's content stays."""
    first = seeded(state, family)
    with pytest.raises(RevisionTaken):
        state.commit(revision(None, single_variant_policy("fake-small"), family))
    assert state.history() == [first]


def _geared() -> Policy:
    stages = (Stage(variant="fake-small", threshold=0.9), Stage(variant="fake-large"))
    return Policy(
        status="uncertified",
        reference="fake-large",
        stages=stages,
        gears=(
            Gear(name="busy", stages=stages, epsilon=0.01),
            Gear(name="overload-1", stages=(Stage(variant="fake-small"),), epsilon=0.04),
        ),
    ).sealed()


async def test_a_gear_fixed_by_hand_is_a_revision_that_replicas_follow(
    state: RevisionStore, family: Family, tmp_path: Path
) -> None:
    """POST /gear/NAME commits it, an unknown one changes nothing, `auto` and a push leave it to load."""
    seeded(state, family)
    replica = follower(state, family)
    plane = control(state, family, Replicas(replica))
    await plane.push(_geared().dump())
    client = TestClient(make_admin(OnlyLine(plane), open_keys(str(tmp_path)), dict, plane.states))
    told = await asyncio.to_thread(client.post, "/gear/overload-1")
    assert told.json()["revision"]["gear"] == "overload-1"
    assert (replica.snapshot().gear, len(replica.snapshot().gears)) == ("overload-1", 2)
    refused = await asyncio.to_thread(client.post, "/gear/sixth")
    assert (refused.status_code, "it has: busy, overload-1" in refused.json()["error"]) == (400, True)
    await asyncio.to_thread(client.post, "/gear/auto")
    assert replica.snapshot().gear is None
    await plane.shift("busy")
    await plane.push(_geared().dump())
    assert replica.snapshot().gear is None
    assert [found.reason for found in state.history()][-4:] == [
        "gear overload-1",
        "gear auto",
        "gear busy",
        "push",
    ]


def test_history_is_complete_and_in_order(state: RevisionStore, family: Family) -> None:
    """Every committed revision can be read again, oldest first."""
    first = seeded(state, family)
    second = revision(first, single_variant_policy("fake-small"), family)
    written = state.commit(second)
    assert written.before_sha256
    assert state.history() == [first, written]
    assert state.newer_than(1) == written
    assert state.newer_than(2) is None


@pytest.mark.parametrize("told", ["", "[]", '{"number": 1'])
def test_a_revision_that_is_not_one_is_named(place: str, told: str) -> None:
    """What stands under a number and is no revision is refused with its place."""
    open_objects(place).create("revisions/00000001.json", told.encode())
    with pytest.raises(PolicyError, match=rf"{place}.*00000001\.json"):
        open_revisions(place).latest()


def test_a_revision_under_the_number_of_another_is_named(
    place: str, state: RevisionStore, family: Family
) -> None:
    """A copy of revision 1 under number 2 is not revision 2."""
    first = seeded(state, family)
    open_objects(place).create("revisions/00000002.json", json.dumps(first.dump()).encode())
    with pytest.raises(PolicyError, match=r"revision 1.*00000002\.json|00000002\.json.*revision 1"):
        state.latest()


async def test_a_replica_has_no_snapshot_before_the_first_revision(
    state: RevisionStore, family: Family
) -> None:
    """An empty state directory means not ready; the first revision makes ready."""
    replica = follower(state, family)
    assert await replica.catch_up() == 0
    with pytest.raises(NotReady):
        replica.snapshot()
    seeded(state, family)
    assert await replica.catch_up() == 1
    assert replica.snapshot().policy.reference == "fake-large"


async def test_a_replica_that_cannot_load_the_newest_goes_unready_until_it_can(
    state: RevisionStore, family: Family
) -> None:
    """A broken revision takes the replica out; a good one that follows brings it back."""
    replica = follower(state, family)
    first = seeded(state, family)
    await replica.catch_up()
    stranger = revision(first, single_variant_policy("stranger"), family)
    state.commit(stranger)
    await replica.catch_up()
    assert "stranger" in (replica.problem or "")
    with pytest.raises(NotReady):
        replica.snapshot()
    state.commit(revision(stranger, single_variant_policy("fake-small"), family))
    assert await replica.catch_up() == 3
    assert replica.problem is None
    assert replica.snapshot().policy.reference == "fake-small"


async def test_a_request_keeps_the_snapshot_that_it_began_with(state: RevisionStore, family: Family) -> None:
    """A snapshot taken before a flip does not change."""
    replica = follower(state, family)
    first = seeded(state, family)
    await replica.catch_up()
    held = replica.snapshot()
    state.commit(revision(first, single_variant_policy("fake-small"), family))
    await replica.catch_up()
    assert (held.revision, held.policy.reference) == (1, "fake-large")
    assert replica.snapshot().revision == 2


async def test_a_push_reaches_every_replica(state: RevisionStore, family: Family) -> None:
    """After a push all replicas are on the new number, and rollback makes a further one."""
    replicas = Replicas(follower(state, family), follower(state, family))
    plane = control(state, family, replicas)
    seeded(state, family)
    pushed, states = await plane.push(single_variant_policy("fake-small").dump())
    assert pushed.number == 2
    assert [each.revision for each in states] == [2, 2]
    back, _ = await plane.rollback(1)
    assert (back.number, back.reason, back.policy.reference) == (3, "rollback to 1", "fake-large")


async def test_a_push_that_one_replica_refuses_changes_nothing(state: RevisionStore, family: Family) -> None:
    """The complaint of the replica is passed on and no revision is written."""
    replicas = Replicas(follower(state, family))
    replicas.refusal = "no memory"
    seeded(state, family)
    with pytest.raises(PolicyError, match="no memory"):
        await control(state, family, replicas).push(single_variant_policy("fake-small").dump())
    assert len(state.history()) == 1
    assert replicas.forgotten
    assert replicas.followers[0].families == frozenset()


async def test_a_push_whose_replicas_fall_silent_after_the_commit_is_reported_as_done(
    state: RevisionStore, family: Family
) -> None:
    """What is committed is in force: the reply gives its revision, and no replica."""

    class Silent(Replicas):
        async def catch_up(self) -> list[ReplicaState]:
            raise NotReady("nobody answers")

    seeded(state, family)
    pushed, states = await control(state, family, Silent()).push(single_variant_policy("fake-small").dump())
    assert (pushed.number, states) == (2, [])
    assert state.latest() == pushed


async def test_a_change_is_given_what_is_in_force_and_keeps_what_it_does_not_touch(
    state: RevisionStore, family: Family
) -> None:
    """Number, time and reason are the plane's; keys that only a newer version knows survive a push."""
    first = seeded(state, family)
    newer = first.model_copy(update={"number": 2, "later": {"x": 1}})
    state.commit(newer)
    plane = control(state, family, Replicas(follower(state, family)))
    changed, _ = await plane.commit(
        lambda now: now.model_copy(update={"number": 77, "more": now.number}), "test of changes"
    )
    assert (changed.number, changed.reason) == (3, "test of changes")
    pushed, _ = await plane.push(single_variant_policy("fake-small").dump())
    told = state.read(4).dump()
    assert pushed.number == 4
    assert (told["later"], told["more"]) == ({"x": 1}, 2)


async def test_changes_at_the_same_time_follow_one_another(state: RevisionStore, family: Family) -> None:
    """None of them is lost: each is given the revision that the one before it has made."""
    seeded(state, family)
    plane = control(state, family, Replicas(follower(state, family)))

    async def add(key: str) -> None:
        await plane.commit(lambda now: now.model_copy(update={key: now.number}), key)

    async with asyncio.TaskGroup() as group:
        for key in "abc":
            group.create_task(add(f"key_{key}"))
    last = plane.current().dump()
    assert sorted(last[f"key_{key}"] for key in "abc") == [1, 2, 3]


def test_a_revision_of_an_older_version_is_read(family: Family) -> None:
    """What came later has a default: the family's name is empty, and nothing else is missed."""
    raw = revision(None, single_variant_policy("fake-small"), family).dump()
    old = parse_revision({key: value for key, value in raw.items() if key != "family_name"})
    assert (old.family.name, old.family.sha256) == ("", family.sha256)


async def test_replicas_that_do_not_answer_are_left_out() -> None:
    """One dead replica hides none of the others; with none left there is nothing to say."""
    alive = ReplicaState("a", 1, 2, None)
    replicas = AllReplicas()
    for replies, told in (([alive, RayError("gone")], [alive]), ([RayError("gone")], None)):
        replicas._handles["gateway"] = Broadcasting(replies)
        if told is None:
            with pytest.raises(NotReady):
                await replicas.catch_up()
        else:
            assert await replicas.catch_up() == told


async def test_a_policy_for_another_build_is_refused(state: RevisionStore, family: Family) -> None:
    """A revision whose family has another hash is not loaded."""
    other = family.model_copy(update={"name": "other"})
    replica = follower(state, other)
    seeded(state, family)
    assert await replica.catch_up() == 0
    assert "another family" in (replica.problem or "")


async def test_a_store_that_is_away_is_told_and_replicas_serve_on(
    bucket: str, family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator learns why nothing can be pushed; what is in force stays in force."""
    place = f"{bucket}/{tmp_path.name}"
    seeded(open_revisions(place), family)
    replica = follower(open_revisions(place), family)
    await replica.catch_up()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    away = open_revisions(place)
    replica._state = away
    assert await replica.catch_up() == 1
    assert replica.snapshot().revision == 1
    plane = control(away, family, Replicas(replica))
    app = make_admin(OnlyLine(plane), open_keys(str(tmp_path)), dict, plane.states)
    reply = TestClient(app, raise_server_exceptions=False).get("/policy")
    assert reply.status_code == 503
    assert "the state cannot be reached" in reply.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("PUT", "/policy", b"{", {"content-type": "application/json"}, 400),
        ("PUT", "/policy", b"[" * 100_000, {"content-type": "application/json"}, 400),
        ("PUT", "/policy", b"{}", {"content-type": "text/plain"}, 415),
        ("PUT", "/policy", b'{"status": 3}', {"content-type": "application/json"}, 400),
        ("PUT", "/policy", b" " * (5 << 20), {"content-type": "application/json"}, 413),
        ("POST", "/rollback/99", b"", {}, 400),
        ("POST", "/rollback/x", b"", {}, 404),
        ("GET", "/nowhere", b"", {}, 404),
        ("DELETE", "/policy", b"", {}, 405),
    ],
)
def test_wrong_admin_input_gets_words(
    state: RevisionStore,
    family: Family,
    method: str,
    path: str,
    body: bytes,
    headers: dict[str, str],
    status: int,
    tmp_path: Path,
) -> None:
    """Whatever is sent, the answer is a 4xx with {"error": ...} and the live state stays."""
    seeded(state, family)
    plane = control(state, family, Replicas())
    app = make_admin(OnlyLine(plane), open_keys(str(tmp_path)), dict, plane.states)
    reply = TestClient(app, raise_server_exceptions=False).request(
        method, path, content=body, headers=headers
    )
    assert reply.status_code == status
    assert reply.json()["error"]
    assert len(state.history()) == 1
