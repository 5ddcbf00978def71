"""One served family as control has it: revisions, what is looked at before one is committed, and trials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from contract.roster import Seat
from runtime.room import Room
from serve.access.signatures import Signers
from serve.control.evidence import Evidence, Witnesses
from serve.control.families import Families
from serve.control.family_push import FamilyPush
from serve.control.family_store import FamilyStore
from serve.control.plane import ControlPlane, Replicas
from serve.control.revision_store import open_revisions
from serve.control.trials import TrialControl
from serve.stages.loading import Assignment
from serve.storage.objects import open_objects


class ReplicasOfOne(Replicas, Witnesses, Protocol):
    """All replicas, asked about one family."""


class FamilyLine:
    """What control does for one family, whatever becomes of the others.

    Args:
        seat: name that it is served under, and place of its state.
        assignment: of this run.
        store: keeps families.
        replicas: of the gateway, asked about this family.
        room: how much memory is left; None: see Families.
    """

    def __init__(
        self,
        seat: Seat,
        assignment: Assignment,
        store: FamilyStore,
        replicas: ReplicasOfOne,
        room: Callable[[], Room] | None,
    ) -> None:
        self.seat = seat
        self.replicas = replicas
        self.families = Families(assignment, seat.name, store, room)
        self.revisions = open_revisions(assignment.state, seat.place)
        families, signers = self.families, Signers(assignment.settings.access.policy_keys)
        self.plane = ControlPlane(
            self.revisions, families.examine, replicas, families.check_room, signers.check
        )
        self.push = FamilyPush(self.plane, self.families, store)
        evidence = Evidence(open_objects(assignment.state), seat.place)
        self.trials = TrialControl(self.plane, replicas, evidence)

    @property
    def name(self) -> str:
        """Name that the family is served under."""
        return self.seat.name

    def describe(self) -> dict[str, Any]:
        """Say what is in force, and where each variant runs."""
        in_force = self.plane.current().family
        family = self.families.examine(in_force).family
        return {
            "served_as": self.name,
            "family": in_force.model_dump(mode="json"),
            "placed": self.families.place(family),
        }
