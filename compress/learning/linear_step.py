"""The step that trains a linear stage, from labels and from its parent's answers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compress.datasets.data import DATA, Dataset, read_dataset
from compress.learning.linear import LinearSettings, NgramRows
from compress.recipes.data_part import EXTRA
from compress.recipes.parts import LinearPart
from compress.steps import Context, Result
from router.tune.calibrate import fit_temperature
from runtime.api import Logits
from runtime.ngrams.encoder import NgramEncoder, NgramOptions, ngram_spec
from runtime.ngrams.linear import LinearModel, LinearRuntime, write_linear

LINEAR = "model.npz"
SOFT_WEIGHT = 0.9


def train_linear_step(context: Context) -> Result:
    """Train the linear stage on labels and, where validation says that it helps, on its parent's answers.

    With a parent the unlabelled texts, and altered copies where the part asks for them, are learnt from its
    answers. Of the trainings, one on labels alone and with a parent one per temperature, the best on the
    validation split is kept.
    """
    part = LinearPart.model_validate(context.step.config["variant"])
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
    tries = [LinearSettings(soft_weight=0.0, epochs=part.epochs)]
    if answers is not None:
        tries += [
            LinearSettings(soft_weight=SOFT_WEIGHT, temperature=temperature, epochs=part.epochs)
            for temperature in part.temperatures
        ]
    rows = NgramRows.of(texts, options, min_documents=tries[0].min_documents)
    encoded = NgramEncoder(options).encode(validation.texts)
    best: tuple[float, float, LinearSettings, LinearModel] | None = None
    for number, settings in enumerate(tries):
        said = f"temperature {settings.temperature:g}" if settings.soft_weight else "labels alone"
        context.update(number / len(tries), said)
        model = rows.train(
            targets,
            len(data.labels),
            settings=settings,
            seed=context.recipe.seed,
            teacher_logits=answers if settings.soft_weight else None,
        )
        logits = LinearRuntime(model).logits(encoded)
        accuracy = float((logits.argmax(1) == validation.targets).mean())
        loss = _log_loss(logits, validation.targets)
        if best is None or (accuracy, -loss) > best[:2]:
            best = (accuracy, -loss, settings, model)
    assert best is not None
    _, _, kept, model = best
    write_linear(context.folder / LINEAR, model)
    return {
        "artifact": LINEAR,
        "runtime": "linear",
        "precision": "fp32",
        "batching": "batched",
        "parameters": model.parameters,
        "soft_weight": kept.soft_weight,
        "soft_temperature": kept.temperature if kept.soft_weight else None,
        "taught_texts": len(texts),
        "encoder": ngram_spec(options).model_dump(mode="json"),
    }


def _taught(
    context: Context, data: Dataset, part: LinearPart
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
