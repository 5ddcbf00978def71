"""The seam inside the gateway: what a stage is, and the snapshot that one request works on from start to end.

The data plane knows only what is here. A stage runs in the gateway replica or behind a deployment handle; its
caller cannot tell, except by the time it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from contract.family import Family
from contract.live import Candidate
from contract.policy import Gear, Policy
from contract.trial import TrialKind
from router.decide.cascade import CompiledPolicy
from runtime.api import Logits
from serve.types.priority import DEFAULT_PRIORITY


class Stage(Protocol):
    """One variant that answers texts, micro-batched, bounded and deadline-aware."""

    @property
    def variant(self) -> str:
        """Name of the variant."""
        ...

    async def logits(
        self,
        texts: Sequence[str],
        deadline_at: float | None,
        due_at: float | None = None,
        priority: int = DEFAULT_PRIORITY,
    ) -> Logits:
        """Return float32 logits [N, C] of N >= 1 texts, in order.

        Args:
            texts: the texts of one request.
            deadline_at: `time.monotonic()` second of this process after which nobody wants it, if any.
            due_at: such a second by which it must be answered to be worth a place in the queue, if any.
            priority: level, 1 the highest.

        Raises:
            Overloaded: no room in the queue, or none in which it would be answered by `due_at`.
            DeadlineExceeded: too late to answer.
            NotReady: not serving (yet).
            StageFailed: the variant broke; details are logged where it happened.
        """
        ...

    def logits_now(self, texts: Sequence[str], deadline_at: float | None) -> Logits | None:
        """Return what `logits` would, without waiting; None where that must be asked instead.

        A stage that is idle and fast enough to run on the caller's event loop answers; any other may
        return None always. Raises as `logits` does.
        """
        ...

    async def ready(self) -> bool:
        """Return whether the stage would answer now; never raises."""
        ...


@dataclass(frozen=True, eq=False)
class Snapshot:
    """One revision of the live state, compiled and loaded. A request that holds one sees no change.

    Attributes:
        revision: number of the live-state revision.
        policy: the policy in force.
        compiled: the same policy, ready to decide on class indices of `family.labels`.
        family: the family that is served.
        stages: every variant by name, those outside the cascade too.
        trials: candidates beside it; empty but for a time.
        gears: the policy's gears, compiled, from the safest on; empty where it has none.
        gear: the one that is fixed by hand; None: load decides.
    """

    revision: int
    policy: Policy
    compiled: CompiledPolicy
    family: Family
    stages: Mapping[str, Stage]
    trials: tuple[Trial, ...] = ()
    gears: tuple[CompiledGear, ...] = ()
    gear: str | None = None


class CompiledGear(NamedTuple):
    """A gear, ready to decide."""

    gear: Gear
    compiled: CompiledPolicy


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """A candidate, compiled and loaded as what is in force is."""

    kind: TrialKind
    candidate: Candidate
    snapshot: Snapshot


def instructions_of(stage: object) -> str | None:
    """Return how the question is put that a stage's model is asked; None where that is not known."""
    found = getattr(stage, "instructions", None)
    return found if isinstance(found, str) else None


def wait_share_of(stage: object, within_s: float) -> float:
    """Return the share of the time there is that a newcomer would wait at a stage; 0 where it cannot tell.

    Args:
        stage: any.
        within_s: that time, its own service included.
    """
    asked = getattr(stage, "wait_share", None)
    return 0.0 if asked is None else float(asked(within_s))


Snapshots = Callable[[], Snapshot]
"""Gives the snapshot in force; raises NotReady before the first and when the replica fell behind."""


class StageAround:
    """Passes on what a stage is asked; what stands around one overrides what it watches.

    Args:
        stage: asked.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    @property
    def variant(self) -> str:
        """Name of the variant."""
        return self._stage.variant

    @property
    def instructions(self) -> str | None:
        """How its question is put; see instructions_of."""
        return instructions_of(self._stage)

    async def logits(
        self,
        texts: Sequence[str],
        deadline_at: float | None,
        due_at: float | None = None,
        priority: int = DEFAULT_PRIORITY,
    ) -> Logits:
        """Return the stage's logits; see Stage."""
        return await self._stage.logits(texts, deadline_at, due_at, priority)

    def logits_now(self, texts: Sequence[str], deadline_at: float | None) -> Logits | None:
        """Return the stage's logits where it has them without waiting."""
        return self._stage.logits_now(texts, deadline_at)

    def wait_share(self, within_s: float) -> float:
        """Return how much of its time a newcomer would wait; see wait_share_of."""
        return wait_share_of(self._stage, within_s)

    async def ready(self) -> bool:
        """Return whether the stage would answer now."""
        return await self._stage.ready()
