"""A teacher of which only answers are known: what it said on the test split, and who stands in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compress.datasets.data import Dataset
from compress.datasets.recorded import RECORDED, read_recorded
from compress.origins import TWIN, origins_of
from compress.recipes.recipe import Recipe
from compress.store import Finished
from contract.errors import RecipeError
from contract.formulas import wilson_interval
from contract.heard import Agreement, HeardTeacher

SILENT = -1


@dataclass(frozen=True)
class Heard:
    """What it said of the N test texts: class indices [N], -1 where it has no answer; and its record."""

    said: NDArray[np.int64]
    record: HeardTeacher

    def agreement_of(self, said: NDArray[np.int64]) -> Agreement | None:
        """Return how often a variant says [N] the same; None where nothing was answered."""
        answered = self.said != SILENT
        n, same = int(answered.sum()), int((said == self.said)[answered].sum())
        return Agreement(n=n, share=same / n, interval=wilson_interval(same, n)) if n else None


def hear(teacher: Finished, test: Dataset) -> Heard:
    """Return what the answers of a finished step say of the test split."""
    logits = read_recorded(teacher.file(RECORDED)).of(test.texts)
    answered = ~np.isnan(logits[:, 0])
    said = np.where(answered, np.nan_to_num(logits).argmax(1), SILENT).astype(np.int64)
    n, right = int(answered.sum()), int((said == test.targets)[answered].sum())
    record = HeardTeacher(
        name=teacher.step,
        answered=teacher.result["answered"],
        n=n,
        accuracy=right / n if n else None,
        accuracy_interval=wilson_interval(right, n) if n else None,
        deltas=n == len(test),
        notes=tuple(teacher.result["notes"]),
    )
    return Heard(said, record)


def reference_of(recipe: Recipe, done: Sequence[str], finished: Mapping[str, Finished]) -> str:
    """Return the variant that everything is compared with: the teacher, else what stands in its place.

    That is the variant that the recipe names, or the dearest by its measurement: labels play no part in the
    choice. Students trained from scratch for comparison are not considered.

    Raises:
        RecipeError: when it has not been measured.
    """
    named = recipe.teacher.reference if recipe.teacher.answers is not None else recipe.teacher.name
    origins = origins_of(recipe)
    able = [name for name in done if named is None or name == named]
    able = [name for name in able if origins[name].technique != TWIN or named is not None]
    if not able:
        missing = "no variant is measured that could stand in the teacher's place"
        raise RecipeError(
            missing if named is None else f"the reference {named!r} is not measured yet",
            hint="sluice compress without --only",
        )
    return max(able, key=lambda name: float(finished[f"{name}.measure"].result["usd_per_1k"] or 0.0))
