"""The part of a recipe for a teacher that cannot be run here: where its answers lie, and in which columns."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from compress.recipes.learning_parts import Part


class AnswersPart(Part):
    """Answers to texts that a teacher gave elsewhere: its labels, or a score per label.

    They stand in a file of their own, as labelled data do, or in columns of the data files themselves.
    """

    file: str | None = Field(
        default=None,
        description="A source of texts and answers, read like the data; columns of the data's own sources "
        "when left out",
    )
    text: str | None = Field(
        default=None, description="Column of the texts in `file`; `data.text` by default"
    )
    label: str | None = Field(
        default=None,
        description="Column of the teacher's labels; beside `probabilities`, for rows without these",
    )
    logits: str | dict[str, str] | None = Field(
        default=None,
        description="Columns of its logits by label, {neg: a, pos: b}; or one column of lists in the `order`",
    )
    probabilities: str | dict[str, str] | None = Field(
        default=None, description="The same for probabilities, which sum to 1"
    )
    order: tuple[str, ...] = Field(default=(), description="The labels, as the lists of one column have them")
    certainty: float = Field(
        default=0.95,
        gt=0.5,
        lt=1,
        description="Probability that a `label` stands for, above 0.5",
    )
    conflicts: Literal["refuse", "remove", "mean"] = Field(
        default="refuse",
        description="One text with several answers: refuse, leave it without one, or take the mean of their "
        "probabilities",
    )

    @field_validator("order", mode="before")
    @classmethod
    def _labels_are_texts(cls, value: Any) -> Any:
        return [_text(name) for name in value] if isinstance(value, list | tuple) else value

    @field_validator("logits", "probabilities", mode="before")
    @classmethod
    def _keys_are_texts(cls, value: Any) -> Any:
        return {_text(name): column for name, column in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        forms = [name for name in ("label", "logits", "probabilities") if getattr(self, name) is not None]
        if len(forms) > 1 and forms != ["label", "probabilities"]:
            raise ValueError(f"give `{forms[0]}` or `{forms[1]}`, one of them")
        if not forms and self.file is None:
            raise ValueError("name the column: `label`, `logits` or `probabilities`")
        if self.file is None and self.text is not None:
            raise ValueError("`text` goes with `file`; the texts of the data are those of `data.text`")
        if isinstance(self.scores, str) != bool(self.order):
            raise ValueError(
                "`order` goes with one column of lists: {logits: COLUMN, order: [LABEL, ...]} or "
                "{probabilities: COLUMN, order: [LABEL, ...]}"
            )
        if len(set(self.order)) != len(self.order):
            raise ValueError("`order` names a label twice")
        if self.scores is not None and self.label is None and "certainty" in self.model_fields_set:
            raise ValueError("`certainty` goes with `label`; scores say how sure the teacher is")
        return self

    @property
    def scores(self) -> str | dict[str, str] | None:
        """The columns of logits or probabilities; None where there are labels alone."""
        return self.logits if self.probabilities is None else self.probabilities

    @property
    def label_column(self) -> str | None:
        """The column of labels; None where there are scores alone."""
        return self.label if self.scores is not None else self.label or "label"

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that hold answers."""
        scores = self.scores.values() if isinstance(self.scores, dict) else [self.scores]
        return tuple(name for name in (*scores, self.label_column) if name is not None)


def _text(name: Any) -> str:
    if name is None or isinstance(name, bool):
        raise ValueError("put labels such as yes, no, true and null in quotes: YAML reads them otherwise")
    return str(name)
