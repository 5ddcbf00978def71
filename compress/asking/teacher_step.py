"""The teacher's step where it stands behind HTTP: its answers to the data's texts, asked for and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compress.asking.figures import latency_of, measured_of, untold_note, usd_per_1k_of
from compress.asking.outlook import Outlook, in_usd, listed, outlook_of
from compress.datasets.data import DATA, Dataset, read_dataset
from compress.datasets.recorded import RECORDED, Recorded, hash_of, write_recorded
from compress.recipes.data_part import EXTRA, SPLITS, UNLABELLED
from compress.recipes.remote_part import RemotePart
from compress.steps import Context, Result
from contract.errors import SluiceError
from contract.files import write_json
from contract.heard import AskedTeacher
from runtime.remote.answered import FLOOR
from runtime.remote.asking import Asked, ask_texts
from runtime.remote.kept import Kept, KeptAnswers
from runtime.remote.record import REMOTE_ENCODER

REMOTE = "remote.json"
REASONS = 20


def ask_teacher(context: Context) -> Result:
    """Ask for the answers that are missing, and keep all of them as the step's result.

    What has been answered stays in the recipe's cache, however the step ends.

    Raises:
        RecipeError, DataError: as `outlook_of`.
        EnvironmentProblem: no key, or answers cannot be kept.
        SluiceError: the money is spent, the endpoint fails, or no text has an answer.
    """
    part = context.recipe.teacher.remote
    assert part is not None
    data = read_dataset(context.inputs["data"].file(DATA))
    outlook = outlook_of(context.recipe, data)
    context.tell(outlook.in_words)
    asked = None
    if outlook.to_ask:
        asked = _ask(context, outlook, data.labels)
        if asked.examples:
            context.tell(f"it names no label that was offered, but {', '.join(map(repr, asked.examples))}")
        _require_end(asked, context.recipe.teacher.name, outlook_of(context.recipe, data))
    with KeptAnswers(Path(part.cache), part.served, data.labels) as cache:
        found = {text: cache.get(text) for text in outlook.open}
        spent = sum(map(cache.spent, outlook.open))
    kept = {text: one for text, one in found.items() if one is not None}
    answers = {
        hash_of(text): logits for text, one in kept.items()
        if (logits := logits_of(one, len(data.labels), part.certainty)) is not None
    }  # fmt: skip
    answers |= {
        key: outlook.given.answers[key]
        for text in outlook.texts
        if (key := hash_of(text)) in outlook.given.answers
    }
    if not answers:
        raise SluiceError(
            "teacher.remote: no text has an answer",
            hint=None if part.ask else "teacher.remote.ask: true",
        )
    write_recorded(context.folder / RECORDED, Recorded(data.labels, answers))
    write_json(context.folder / REMOTE, part.served.dump())
    replies = [*kept.values()]
    record = _record(part, data, outlook, replies, asked.errors if asked else {}, answers, spent)
    calls, failures = (asked.calls, asked.failures) if asked else (0, {})
    measured = measured_of(replies, len(outlook.open), calls, {str(k): n for k, n in failures.items()}, spent)
    return {
        "artifact": REMOTE,
        "runtime": "remote",
        "precision": "fp32",
        "batching": "batched",
        "encoder": REMOTE_ENCODER.model_dump(mode="json"),
        "max_length": context.recipe.teacher.max_length,
        "answered": record.answered,
        "usd": record.usd,
        "usd_per_1k": usd_per_1k_of(part, replies),
        "latency": latency_of(replies),
        "remote": None if measured is None else measured.model_dump(mode="json"),
        "summary": f"{len(answers):,} answers, {in_usd(record.usd)} USD",
        "notes": [*_notes(record, part), *untold_note(part, replies)],
        "asked": record.model_dump(mode="json"),
    }


def logits_of(answer: Kept, classes: int, certainty: float) -> NDArray[np.float32] | None:
    """Return an answer as logits [C] whose softmax are its probabilities; None where it names no label.

    Args:
        answer: of the teacher.
        classes: how many labels there are.
        certainty: probability of its label where it tells none; the others share the rest.
    """
    if answer.label is None:
        return None
    if answer.probabilities is not None:
        shares = np.array(answer.probabilities, dtype=np.float64)
    else:
        shares = np.full(classes, (1 - certainty) / (classes - 1))
        shares[answer.label] = certainty
    found: NDArray[np.float32] = np.log(np.maximum(shares, FLOOR)).astype(np.float32)
    return found


def _ask(context: Context, outlook: Outlook, labels: tuple[str, ...]) -> Asked:
    part = outlook.part

    def progress(done: int, of: int, usd: float) -> None:
        context.update(done / max(1, of), f"{done:,} of {of:,} answered, {in_usd(usd)} USD")

    return ask_texts(
        part.served,
        labels,
        outlook.open,
        Path(part.cache),
        max_usd=part.max_usd,
        most_errors=int(part.errors * len(outlook.texts)),
        progress=progress,
    )


def _require_end(asked: Asked, name: str, after: Outlook) -> None:
    """Raise SluiceError where asking stopped before its end."""
    if asked.stopped is None:
        return
    there, missing = len(after.texts) - after.to_ask, after.to_ask
    errors = f" ({listed(asked.errors)})" if asked.errors else ""
    whole = f"{asked.stopped}{errors}; {there:,} of {len(after.texts):,} texts have an answer, which is kept"
    if asked.capped:
        raise SluiceError(
            f"{name}: teacher.remote.max_usd: {whole}",
            hint=f"max_usd: {in_usd(after.cost.usd_spent + after.cost.most_usd)} is enough for all, and only "
            f"the {missing:,} missing are asked; or go on with what is there: teacher.remote.ask: false",
        )
    raise SluiceError(
        f"{name}: {whole}",
        hint="mend it and run the same command again: only what is missing is asked. "
        "teacher.remote.errors is the share of texts that may stay without a reply",
    )


def _record(
    part: RemotePart,
    data: Dataset,
    outlook: Outlook,
    kept: Sequence[Kept],
    errors: Mapping[str, int],
    answers: Mapping[bytes, NDArray[np.float32]],
    spent: float,
) -> AskedTeacher:
    keys = [hash_of(text) for text in data.texts]
    return AskedTeacher(
        form=part.form,
        url=part.url,
        model=part.model,
        question_sha256=part.served.identity(data.labels),
        answered={
            name: (sum(keys[row] in answers for row in rows), len(rows))
            for name in (*SPLITS, EXTRA, UNLABELLED)
            if len(rows := data.rows(name))
        },
        given=len(outlook.texts) - len(outlook.open),
        soft=sum(one.probabilities is not None for one in kept),
        declined=_most_frequent(Counter(one.reason for one in kept if one.label is None)),
        errors=_most_frequent(Counter(errors)),
        usd=round(sum(one.usd for one in kept) + spent, 12),
        seconds=round(sum(one.seconds for one in kept), 3),
    )


def _most_frequent(reasons: Counter[str]) -> dict[str, int]:
    """Return the most frequent reasons with their counts, the others under one name."""
    ranked = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in ranked[REASONS:])
    return dict(ranked[:REASONS]) | ({"other": rest} if rest else {})


def _notes(record: AskedTeacher, part: RemotePart) -> list[str]:
    """Return what a person should know of the answers that there are, and of those that there are not."""
    silent = [f"{of - n:,} of {of:,} in {name}" for name, (n, of) in record.answered.items() if n < of]
    notes = [f"texts without an answer: {', '.join(silent)}"] if silent else []
    if record.declined:
        notes.append(f"no label: {listed(record.declined)}")
    if record.errors:
        notes.append(f"no reply: {listed(record.errors)}")
    hard = sum(n for n, _ in record.answered.values()) - record.given - record.soft
    if hard > 0:
        notes.append(f"{hard:,} answers are labels without probabilities")
    if record.seconds and part.max_concurrency > 1:
        notes.append(f"its latency is of replies of which up to {part.max_concurrency} were out at a time")
    return notes
