"""A control plane with its trials, whose replicas count what they are told to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from contract.errors import NotReady
from contract.family import Family
from contract.live import FamilyReference, Revision, parse_revision
from contract.policy import Policy, single_variant_policy
from contract.trial import ArmCounts, PairCounts, TrialCounts, TrialKind
from runtime.fake_family import write_fake_family
from serve.control.evidence import Evidence, ReplicaCounts
from serve.control.plane import ControlPlane, Examined, ReplicaState
from serve.control.revision_store import RevisionStore, first_revision, open_revisions
from serve.control.trials import TrialAsked, TrialControl
from serve.storage.objects import open_objects

LIVE = single_variant_policy("fake-large")
OTHER = single_variant_policy("fake-small")
ALIKE = TrialCounts(
    live=ArmCounts(requests=900, texts=900),
    candidate=ArmCounts(requests=100, texts=1000, usd=0.5),
    pairs=PairCounts(same=1000),
)
WORSE = TrialCounts(candidate=ArmCounts(requests=100, texts=500), pairs=PairCounts(same=400, worse=100))


class Gateway:
    """Replicas that load everything and count what they are told to."""

    def __init__(self) -> None:
        self.told: dict[str, dict[str, TrialCounts]] = {}

    async def prepare(self, revision: dict[str, Any], **_: Any) -> list[str | None]:
        """Load."""
        parse_revision(revision)
        return [None]

    async def forget(self) -> None:
        """Nothing is kept."""

    async def catch_up(self) -> list[ReplicaState]:
        """All are there."""
        return [ReplicaState("r", 1, 1, None)]

    async def counts(self) -> list[ReplicaCounts]:
        """As told, in the form that crosses processes."""
        if not self.told:
            raise NotReady("nobody is there")
        return [
            ReplicaCounts(name, {trial: counts.model_dump(mode="json") for trial, counts in by_trial.items()})
            for name, by_trial in self.told.items()
        ]


class World:
    """A control plane with its trials on a state directory; `restart` is a new process on the same one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.family = write_fake_family(folder / "family", rows=60)
        self.state: RevisionStore = open_revisions(str(folder / "state"))
        reference = FamilyReference(name="fake", sha256=self.family.sha256, path="/f")
        self.state.commit(first_revision(LIVE, reference, "seed"))
        self.gateway = Gateway()
        self.restart()

    def restart(self) -> None:
        """Forget everything that is not on disk."""
        self.plane = make_plane(self.state, self.family, self.gateway)
        self.evidence = Evidence(open_objects(str(self.folder / "state")))
        self.trials = TrialControl(self.plane, self.gateway, self.evidence)

    async def begin(self, kind: TrialKind = "canary", policy: Policy = OTHER, **asked: Any) -> Revision:
        """Put a policy on trial."""
        given = TrialAsked(policy=policy.dump(), **{"share": 0.1, **asked})
        revision, _ = await self.trials.begin(kind, given)
        return revision

    def count(self, counts: TrialCounts, replica: str = "r") -> None:
        """Have a replica tell these counts of whatever is on trial."""
        trials = [candidate.id for _, candidate in self.plane.current().trials()]
        self.gateway.told[replica] = dict.fromkeys(trials, counts)


def make_plane(state: RevisionStore, family: Family, gateway: Gateway) -> ControlPlane:
    """The control plane of a gateway."""
    return ControlPlane(state, lambda _: Examined(family, {}), gateway)
