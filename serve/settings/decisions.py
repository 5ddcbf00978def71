"""Which family answers a question of the decision endpoints, and how its labels are read."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from serve.settings.record import Setting


class Reading(Setting):
    """How a family's labels become the answers to a question; what is left out is as the labels have it."""

    yes_label: str | None = Field(
        default=None,
        description="Label that is a predicate's yes; null: `true`, `yes` or `1` where one is it",
    )
    labels: dict[str, str] = Field(
        default={}, description="The family's label for a choice or level that is called otherwise"
    )
    levels: tuple[str, ...] | None = Field(
        default=None, min_length=2, description="The labels of a score, from the lowest level to the highest"
    )
    values: tuple[int, ...] | None = Field(
        default=None, description="What each of `levels` counts in the score; null: 0, 1, 2 ..."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.levels is not None and len(set(self.levels)) != len(self.levels):
            raise ValueError("levels names a label twice")
        if self.values is not None and (self.levels is None or len(self.values) != len(self.levels)):
            raise ValueError("values are as many as levels, which must be given with them")
        return self

    def over(self, below: Reading) -> Reading:
        """Return what is said here, and what is said below where nothing is."""
        levels = self if self.levels is not None else below
        return Reading(
            yes_label=self.yes_label if self.yes_label is not None else below.yes_label,
            labels=below.labels | self.labels,
            levels=levels.levels,
            values=levels.values,
        )


class QuestionRule(Reading):
    """Who answers a question of a certain name."""

    model: str = Field(min_length=1, description="A served model: `cascade`, a family's or a variant's name")


class DecisionSettings(Setting):
    """Who answers questions, by their names or by their labels."""

    by_labels: bool = Field(
        default=True,
        description="A question whose choices are all labels of one family and no other is that family's; "
        "with an upstream, if it offers all of them in the words that the family was made for; false: only "
        "those that `questions` or the request's `model` names",
    )
    questions: dict[str, QuestionRule] = Field(default={}, description="By the name of the question")
    models: dict[str, Reading] = Field(default={}, description="By model: how its labels are read")

    def reading_of(self, *names: str) -> Reading:
        """Return how labels are read by the first of these names for which it is said."""
        return next((self.models[name] for name in names if name in self.models), _AS_IT_IS)


_AS_IT_IS = Reading()
