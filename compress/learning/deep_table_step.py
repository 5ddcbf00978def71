"""The step that trains a deep table, from labels and from its parent's answers."""

from __future__ import annotations

from compress.learning.deep_table import DeepTableSettings, train_deep_table
from compress.learning.ngram_tries import Lesson, best_of, settings_to_try
from compress.recipes.parts import DeepTablePart
from compress.steps import Context, Result
from runtime.ngrams.deep_table import DeepTable, DeepTableRuntime, write_deep_table

DEEP_TABLE = "model.npz"


def train_deep_table_step(context: Context) -> Result:
    """Train a deep table as `train_linear_step` trains a linear stage; validation judges it in INT8."""
    part = DeepTablePart.model_validate(context.step.config["variant"])
    tries = settings_to_try(
        part,
        lambda weight, temperature: DeepTableSettings(
            soft_weight=weight,
            temperature=temperature,
            epochs=part.epochs,
            hidden=part.hidden,
            dropout=part.dropout,
        ),
    )
    model, told = best_of(context, part, tries, _train, DeepTableRuntime)
    write_deep_table(context.folder / DEEP_TABLE, model)
    parameters = {"parameters": model.parameters}
    return {
        "artifact": DEEP_TABLE,
        "runtime": "deep_table",
        "precision": "int8-weights",
        **parameters,
        **told,
    }


def _train(lesson: Lesson, settings: DeepTableSettings) -> DeepTable:
    return train_deep_table(
        lesson.rows,
        lesson.targets,
        lesson.classes,
        settings=settings,
        seed=lesson.seed,
        teacher_logits=lesson.answers,
    )
