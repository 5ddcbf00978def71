"""The goals: for each the variant that validation chooses, and what the test split says of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.compression.evidence import Line, Seed, compare

Among = Callable[[str], bool]


@dataclass(frozen=True)
class Goal:
    """So many times as fast as the base at so small a drop (fractions), or so accurate.

    Attributes:
        title: for the table.
        among: which variants may answer it, by name.
        base: what speed and drop are against.
        times: least speed-up.
        drop: largest drop on the test split.
        accuracy: least accuracy on the test split.
        latency_ms: largest p50.
    """

    title: str
    among: Among
    base: str
    times: float = 0.0
    drop: float | None = None
    accuracy: float | None = None
    latency_ms: float | None = None


@dataclass(frozen=True)
class Answer:
    """The most accurate variant on validation that is fast enough, and whether it holds the goal on test."""

    goal: Goal
    line: Line | None

    @property
    def held(self) -> bool:
        """Whether every figure of the goal is true of the test split."""
        goal, line = self.goal, self.line
        if line is None:
            return False
        return (
            (goal.drop is None or line.drop <= goal.drop)
            and (goal.accuracy is None or line.accuracy >= goal.accuracy)
            and (goal.latency_ms is None or line.p50_ms <= goal.latency_ms)
        )


def answer(goal: Goal, seeds: Sequence[Seed]) -> Answer:
    """Return the variant that validation chooses for a goal; None where none is fast enough."""
    names = [name for name in seeds[0].family.names if goal.among(name)]
    lines = [compare(seeds, name, goal.base) for name in names]
    fast = [line for line in lines if line.speed_up >= goal.times]
    return Answer(goal, max(fast, key=lambda line: line.validation, default=None))


def _any(_: str) -> bool:
    return True


def is_int8(name: str) -> bool:
    """Whether a variant of the recipe is an INT8 copy."""
    return name.endswith(("-int8", "-static", "-qat"))


def goals(teacher: str, teacher_int8: str, pruned: str, distilled: str) -> tuple[Goal, ...]:
    """Return the goals of the recipe.

    Args:
        teacher, teacher_int8: variants that are compared with.
        pruned, distilled: what names begin with of networks pruned from the teacher, and from its student.
    """
    quantized = teacher_int8.partition("-")[0]

    def int8_of(*starts: str) -> Among:
        return lambda name: name.startswith(starts) and is_int8(name)

    either, alone = int8_of(pruned, distilled), int8_of(pruned)
    return (
        Goal("teacher", lambda name: name == teacher, teacher, accuracy=0.95),
        Goal("INT8 of the teacher", int8_of(quantized), teacher, times=1.9, drop=0.002),
        Goal("pruned, at INT8", either, teacher_int8, times=2, drop=0.005),
        Goal("pruned, at INT8", either, teacher_int8, times=4, drop=0.015),
        Goal("the same, all layers kept", alone, teacher_int8, times=4, drop=0.015),
        Goal("all techniques", _any, teacher, times=6, drop=0.006),
        Goal("all techniques", _any, teacher, times=12, drop=0.015),
        Goal("light stage", _any, teacher, times=50, accuracy=0.925, latency_ms=0.1),
    )
