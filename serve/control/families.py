"""Families before they are served: verified, placed in the slots, given room, and run on their own rows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Set
from contextlib import suppress
from pathlib import Path

from contract.errors import EnvironmentProblem, FamilyError
from contract.family import Family, Variant, read_family
from contract.live import FamilyReference, Revision
from runtime.load import check_family_runs
from runtime.room import Room, memory_room
from serve.control.family_store import FamilyStore, open_family_store
from serve.control.machine_check import compare_answers
from serve.control.plane import Examined
from serve.settings.scaling import most
from serve.settings.slots import INLINE, SHELF, own_deployment
from serve.stages.loading import Assignment

MIB = 1 << 20
_INTERPRETER_BYTES = 150 * MIB
"""Of a measured peak: what a process takes before it has loaded a variant."""


def store_of(assignment: Assignment) -> FamilyStore:
    """Return the families of a run as this node sees them."""
    cache = assignment.settings.family_cache
    return open_family_store(assignment.state, None if cache is None else Path(cache))


class Families:
    """The families that control has looked at; each is looked at once.

    Args:
        assignment: of this run; its families have been looked at when the run started.
        served: name that the families are served under, one after the other.
        store: finds a family on this node.
        room: how much memory is left where all processes of the gateway run; None: they do not run on one
            machine, and each finds out when it loads.
    """

    def __init__(
        self,
        assignment: Assignment,
        served: str,
        store: FamilyStore,
        room: Callable[[], Room] | None = memory_room,
    ) -> None:
        self._assignment = assignment
        self._served = served
        self._store = store
        self._room = room
        self._known: dict[str, Examined] = {}
        # On a node without that folder, families are looked at as revisions name them.
        started = assignment.families.get(served)
        if started is not None:
            with suppress(FamilyError):
                first = read_family(Path(started.folder), verify=False)
                self._known[first.sha256] = Examined(first, started.otherwise)
        self._one_at_a_time = threading.Lock()

    def examine(self, reference: FamilyReference) -> Examined:
        """Look at a family that a revision names, if it is not known yet.

        Raises:
            FamilyError: it is not to be found, a hash is wrong, or a variant has no place in this gateway.
            EnvironmentProblem: this machine lacks what it needs to run.
        """
        with self._one_at_a_time:
            if reference.sha256 not in self._known:
                try:
                    self._known[reference.sha256] = self._look(self.locate(reference), lambda _: None)
                finally:
                    self._store.let_go(reference.sha256)
            return self._known[reference.sha256]

    def place(self, family: Family) -> dict[str, str]:
        """Return where each variant of a family would run. Raises FamilyError."""
        return self._assignment.place(family, self._served)

    def locate(self, reference: FamilyReference) -> Path:
        """Return where this node finds a family. Raises FamilyError."""
        return self._store.locate(reference, *self._assignment.folders)

    def examine_folder(
        self, folder: Path, progress: Callable[[str], None], beside: Family | None = None
    ) -> Examined:
        """Look at a family in a folder on this node, and return what was found; raises as `examine`.

        Args:
            folder: of the family.
            progress: told what is seen.
            beside: what is served meanwhile; what the two share is in memory already.

        Raises:
            EnvironmentProblem: the two do not fit into memory beside each other, too.
        """
        found = self._look(folder, progress, beside)
        with self._one_at_a_time:
            return self._known.setdefault(found.family.sha256, found)

    def check_room(self, now: Revision, then: Revision) -> None:
        """Raise EnvironmentProblem where memory does not hold what `then` needs beside what `now` does."""
        there: set[str] = set()
        for reference in now.families:
            with suppress(FamilyError):  # it is lost; then nothing is taken for shared
                there |= _builds(self.examine(reference).family)
        for reference in set(then.families) - set(now.families):
            family = self.examine(reference).family
            self._check_memory(family, self.place(family), there)

    def check_alone(self, family: Family) -> None:
        """Raise EnvironmentProblem where memory does not hold a family beside all that is loaded now."""
        self._check_memory(family, self.place(family), frozenset())

    def remarks(self, family: Family) -> list[str]:
        """Say which settings of a deployment are not those of the variant that has come into it."""
        settings, placed = self._assignment.settings, self.place(family)
        owners = {own_deployment(name): name for name in self._assignment.slots.own}
        return [
            f"{name} runs in {place} with the settings of `stage`: those of stages.{owners[place]} are that "
            "variant's own, but for the replicas of the deployment"
            for name, place in placed.items()
            if place in owners and owners[place] != name
            if owners[place] in settings.stages and name not in settings.stages
        ]

    def _look(self, folder: Path, progress: Callable[[str], None], beside: Family | None = None) -> Examined:
        family = read_family(folder)
        settings = self._assignment.settings
        check_family_runs(family, settings.provider)
        placed = self.place(family)
        if beside is not None:
            self._check_memory(family, placed, _builds(beside))
        return Examined(family, compare_answers(folder, family, settings, progress))

    def _check_memory(self, family: Family, placed: Mapping[str, str], there: Set[str]) -> None:
        if self._room is None:
            return
        needed = sum(
            bytes_of(family.variant(name)) * self._processes(place)
            for name, place in placed.items()
            if family.build(name) not in there
        )
        room = self._room()
        if needed > room.left:
            raise EnvironmentProblem(
                f"beside the family in force this one needs about {needed // MIB} MiB more memory; "
                f"{room.limit}, {room.most // MIB} MiB, leaves {room.left // MIB} MiB",
                hint="more memory, fewer replicas, or a restart with this family",
            )

    def _processes(self, place: str) -> int:
        """Return how many processes load what is placed there."""
        settings = self._assignment.settings
        if place == INLINE:
            return settings.gateway_replicas if settings.replicas is None else most(settings.replicas)
        if place == SHELF:
            return 1
        owner = next(name for name in self._assignment.slots.own if own_deployment(name) == place)
        return most(settings.stage_of(owner).replicas)


def _builds(family: Family) -> set[str]:
    return {family.build(name) for name in family.names}


def bytes_of(variant: Variant) -> int:
    """Return about how much memory a loaded variant takes: as measured, else twice its artifact."""
    if variant.peak_memory_bytes is not None:
        return max(variant.peak_memory_bytes - _INTERPRETER_BYTES, variant.artifact.bytes)
    return 2 * variant.artifact.bytes
