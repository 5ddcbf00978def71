"""From settings and a family folder to stages that answer: what gateway replicas and stage replicas share."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pydantic import Field

import serve
from contract.errors import EnvironmentProblem, PolicyError
from contract.family import Family
from contract.live import Revision
from contract.machine import Provider
from contract.policy import Policy, check_policy_fits
from router.decide.cascade import compile_policy
from runtime.load import load_variant
from runtime.machine import core_count
from serve.settings.gateway import Settings
from serve.settings.record import Setting
from serve.settings.slots import Slots, place_guest, union_of
from serve.stages.breaker import INCIDENT, Breaker
from serve.stages.http import HttpStage, load_http_stage
from serve.stages.inline import InlineStage
from serve.stages.loop_turn import LoopTurn
from serve.types.recorder import Recorder
from serve.types.stage import CompiledGear, Snapshot, Stage

_AT_ONCE_MS = 1.0
"""Variants measured below this are run by the event loop where it is idle: a thread would answer later."""
_LOOP_MS = 0.3
"""Variants measured below this never leave the loop: handing over would cost as much again."""


class Started(Setting):
    """A family that is in force when a run starts.

    Attributes:
        folder: where it is on the launcher's machine.
        slots: where its variants run.
        otherwise: says in words what is other about the answers of variants on the launcher's machine.
    """

    folder: str
    slots: Slots
    otherwise: dict[str, str] = Field(default_factory=dict)


class Assignment(Setting):
    """What the launcher tells every process of a run: `families` by the names that they are served under."""

    settings: Settings
    families: dict[str, Started]
    state: str
    package: str

    @property
    def slots(self) -> Slots:
        """The slots of all families, whose deployments a run has."""
        slots = (started.slots for started in self.families.values())
        return union_of(slots, for_guests=self.settings.may_be_empty)

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where the families are on the launcher's machine."""
        return tuple(Path(started.folder) for started in self.families.values())

    def place(self, family: Family, served: str) -> dict[str, str]:
        """Return where each variant of a family runs, served under that name. Raises FamilyError.

        See Slots.place, and place_guest for a family that has come since the start.
        """
        started = self.families.get(served)
        if started is None:
            return place_guest(family, self.settings, self.slots.deployments)
        return started.slots.place(family, self.settings)

    def check_package(self) -> None:
        """Raise EnvironmentProblem unless `serve` is the launcher's own package in this process too."""
        found = package_folder()
        if found != self.package:
            raise EnvironmentProblem(
                f"the package `serve` resolves to {found}, not to {self.package}",
                hint="remove the folder named `serve` from PYTHONPATH or from the working directory",
            )


def package_folder() -> str:
    """Return the folder of the package `serve` as this process sees it."""
    return str(Path(next(iter(serve.__path__))).resolve())


def load_stage(
    settings: Settings,
    folder: Path,
    family: Family,
    name: str,
    recorder: Recorder,
    provider: Provider,
    turn: LoopTurn | None = None,
    *,
    guarded: bool = False,
    served: str = "",
) -> InlineStage:
    """Load one variant, answer one text with it, and put it behind its micro-batcher.

    Whether it runs on the event loop is decided by what one text takes, unless the settings say it. Under
    load it goes on there if it is far below a millisecond, or if the processes that answer leave no core
    idle that a thread could use. Raises as `runtime.load.load_variant`.

    `guarded` puts it behind a breaker too: where requests come in, not where a gateway with its own asks.
    `served` is the name that the family is served under.
    """
    own = settings.stage_of(name)
    loaded = load_variant(folder, family, name, provider=provider, threads=own.threads)
    rules = own.batch
    at_once = rules.run_in == "loop"
    if family.variant(name).runtime != "fake":
        usual = [loaded.encoder.example]
        loaded.logits(usual)
        if rules.run_in == "auto":
            took_ms = quickest_ms(lambda: loaded.logits(usual))
            at_once = took_ms < _AT_ONCE_MS
            no_core_idle = settings.gateway_replicas >= core_count()
            if took_ms < _LOOP_MS or (at_once and no_core_idle):
                rules = rules.model_copy(update={"run_in": "loop"})
    breaker = None
    if guarded:
        breaker = Breaker(name, own.breaker, lambda state: recorder.incident(INCIDENT[state], name))
    share = (turn or LoopTurn()) if at_once else None
    return InlineStage(loaded, rules, recorder, breaker=breaker, turn=share, family=served)


def load_here(
    settings: Settings,
    folder: Path,
    family: Family,
    name: str,
    recorder: Recorder,
    turn: LoopTurn,
    *,
    served: str = "",
) -> InlineStage | HttpStage:
    """Load a variant into a gateway replica: one that runs there, or one that is asked from there.

    Raises as `load_stage`.
    """
    if family.variant(name).runtime == "remote":
        return load_http_stage(settings, folder, family, name, recorder, served=served)
    return load_stage(settings, folder, family, name, recorder, "cpu", turn, guarded=True, served=served)


def quickest_ms(
    call: Callable[[], object], calls: int = 10, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Return the least time that a call takes: other work on the machine only ever adds to it."""
    found = math.inf
    for _ in range(calls):
        started = clock()
        call()
        found = min(found, clock() - started)
    return found * 1e3


def make_snapshot(revision: Revision, family: Family, stages: Mapping[str, Stage]) -> Snapshot:
    """Compile a revision against what is loaded. Raises PolicyError when it does not fit."""
    if revision.family_sha256 != family.sha256:
        raise PolicyError(
            f"revision {revision.number} is for another family ({revision.family_sha256[:12]}…)"
        )
    check_policy_fits(revision.policy, family)
    policy = revision.policy
    return Snapshot(
        revision=revision.number,
        policy=policy,
        compiled=compile_policy(policy, family.labels),
        family=family,
        stages=stages,
        gears=compile_gears(policy, family.labels),
        gear=revision.gear,
    )


def compile_gears(policy: Policy, labels: Sequence[str]) -> tuple[CompiledGear, ...]:
    """Return each gear of a policy, compiled. Raises PolicyError."""
    return tuple(
        CompiledGear(gear, compile_policy(policy.in_gear(gear.name), labels)) for gear in policy.gears
    )
