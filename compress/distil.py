"""Distillation: a student of few layers learns the answers of its parent."""

from __future__ import annotations

from compress.data import DATA, read_dataset
from compress.network import Classifier, keep_layers
from compress.parts import Distillation, DistilPart, Training
from compress.recipe import EXTRA
from compress.steps import Context, Result
from compress.teacher import finish_network, parent_network
from compress.training import Tokens, fit, predict, soft_loss
from contract.errors import RecipeError
from runtime.wordpiece import WordPieceEncoder


def distil_student(context: Context) -> Result:
    """Train a student that starts from layers of its parent, and write it.

    Raises:
        RecipeError: when the parent has no such layer.
    """
    part = DistilPart.model_validate(context.step.config["variant"])
    parent, encoder, max_length = parent_network(context)
    depth = len(parent.shape.layers)
    for index in part.layers:
        if not 0 <= index < depth:
            raise RecipeError(
                f"variant {part.name!r}: no layer {index}; its parent {part.parent!r} has 0 to {depth - 1}"
            )
    student = keep_layers(parent, part.layers)
    learn_from(context, parent, student, encoder, part.extra, part.distillation, part.training)
    return finish_network(context, student, max_length=max_length)


def learn_from(
    context: Context,
    teacher: Classifier,
    student: Classifier,
    encoder: WordPieceEncoder,
    extra: bool,
    distillation: Distillation,
    training: Training,
) -> None:
    """Train a student in place on training texts and the teacher's answers to them."""
    data = read_dataset(context.inputs["data"].file(DATA)).of("train", *([EXTRA] if extra else []))
    tokens = Tokens.of(encoder.encode(data.texts))
    context.update(0.0, "asking the teacher")
    answers = predict(teacher, tokens, precision=training.precision)
    loss = soft_loss(data.targets, answers, distillation, training.label_smoothing)
    fit(student, tokens, loss, training, seed=context.recipe.seed, report=context.update)
