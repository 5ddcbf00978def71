"""The step that trains a linear stage, from labels and from its parent's answers."""

from __future__ import annotations

from compress.learning.linear import LinearSettings
from compress.learning.ngram_tries import Lesson, best_of, settings_to_try
from compress.recipes.parts import LinearPart
from compress.steps import Context, Result
from runtime.ngrams.linear import LinearModel, LinearRuntime, write_linear

LINEAR = "model.npz"


def train_linear_step(context: Context) -> Result:
    """Train the linear stage on labels and, where validation says that it helps, on its parent's answers.

    Of the trainings, one on labels alone and with a parent one per temperature, the best on the validation
    split is kept.
    """
    part = LinearPart.model_validate(context.step.config["variant"])
    tries = settings_to_try(
        part,
        lambda weight, temperature: LinearSettings(
            soft_weight=weight, temperature=temperature, epochs=part.epochs
        ),
    )
    model, told = best_of(context, part, tries, _train, LinearRuntime)
    write_linear(context.folder / LINEAR, model)
    parameters = {"parameters": model.parameters}
    return {"artifact": LINEAR, "runtime": "linear", "precision": "fp32", **parameters, **told}


def _train(lesson: Lesson, settings: LinearSettings) -> LinearModel:
    return lesson.rows.train(
        lesson.targets,
        lesson.classes,
        settings=settings,
        seed=lesson.seed,
        teacher_logits=lesson.answers,
    )
