"""The first step: the recipe's data, read, checked and divided."""

from __future__ import annotations

from compress.datasets.data import DATA, write_dataset
from compress.datasets.loading import load_data
from compress.steps import Context, Result
from tables.notes import absence_note


def prepare_data(context: Context) -> Result:
    """Read, check and divide the data. Raises DataError, EnvironmentProblem."""
    data = load_data(context.recipe.data, seed=context.recipe.seed)
    write_dataset(context.folder / DATA, data)
    absent = absence_note(data.label)
    return {
        "labels": list(data.labels),
        "removed_duplicates": data.removed,
        "removed_after_cut": data.removed_after_cut,
        "removed_in_conflict": data.removed_in_conflict,
        "splits": {name: record.n for name, record in data.records().items()},
        "sha256": data.sha256,
        "notes": [] if absent is None else [absent],
    }
