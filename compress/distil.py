"""Distillation: a student of few layers learns the answers of its parent."""

from __future__ import annotations

from compress.data import DATA, read_dataset
from compress.encoders import encoder_of
from compress.models import Network, load_network
from compress.network import keep_layers
from compress.parts import DistilPart, Learner
from compress.recipe import EXTRA
from compress.steps import Context, Result
from compress.teacher import finish_network, parent_classifier, parent_encoder
from compress.training import fit, predict, soft_loss
from contract.errors import RecipeError
from runtime.api import Encoder


def distil_student(context: Context) -> Result:
    """Train a student that starts from layers of its parent, and write it.

    Raises:
        RecipeError: when the parent has no such layer.
    """
    part = DistilPart.model_validate(context.step.config["variant"])
    parent = parent_classifier(context)
    encoder, spec = parent_encoder(context)
    depth = len(parent.shape.layers)
    for index in part.layers:
        if not 0 <= index < depth:
            raise RecipeError(
                f"variant {part.name!r}: no layer {index}; its parent {part.parent!r} has 0 to {depth - 1}"
            )
    student = keep_layers(parent, part.layers)
    learn_from(context, student, encoder, part)
    return finish_network(context, student, spec)


def learn_from(context: Context, student: Network, encoder: Encoder, part: Learner) -> None:
    """Train a student in place on training texts and its teacher's answers to them.

    The teacher is the step's input `teacher`, else `origin`, else `parent`; it reads texts with its own
    encoder.

    Args:
        context: of the step.
        student: of the same labels.
        encoder: the student's.
        part: what to learn from, and how.
    """
    role = next(role for role in ("teacher", "origin", "parent") if role in context.inputs)
    data = read_dataset(context.inputs["data"].file(DATA)).of("train", *([EXTRA] if part.extra else []))
    context.update(0.0, "asking the teacher")
    teacher = load_network(context.inputs[role].folder)
    asked = teacher.examples(encoder_of(context.inputs[role]).encode(data.texts))
    answers = predict(teacher, asked, precision=part.training.precision)
    loss = soft_loss(data.targets, answers, part.distillation, part.training.label_smoothing)
    examples = student.examples(encoder.encode(data.texts))
    fit(student, examples, loss, part.training, seed=context.recipe.seed, report=context.update)
