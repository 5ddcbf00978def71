"""What the steps that train models over n-grams share: texts, answers, and the best of several trainings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from compress.datasets.data import DATA, Dataset, read_dataset
from compress.learning.linear import LinearSettings, NgramRows
from compress.recipes.data_part import EXTRA
from compress.recipes.parts import NgramPart
from compress.steps import Context, Result
from router.tune.calibrate import fit_temperature
from runtime.api import Logits, Runtime
from runtime.ngrams.encoder import NgramEncoder, NgramOptions, ngram_spec

SOFT_WEIGHT = 0.9
S = TypeVar("S", bound=LinearSettings)
M = TypeVar("M")


@dataclass(frozen=True)
class Lesson:
    """What one training learns from.

    Attributes:
        rows: N texts as the model sees them.
        targets: [N] class indices; -1 where only the teacher's answer counts.
        classes: C.
        seed: of the recipe.
        answers: [N, C] logits of the teacher; None in a training on labels alone.
    """

    rows: NgramRows
    targets: NDArray[np.int64]
    classes: int
    seed: int
    answers: NDArray[np.float32] | None


def settings_to_try(part: NgramPart, make: Callable[[float, float], S]) -> Sequence[S]:
    """Return settings of labels alone and, with a parent, of every temperature of its answers.

    Args:
        part: of the recipe.
        make: takes the share of the loss that the parent's answers make, and their temperature.
    """
    soft = () if part.parent is None else part.temperatures
    return [make(0.0, 1.0), *(make(SOFT_WEIGHT, temperature) for temperature in soft)]


def best_of(
    context: Context,
    part: NgramPart,
    tries: Sequence[S],
    train: Callable[[Lesson, S], M],
    answer: Callable[[M], Runtime],
) -> tuple[M, Result]:
    """Train with all settings and return the model that is best on validation, and what the step tells.

    The best has the highest accuracy, and of equal ones the lowest log loss once its temperature is fitted.
    With a parent the unlabelled texts, and altered copies where the part asks for them, are learnt from its
    answers.

    Args:
        context: of the step.
        part: of the recipe.
        tries: settings, the first of labels alone.
        train: makes a model.
        answer: makes the runtime that serves it.
    """
    data = read_dataset(context.inputs["data"].file(DATA))
    validation = data.of("validation")
    options = NgramOptions(
        word_orders=part.word_orders,
        shortest=part.shortest,
        longest=part.longest,
        bits=part.bits,
        max_characters=part.max_characters,
    )
    texts, targets, answers = _taught(context, data, part)
    rows = NgramRows.of(texts, options, min_documents=tries[0].min_documents)
    encoded = NgramEncoder(options).encode(validation.texts)
    best: tuple[float, float, S, M] | None = None
    for number, settings in enumerate(tries):
        said = f"temperature {settings.temperature:g}" if settings.soft_weight else "labels alone"
        context.update(number / len(tries), said)
        heard = answers if settings.soft_weight else None
        model = train(Lesson(rows, targets, len(data.labels), context.recipe.seed, heard), settings)
        logits = answer(model).logits(encoded)
        accuracy = float((logits.argmax(1) == validation.targets).mean())
        loss = _log_loss(logits, validation.targets)
        if best is None or (accuracy, -loss) > best[:2]:
            best = (accuracy, -loss, settings, model)
    assert best is not None
    _, _, kept, model = best
    return model, {
        "batching": "batched",
        "soft_weight": kept.soft_weight,
        "soft_temperature": kept.temperature if kept.soft_weight else None,
        "taught_texts": len(texts),
        "encoder": ngram_spec(options).model_dump(mode="json"),
    }


def _taught(
    context: Context, data: Dataset, part: NgramPart
) -> tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.float32] | None]:
    """Return texts, targets, and with a parent its answers."""
    if "parent" not in context.inputs:
        train = data.of("train", *([EXTRA] if part.extra else []))
        return train.texts, train.targets, None
    from compress.learning.transfer_set import prepare_transfer_set

    transfer = prepare_transfer_set(context, context.inputs["parent"], part, precision="auto")
    return transfer.texts, transfer.targets, transfer.answers


def _log_loss(logits: Logits, targets: NDArray[np.int64]) -> float:
    temperature = fit_temperature(logits, targets)
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(1, keepdims=True)
    return float((np.log(np.exp(scaled).sum(1)) - scaled[np.arange(len(targets)), targets]).mean())
