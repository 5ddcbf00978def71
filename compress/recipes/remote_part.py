"""The part of a recipe for a teacher behind HTTP: how it is asked, what it may cost, where replies stay."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from compress.recipes.learning_parts import Share
from contract.remote import RemoteModel

CACHE = ".asked"


class RemotePart(RemoteModel):
    """A teacher behind HTTP: all of a remote model's keys, and those that asking for many answers needs."""

    max_usd: float | None = Field(
        default=None,
        ge=0,
        description="The most that the answers to the recipe's texts may cost, those of earlier runs "
        "included; needed where they cost anything",
    )
    cache: str = Field(
        default=CACHE,
        min_length=1,
        description="Folder that keeps every answer by the hash of what was asked; recipes may share it",
    )
    errors: Share = Field(
        default=0.01,
        description="Share of texts that may stay without an answer because the endpoint failed; beyond it "
        "the step fails, and asks only for what is missing when it is run again",
    )
    certainty: float = Field(
        default=0.95,
        gt=0.5,
        lt=1,
        description="Probability that a label stands for where the endpoint tells none, above 0.5",
    )
    ask: bool = Field(
        default=True, description="false: ask for nothing, and take the answers that are there already"
    )

    @field_validator("labels", mode="before")
    @classmethod
    def _a_list_of_labels(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        if any(name is None or isinstance(name, bool) for name in value):
            raise ValueError("put labels such as yes, no, true and null in quotes: YAML reads them otherwise")
        if len(set(map(str, value))) != len(value):
            raise ValueError("a label is named twice")
        return {str(name): {} for name in value}

    @model_validator(mode="after")
    def _a_limit(self) -> Self:
        if self.max_usd is None and any(self.price or ()):
            raise ValueError("its answers cost money: `max_usd` says how much they may cost in all")
        return self

    @property
    def served(self) -> RemoteModel:
        """The model as a family keeps it: how it is asked, without what concerns this recipe alone."""
        return RemoteModel.model_validate(
            self.model_dump(by_alias=True, include=set(RemoteModel.model_fields))
        )
