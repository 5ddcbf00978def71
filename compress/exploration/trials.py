"""Candidates as steps: each shape is trained briefly once, for all precisions, and never again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from compress.exploration.genome import Candidate, Shape, TeacherSize, quantize_part, short_part, trial_name
from compress.exploration.pareto import Point
from compress.pipeline import Run
from compress.plan import DATA_STEP
from compress.recipes.parts import VariantPart
from compress.recipes.search_part import SearchPart
from compress.steps import Step
from compress.store import Finished
from contract.errors import FamilyError, RecipeError
from contract.files import read_json

# Of timing a candidate and the teacher in turns; there are many candidates.
TIMED_S = 2.0


def teacher_size(teacher: Finished) -> TeacherSize:
    """Return the size of a finished teacher. Raises RecipeError when it is not a transformer."""
    raw = read_json(teacher.folder / "architecture.json", error=FamilyError)
    layers = raw.get("layers")
    if raw.get("network") != "bert" or not layers:
        raise RecipeError(
            "the search needs a transformer as teacher", hint="sluice compress without --search"
        )
    return TeacherSize(
        depth=len(layers),
        heads=max(int(layer["heads"]) for layer in layers),
        neurons=max(int(layer["neurons"]) for layer in layers),
        hidden=int(raw["hidden"]),
    )


@dataclass(frozen=True)
class Rates:
    """What the teacher's measurement says of this machine.

    Attributes:
        latency_ms: p50 of the teacher, one text alone.
        cpu_seconds_per_1k: of the teacher.
        energy_per_cpu_second: Wh; 1 where the watts are unknown, so that energy is counted in CPU-seconds.
        unit: of energy.
    """

    latency_ms: float
    cpu_seconds_per_1k: float
    energy_per_cpu_second: float
    unit: Literal["energy_wh_per_1k", "cpu_seconds_per_1k"]

    @classmethod
    def of(cls, measured: Mapping[str, Any]) -> Rates:
        """Return the rates of a finished measurement."""
        latency = float(measured["latency"][0]["p50_ms"])
        cpu_seconds, energy = float(measured["cpu_seconds_per_1k"]), measured["energy_wh_per_1k"]
        if energy is None or cpu_seconds <= 0:
            return cls(latency, cpu_seconds, 1.0, "cpu_seconds_per_1k")
        return cls(latency, cpu_seconds, energy / cpu_seconds, "energy_wh_per_1k")

    def point(self, accuracy: float, time_ratio: float = 1.0, cpu_ratio: float = 1.0) -> Point:
        """Return what something of an accuracy costs, given what it costs as a share of the teacher."""
        cpu_seconds = cpu_ratio * self.cpu_seconds_per_1k
        return Point(accuracy, time_ratio * self.latency_ms, cpu_seconds * self.energy_per_cpu_second)


@dataclass
class Trials:
    """Evaluates candidates by short trainings.

    Attributes:
        run: has the teacher and its measurement finished.
        part: how to train.
        size: of the teacher.
        rates: turn ratios to the teacher into latency and energy.
        points: what each candidate gave and cost, by variant name.
        candidates: by variant name.
        failed: why a candidate could not be made, by variant name.
        seconds: spent so far, whenever it was.
    """

    run: Run
    part: SearchPart
    size: TeacherSize
    rates: Rates
    points: dict[str, Point] = field(default_factory=dict)
    candidates: dict[str, Candidate] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    _known: set[Shape] = field(default_factory=set)

    def __call__(self, candidate: Candidate) -> Point | None:
        """Return what a candidate gives and costs, None if it cannot be made."""
        if candidate.shape not in self._known:
            self._known.add(candidate.shape)
            self._try(candidate.shape)
        return self.points.get(candidate.name)

    def _try(self, shape: Shape) -> None:
        finished = self.run.make(self._step(shape))
        self.seconds += finished.cost["seconds"]
        for precision, found in finished.result["precisions"].items():
            candidate = Candidate(shape, precision)
            if "failed" in found:
                self.failed[candidate.name] = found["failed"]
                continue
            self.candidates[candidate.name] = candidate
            self.points[candidate.name] = self.rates.point(
                found["accuracy"], found["time_ratio"], found["cpu_ratio"]
            )

    def _step(self, shape: Shape) -> Step:
        recipe, teacher = self.run.recipe, self.run.recipe.teacher.name
        short = short_part(shape, self.size, self.part, parent=teacher)
        parts: dict[str, list[Any]] = {}
        for precision in dict.fromkeys(self.part.space.precisions):
            lower = quantize_part(Candidate(shape, precision), parent=short.name)
            made: list[VariantPart] = [short] if lower is None else [short, lower]
            parts[precision] = [one.model_dump(mode="json") for one in made]
        target = {**recipe.target.for_choices(), "seconds": min(recipe.target.seconds, TIMED_S)}
        when = f"{self.seconds / 60:.0f} of {self.part.minutes:g} minutes"
        return Step(
            trial_name(shape),
            "candidate",
            f"candidate {len(self._known)} ({when}): {shape.name}",
            {"parts": parts, "target": target, "seed": recipe.seed},
            {"data": DATA_STEP, "parent": teacher, "reference": f"{teacher}.export"},
        )
