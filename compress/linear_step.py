"""The step that trains a linear stage, from labels and from its parent's answers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compress.data import DATA, Dataset, read_dataset
from compress.encoders import encoder_of
from compress.linear import LinearSettings, train_linear
from compress.parts import LinearPart
from compress.recipe import EXTRA
from compress.steps import Context, Result
from router.calibrate import fit_temperature
from runtime.api import Logits
from runtime.linear import LinearModel, LinearRuntime, write_linear
from runtime.ngrams import NgramEncoder, NgramOptions, ngram_spec

LINEAR = "model.npz"
SOFT_WEIGHTS = (0.0, 0.5, 0.9)


def train_linear_step(context: Context) -> Result:
    """Train the linear stage on labels and, where validation says that it helps, on its parent's answers."""
    part = LinearPart.model_validate(context.step.config["variant"])
    data = read_dataset(context.inputs["data"].file(DATA))
    train = data.of("train", *([EXTRA] if part.extra else []))
    validation = data.of("validation")
    options = NgramOptions(
        word_orders=part.word_orders,
        shortest=part.shortest,
        longest=part.longest,
        bits=part.bits,
        max_characters=part.max_characters,
    )
    teacher = _teacher_answers(context, train) if "parent" in context.inputs else None
    best: tuple[float, float, float, LinearModel] | None = None
    weights = SOFT_WEIGHTS if teacher is not None else SOFT_WEIGHTS[:1]
    for number, soft_weight in enumerate(weights):
        context.update(number / len(weights), f"soft weight {soft_weight:g}")
        model = train_linear(
            train.texts,
            train.targets,
            len(data.labels),
            options=options,
            settings=LinearSettings(soft_weight=soft_weight),
            seed=context.recipe.seed,
            teacher_logits=teacher if soft_weight else None,
        )
        logits = LinearRuntime(model).logits(NgramEncoder(options).encode(validation.texts))
        accuracy = float((logits.argmax(1) == validation.targets).mean())
        loss = _log_loss(logits, validation.targets)
        if best is None or (accuracy, -loss) > best[:2]:
            best = (accuracy, -loss, soft_weight, model)
    assert best is not None
    write_linear(context.folder / LINEAR, best[3])
    return {
        "artifact": LINEAR,
        "runtime": "linear",
        "precision": "fp32",
        "batching": "batched",
        "parameters": best[3].parameters,
        "soft_weight": best[2],
        "encoder": ngram_spec(options).model_dump(mode="json"),
    }


def _teacher_answers(context: Context, train: Dataset) -> NDArray[np.float32]:
    from compress.models import load_network
    from compress.training import predict

    parent = context.inputs["parent"]
    network = load_network(parent.folder)
    encoded = encoder_of(parent).encode(train.texts)
    return predict(network, network.examples(encoded), precision="auto")


def _log_loss(logits: Logits, targets: NDArray[np.int64]) -> float:
    temperature = fit_temperature(logits, targets)
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(1, keepdims=True)
    return float((np.log(np.exp(scaled).sum(1)) - scaled[np.arange(len(targets)), targets]).mean())
