"""Candidates in gateway replicas that come and go, joined with control in one process without Ray."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract.live import FamilyReference
from contract.policy import single_variant_policy
from contract.trial import Auto
from runtime.fake_family import write_fake_family
from serve.control.bootstrap import assign
from serve.control.evidence import Evidence, ReplicaCounts
from serve.control.families import Families, store_of
from serve.control.plane import ControlPlane, ReplicaState
from serve.control.revision_store import open_revisions
from serve.control.trials import TrialAsked, TrialControl
from serve.ray.gateway_replica import GatewayReplica
from serve.settings.gateway import Settings
from serve.settings.slots import Slots
from serve.settings.stages import FakeSettings
from serve.settings.traffic import TrafficSettings
from serve.stages.loading import Assignment
from serve.stages.remote import RemoteStage
from serve.storage.objects import open_objects
from serve.telemetry.metrics import Telemetry
from serve.types.messages import ClassifyRequest
from serve.types.recorder import Recorder

pytestmark = pytest.mark.anyio
LIVE = single_variant_policy("fake-small")
CANARY = single_variant_policy("fake-large")


class Run:
    """Gateway replicas with every variant inside, under one control."""

    def __init__(self, folder: Path) -> None:
        state = str(folder / "state")
        settings = Settings(
            fake=FakeSettings(delay_ms=0.0), state=state, traffic=TrafficSettings(busy_cpu_share=None)
        )
        given = assign(settings, folder)
        slots = Slots(inline=("fake-small", "fake-other", "fake-large"), own=(), shelf=())
        only = given.families["fake"].model_copy(update={"slots": slots})
        self.assignment: Assignment = given.model_copy(update={"families": {"fake": only}})
        self.store = store_of(self.assignment)
        families = Families(self.assignment, "fake", self.store)
        self.replicas: dict[str, GatewayReplica] = {}
        self.plane = ControlPlane(open_revisions(state), families.examine, self)
        self.trials = TrialControl(self.plane, self, Evidence(open_objects(state)))

    async def start(self, name: str) -> GatewayReplica:
        """Start a replica on the newest revision."""
        replica = GatewayReplica(name, self.assignment, no_remotes, Telemetry())
        await replica.start()
        self.replicas[name] = replica
        return replica

    async def stop(self, name: str) -> None:
        """End one as a drained process ends."""
        await self.replicas.pop(name).drain()

    async def prepare(self, revision: dict[str, Any], *, stages: bool) -> list[str | None]:
        """See serve.control.Replicas."""
        del stages
        return [await replica.prepare(revision) for replica in self.replicas.values()]

    async def forget(self) -> None:
        """See serve.control.Replicas."""
        for replica in self.replicas.values():
            await replica.forget()

    async def catch_up(self) -> list[ReplicaState]:
        """See serve.control.Replicas."""
        return [await replica.catch_up() for replica in self.replicas.values()]

    async def counts(self) -> list[ReplicaCounts]:
        """See serve.control.Witnesses."""
        return [await replica.counts() for replica in self.replicas.values()]

    async def begin(self, share: float, family: FamilyReference | None = None, auto: Auto = "off") -> None:
        """Put the large fake on trial as a canary."""
        await self.trials.begin("canary", TrialAsked(policy=CANARY.dump(), share=share, auto=auto), family)

    async def arm(self, name: str, key: str) -> str | None:
        """The policy that answers a key at that replica."""
        dataplane = self.replicas[name].gateway.hot._dataplane
        request = ClassifyRequest("cascade", ["a story"], None, time.monotonic(), sticky_key=key.encode())
        return (await dataplane.classify(request)).policy_version


def no_remotes(deployment: str, variant: str, build: str, _: Recorder) -> RemoteStage:
    """Every variant is inside."""
    raise AssertionError((deployment, variant, build))


async def until(holds: Callable[[], bool]) -> None:
    """Give the loop to others until something holds."""
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0)


async def test_replicas_agree_on_arms_new_ones_join_and_counts_outlive_those_that_end(tmp_path: Path) -> None:
    """The same key meets the same arm everywhere, at a replica that started later too."""
    run = Run(tmp_path)
    await run.start("one")
    await run.plane.push(LIVE.dump())
    await run.begin(0.5)
    two = await run.start("two")
    keys = [f"user {n}" for n in range(60)]
    at_one = [await run.arm("one", key) for key in keys]
    assert [await run.arm("two", key) for key in keys] == at_one
    assert {LIVE.version, CANARY.version} == set(at_one)
    await run.trials.look()
    await run.stop("two")
    written = two._telemetry.registry.get_sample_value(
        "sluice_arm_requests_total", {"family": "fake", "arm": "canary", "outcome": "ok"}
    )
    assert written == at_one.count(CANARY.version)
    await run.start("three")
    assert [await run.arm("three", key) for key in keys] == at_one
    [trial] = await run.trials.standing()
    counts = trial["counts"]
    assert counts["candidate"]["requests"] == 3 * at_one.count(CANARY.version)
    assert counts["live"]["requests"] == 3 * at_one.count(LIVE.version)


async def test_a_candidates_family_is_loaded_beside_and_freed_when_it_is_withdrawn(tmp_path: Path) -> None:
    """Both families answer meanwhile; a promotion puts policy and family in force in one step."""
    run = Run(tmp_path)
    replica = await run.start("one")
    await run.plane.push(LIVE.dump())
    other = write_fake_family(tmp_path / "other", rows=60, seed=5, delay_ms=0.0)
    reference = run.store.put(tmp_path / "other", other)
    loaded = replica._families
    before = loaded.known
    await run.begin(0.5, reference)
    assert loaded.known == before | {other.sha256}
    assert {await run.arm("one", f"user {n}") for n in range(40)} == {LIVE.version, CANARY.version}
    await run.trials.end("canary", "withdraw", "operator")
    assert {await run.arm("one", f"user {n}") for n in range(40)} == {LIVE.version}
    await until(lambda: loaded.known == before)
    await run.begin(0.5, reference)
    await run.trials.end("canary", "promote", "operator")
    revision = run.plane.current()
    assert (revision.policy, revision.family_sha256) == (CANARY, other.sha256)
    assert {await run.arm("one", f"user {n}") for n in range(40)} == {CANARY.version}
    await until(lambda: loaded.known == frozenset({other.sha256}))
    await run.plane.rollback(2)
    assert {await run.arm("one", f"user {n}") for n in range(40)} == {LIVE.version}
