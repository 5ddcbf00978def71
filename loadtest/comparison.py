"""Several arms of one gateway under the same traffic: how much effort it takes, and what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.run import Summary
from loadtest.search import Capacity, Search


@dataclass(frozen=True)
class Effort:
    """How long the parts of a comparison take; `FULL` is about three minutes for three arms, `QUICK` 30 s.

    Attributes:
        equal_s: measured seconds of one run at the equal rate; longer, up to `longest_equal_s`, where the
            rate is too low for `min_answers` over all repeats of an arm (368 give an interval of p99).
        step_s, search: of the search for capacity. probe_s: of the first look. idle_s: of idle power.
    """

    equal_s: float
    repeats: int
    step_s: float
    warmup_s: float
    probe_s: float
    idle_s: float
    search: Search
    min_answers: int = 0
    longest_equal_s: float = 0.0

    def equal_s_at(self, rate_per_s: float) -> float:
        """Return how long each run at the equal rate is measured."""
        wanted_s = self.min_answers / self.repeats / rate_per_s
        return max(self.equal_s, min(wanted_s, self.longest_equal_s))


FULL = Effort(
    equal_s=6.0, repeats=3, step_s=2.5, warmup_s=0.7, probe_s=1.5, idle_s=3.0,
    search=Search(resolution=0.1, max_steps=7, min_requests=200, confirm=3, confirm_s=3.5, step_downs=6),
    min_answers=400, longest_equal_s=12.0,
)  # fmt: skip
QUICK = Effort(
    equal_s=1.5, repeats=1, step_s=1.0, warmup_s=0.3, probe_s=0.7, idle_s=1.0,
    search=Search(resolution=0.5, max_steps=3, min_requests=60, confirm=0),
)  # fmt: skip


@dataclass(frozen=True)
class ArmRuns:
    """What was measured of one arm.

    Attributes:
        name: for people. model: what was asked of the gateway.
        equal: summaries at the equal rate, one per repeat; `equal_runs` their folders.
        capacity: the search at this arm's own capacity; `capacity_runs` the longer runs at it.
    """

    name: str
    model: str
    equal: tuple[Summary, ...]
    equal_runs: tuple[Path, ...]
    capacity: Capacity

    @property
    def capacity_runs(self) -> tuple[Path, ...]:
        """The folders of the longer runs at capacity."""
        return self.capacity.runs


@dataclass(frozen=True)
class Comparison:
    """Several arms under the same traffic.

    Attributes:
        reference: name of the arm that the others are compared with.
        all_hold: whether every run at the equal rate held the objective.
        idle_watts: power of the idle server, where it reports energy.
    """

    slo_ms: float
    equal_rate_per_s: float
    all_hold: bool
    idle_watts: float | None
    reference: str
    arms: tuple[ArmRuns, ...]

    def arm(self, name: str) -> ArmRuns:
        """Return one arm by name. Raises KeyError."""
        return {arm.name: arm for arm in self.arms}[name]

    def dump(self, base: Path) -> dict[str, Any]:
        """Return the JSON form (`comparison.json`), run folders relative to `base`."""
        return {
            "schema": 1, "slo_ms": self.slo_ms, "equal_rate_per_s": self.equal_rate_per_s,
            "all_hold": self.all_hold, "idle_watts": self.idle_watts, "reference": self.reference,
            "arms": [
                {
                    "name": arm.name,
                    "model": arm.model,
                    "equal_runs": [run.relative_to(base).as_posix() for run in arm.equal_runs],
                    "capacity_runs": [run.relative_to(base).as_posix() for run in arm.capacity_runs],
                    "capacity": arm.capacity.dump(),
                    "steps": [step.dump(base) for step in arm.capacity.steps],
                }
                for arm in self.arms
            ],
        }  # fmt: skip
