"""The data of a recipe whose teacher was asked: rows with an answer, labelled by it where nobody else did."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from compress.datasets.data import DATA, read_dataset, write_dataset
from compress.datasets.recorded import RECORDED, read_recorded
from compress.recipes.data_part import SPLITS
from compress.steps import Context, Result
from contract.errors import DataError

# What the figures of a family come from: the teacher is one of its variants, and answers every row.
HELD_OUT = SPLITS[1:]


def keep_answered(context: Context) -> Result:
    """Leave out held-out rows without an answer of the teacher; without labels, all rows, and take its own.

    Raises:
        DataError: nothing is left of a split, or the teacher names one label alone.
    """
    texts = context.inputs["texts"]
    data = read_dataset(texts.file(DATA))
    logits = read_recorded(context.inputs["teacher"].file(RECORDED)).of(data.texts)
    there = ~np.isnan(logits[:, 0])
    bare = context.recipe.data.label is None
    held = np.isin(np.array(data.split), HELD_OUT)
    kept = np.flatnonzero(there if bare else there | ~held)
    found = data.take(kept)
    if bare:
        said = np.nan_to_num(logits[kept]).argmax(1)
        found = replace(found, label=tuple(data.labels[index] for index in said))
    for name in SPLITS:
        if not len(found.rows(name)):
            raise DataError(
                f"the teacher answered none of the {len(data.rows(name)):,} texts of {name!r}",
                where="teacher.remote",
                hint="give more texts, or see what it answered: the notes of the step before",
            )
    if len(set(found.of("train").label)) < 2:
        raise DataError(
            f"the teacher names the label {found.of('train').label[0]!r} alone: there is nothing to learn",
            where="teacher.remote",
            hint="look at teacher.remote.instructions and labels",
        )
    write_dataset(context.folder / DATA, found)
    left = {name: len(data.rows(name)) - len(found.rows(name)) for name in SPLITS}
    told = ", ".join(f"{count:,} in {name}" for name, count in left.items() if count)
    return {
        **{key: value for key, value in texts.result.items() if key.startswith("removed_")},
        "labels": list(found.labels),
        "splits": {name: record.n for name, record in found.records().items()},
        "sha256": found.sha256,
        "notes": [f"left out for want of an answer: {told}"] if told else [],
    }
