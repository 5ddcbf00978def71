"""Traffic shares on scripted stages: one process, no Ray."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from contract.errors import NotReady
from contract.live import Candidate, FamilyReference
from contract.policy import Limits, Policy, Stage
from contract.trial import TrialCounts, TrialKind, VerdictRule
from router.decide.cascade import compile_policy
from runtime.api import Logits
from serve.settings.limits import RequestLimits
from serve.settings.traffic import TrafficSettings
from serve.traffic.plane import TrafficPlane
from serve.types.messages import ClassifyRequest, ClassifyResult
from serve.types.stage import Snapshot, Trial
from tests.serve.parts import FakeFolder, Kept

QUIET = TrafficSettings(busy_cpu_share=None)


class Scripted:
    """A stage that finds its class in the text, as in "small=2 large=3?"; "?" says that it is unsure."""

    def __init__(self, variant: str) -> None:
        self.variant = variant
        self.asked: list[tuple[str, int | None]] = []
        self.problem: Exception | None = None
        self.at_once = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def logits(self, texts: Sequence[str], *_: Any, **more: Any) -> Logits:
        """Look the class up in each text."""
        self.asked += [(text, more.get("priority", _[-1] if _ else None)) for text in texts]
        await self.gate.wait()
        if self.problem is not None:
            raise self.problem
        return self.answers(texts)

    def answers(self, texts: Sequence[str]) -> Logits:
        """What the texts say."""
        rows = np.empty((len(texts), 5))
        for row, text in enumerate(texts):
            said = dict(part.split("=") for part in text.split())[self.variant.removeprefix("fake-")]
            surely = 0.5 if said.endswith("?") else 0.99
            rows[row] = (1 - surely) / 4
            rows[row, int(said.removesuffix("?"))] = surely
        return np.log(rows).astype(np.float32)

    def logits_now(self, texts: Sequence[str], deadline_at: float | None) -> Logits | None:
        """At once where told to, else never."""
        if not self.at_once:
            return None
        self.asked += [(text, None) for text in texts]
        return self.answers(texts)

    async def ready(self) -> bool:
        """Always."""
        return True


class World:
    """Three scripted stages; the live policy is small alone, unless told otherwise."""

    def __init__(self, fakes: FakeFolder, settings: TrafficSettings = QUIET, **limits: Any) -> None:
        self.fakes = fakes
        self.kept = Kept()
        self.stages = {name: Scripted(name) for name in fakes.family.names}
        self.snapshot = self.serving(self.policy("small"))
        self.behind = False
        self.plane = TrafficPlane(self.in_force, RequestLimits(**limits), self.kept, settings)

    def in_force(self) -> Snapshot:
        """The snapshot in force, as the follower gives it."""
        if self.behind:
            raise NotReady("this replica fell behind")
        return self.snapshot

    @staticmethod
    def policy(*variants: str, budget: float | None = None) -> Policy:
        """These variants in a row, each sure at 0.9; the reference is large."""
        names = [f"fake-{variant}" for variant in variants]
        stages = [Stage(variant=name, threshold=0.9, temperature=1.0) for name in names[:-1]]
        return Policy(
            status="uncertified",
            reference="fake-large",
            limits=Limits(max_escalation_rate=budget),
            stages=(*stages, Stage(variant=names[-1], temperature=1.0)),
        ).sealed()

    def serving(self, policy: Policy, trials: tuple[Trial, ...] = ()) -> Snapshot:
        """A snapshot of the same stages."""
        compiled = compile_policy(policy, self.fakes.family.labels)
        return Snapshot(1, policy, compiled, self.fakes.family, self.stages, trials)

    def begin(self, kind: TrialKind, policy: Policy, share: float = 1.0, **rule: Any) -> None:
        """Put a candidate on trial."""
        family = self.fakes.family
        candidate = Candidate(
            id=f"{kind}-2",
            policy=policy,
            family=FamilyReference(sha256=family.sha256, path="/f"),
            share=share,
            since="now",
            since_revision=2,
            rule=VerdictRule(**rule),
        )
        self.snapshot = self.serving(self.snapshot.policy, (Trial(kind, candidate, self.serving(policy)),))
        self.plane.follow(self.snapshot)

    def end(self) -> None:
        """End all trials."""
        self.snapshot = self.serving(self.snapshot.policy)
        self.plane.follow(self.snapshot)

    async def ask(self, *texts: str, key: bytes = b"", model: str = "cascade") -> ClassifyResult:
        """Classify."""
        request = ClassifyRequest(model, list(texts), None, time.monotonic(), sticky_key=key)
        return await self.plane.classify(request)

    async def compared(self) -> TrialCounts:
        """The counts once nothing waits for comparison."""
        async with asyncio.timeout(5):
            while self.plane.waiting_texts:
                await asyncio.sleep(0)
        _, counts = next(iter(self.plane.counts().values()))
        return counts


@asynccontextmanager
async def world(fakes: FakeFolder, settings: TrafficSettings = QUIET, **limits: Any) -> AsyncIterator[World]:
    """A world that leaves no task behind."""
    made = World(fakes, settings, **limits)
    try:
        yield made
    finally:
        made.end()
