"""The teacher's step where the teacher is elsewhere: its answers to the data's texts, read and counted."""

from __future__ import annotations

from compress.datasets.answer_files import ReadAnswers, read_answers
from compress.datasets.data import DATA, read_dataset
from compress.datasets.recorded import RECORDED, Recorded, hash_of, write_recorded
from compress.recipes.data_part import EXTRA, SPLITS, UNLABELLED
from compress.steps import Context, Result
from contract.errors import DataError

LEARNT_FROM = ("train", EXTRA, UNLABELLED)


def record_answers(context: Context) -> Result:
    """Keep the answers to the texts of the data, and say how many texts of each split have one.

    Raises:
        DataError: as `read_answers`; or when no text to learn from has an answer.
    """
    recipe = context.recipe
    part = recipe.teacher.answers
    assert part is not None
    data = read_dataset(context.inputs["data"].file(DATA))
    found = read_answers(part, recipe.data, data.labels, recipe.teacher.labels)
    given = found.recorded.answers
    keys = [hash_of(text) for text in data.texts]
    kept = {key: given[key] for key in keys if key in given}
    counts = {
        name: [sum(keys[row] in kept for row in rows), len(rows)]
        for name in (*SPLITS, EXTRA, UNLABELLED)
        if len(rows := data.rows(name))
    }
    if not any(counts[name][0] for name in LEARNT_FROM if name in counts):
        raise DataError(
            f"none of the {sum(counts[name][1] for name in LEARNT_FROM if name in counts):,} texts to learn "
            f"from has an answer among the {len(given):,} that were read",
            where=part.file or "teacher.answers",
            hint="answers are found by the text itself: it must be written as in the data",
        )
    write_recorded(context.folder / RECORDED, Recorded(data.labels, kept))
    return {
        "answered": counts,
        "max_length": recipe.teacher.max_length,
        "summary": f"{len(kept):,} answers",
        "notes": list(_notes(found, len(kept), counts)),
    }


def _notes(found: ReadAnswers, kept: int, counts: dict[str, list[int]]) -> list[str]:
    """Return what a person should know of the answers that there are, and of those that there are not."""
    silent = [f"{of - n:,} of {of:,} in {name}" for name, (n, of) in counts.items() if n < of]
    notes = [f"texts without an answer: {', '.join(silent)}"] if silent else []
    strangers = len(found.recorded.answers) - kept
    if strangers:
        notes.append(f"{strangers:,} answers to texts that are not in the data left out")
    if found.empty:
        notes.append(f"{found.empty:,} rows have an empty answer")
    if found.repeated > found.contradicting:
        notes.append(f"{found.repeated - found.contradicting:,} rows repeat the answer to their text")
    if found.contradicting:
        notes.append(f"{found.contradicting:,} rows contradict an earlier answer to their text")
    return notes
