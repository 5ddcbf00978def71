"""A teacher of which only answers are known: what it said on the test split, and who stands in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compress.datasets.data import Dataset
from compress.datasets.recorded import RECORDED, read_recorded
from compress.lineage import TWIN, lineages_of
from compress.recipes.recipe import Recipe
from compress.store import Finished
from contract.errors import RecipeError
from contract.formulas import wilson_interval
from contract.heard import Agreement, HeardTeacher

SILENT = -1
# Probabilities that are closer are one: which label would be named is then up to rounding.
TIE = 1e-6
# Costs that differ by less are one: two measurements of one variant do.
NOISE = 0.2


@dataclass(frozen=True)
class Heard:
    """What it said of the N test texts: class indices [N], -1 where it named no label; and its record."""

    said: NDArray[np.int64]
    record: HeardTeacher

    def agreement_of(self, said: NDArray[np.int64]) -> Agreement | None:
        """Return how often a variant says [N] the same; None where nothing was answered."""
        answered = self.said != SILENT
        n, same = int(answered.sum()), int((said == self.said)[answered].sum())
        return Agreement(n=n, share=same / n, interval=wilson_interval(same, n)) if n else None


def hear(teacher: Finished, test: Dataset, elected: str = "") -> Heard:
    """Return what the answers of a finished step say of the test split.

    An answer whose two likeliest labels are alike names neither, and counts as none.

    Args:
        teacher: the step that read the answers.
        test: labelled texts.
        elected: how the variant in its place was chosen, in words.
    """
    logits = read_recorded(teacher.file(RECORDED)).of(test.texts)
    there = ~np.isnan(logits[:, 0])
    answered = there & ~_tied(np.nan_to_num(logits))
    ties = int((there & ~answered).sum())
    notes = [elected] if elected else []
    notes += [f"answers to {ties:,} test texts have two likeliest labels and count as none"] if ties else []
    said = np.where(answered, np.nan_to_num(logits).argmax(1), SILENT).astype(np.int64)
    n, right = int(answered.sum()), int((said == test.targets)[answered].sum())
    record = HeardTeacher(
        name=teacher.step,
        answered=teacher.result["answered"],
        n=n,
        accuracy=right / n if n else None,
        accuracy_interval=wilson_interval(right, n) if n else None,
        deltas=n == len(test),
        notes=(*teacher.result["notes"], *notes),
    )
    return Heard(said, record)


def _tied(logits: NDArray[np.float32]) -> NDArray[np.bool_]:
    second, first = np.exp(np.sort(logits.astype(np.float64), axis=1)[:, -2:].T)
    found: NDArray[np.bool_] = first - second < TIE
    return found


def reference_of(recipe: Recipe, done: Sequence[str], finished: Mapping[str, Finished]) -> tuple[str, str]:
    """Return the variant that everything is compared with: the teacher, else what stands in its place.

    That is the variant that the recipe names, or the dearest by its measurement: labels play no part in the
    choice. Among those that cost as much, up to what measurements differ by, it is the one whose file is the
    largest. Students trained from scratch for comparison are not considered.

    Returns:
        Its name, and how it was chosen in words; none where nothing was to choose.

    Raises:
        RecipeError: when it has not been measured.
    """
    named = recipe.teacher.reference if recipe.teacher.only_heard else recipe.teacher.name
    lineages = lineages_of(recipe)
    able = [name for name in done if named is None or name == named]
    able = [name for name in able if lineages[name].technique != TWIN or named is not None]
    if not able:
        missing = "no variant is measured that could stand in the teacher's place"
        raise RecipeError(
            missing if named is None else f"the reference {named!r} is not measured yet",
            hint="sluice compress without --only",
        )
    if len(able) == 1:
        return able[0], ""
    costs = {name: float(finished[f"{name}.measure"].result["usd_per_1k"] or 0.0) for name in able}
    most = max(costs.values())
    alike = [name for name in able if costs[name] >= (1 - NOISE) * most]
    elected = max(alike, key=lambda name: _bytes(finished.get(f"{name}.export") or finished[name]))
    others = {name: cost for name, cost in costs.items() if name != elected}
    near = max(others, key=lambda name: others[name])
    if len(alike) > 1:
        why = f"it is the largest of {', '.join(alike)}, whose costs are within {NOISE:.0%}"
    else:
        why = f"it is the dearest; {near} costs {1 - costs[near] / most:.0%} less"
    return elected, f"{elected} stands in the teacher's place: {why}"


def _bytes(made: Finished) -> int:
    return made.file(str(made.result["artifact"])).stat().st_size
