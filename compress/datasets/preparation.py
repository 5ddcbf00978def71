"""The first step: the recipe's data, read, checked and divided."""

from __future__ import annotations

from compress.datasets.data import DATA, Dataset, write_dataset
from compress.datasets.loading import load_data
from compress.datasets.without_labels import load_texts
from compress.recipes.data_part import SPLITS
from compress.recipes.recipe import Recipe
from compress.steps import Context, Result
from contract.errors import DataError
from tables.notes import absence_note, lone_labels_note


def prepare_data(context: Context) -> Result:
    """Read, check and divide the data. Raises DataError, EnvironmentProblem."""
    data = data_of(context.recipe)
    write_dataset(context.folder / DATA, data)
    return {
        "labels": list(data.labels),
        "removed_duplicates": data.removed,
        "removed_after_cut": data.removed_after_cut,
        "removed_in_conflict": data.removed_in_conflict,
        "splits": {name: record.n for name, record in data.records().items()},
        "sha256": data.sha256,
        "notes": notes_of(data) if context.recipe.data.label is not None else [],
    }


def data_of(recipe: Recipe) -> Dataset:
    """Return the data of a recipe; without labels where it has none. Raises as `prepare_data`."""
    remote = recipe.teacher.remote
    if recipe.data.label is None and remote is not None:
        return load_texts(recipe.data, sorted(remote.labels), seed=recipe.seed)
    try:
        return load_data(recipe.data, seed=recipe.seed)
    except DataError as problem:
        if remote is not None and problem.rule == f"there is no column {recipe.data.label!r}":
            hint = f"data.label: null where nobody has labelled the texts; {problem.hint}"
            raise DataError(problem.rule, where=problem.where, hint=hint) from None
        raise


def notes_of(data: Dataset) -> list[str]:
    """Return what a user should know of the labels of the data."""
    splits: dict[str, set[str]] = {}
    for label, split in zip(data.label, data.split, strict=True):
        if split in SPLITS:
            splits.setdefault(label, set()).add(split)
    return [note for note in (absence_note(data.label), lone_labels_note(splits)) if note is not None]
