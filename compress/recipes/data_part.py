"""The data part of a recipe: where labelled examples come from, and how they are divided and sliced."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from compress.recipes.learning_parts import Part, Share

Conflicts = Literal["refuse", "remove", "majority"]
Split = Literal["train", "validation", "tune", "certify", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "tune", "certify", "test")
EXTRA, UNLABELLED = "extra", "unlabelled"
SOURCES = ("file", *SPLITS, UNLABELLED)


class SliceRule(Part):
    """Texts that form a slice: every condition given must hold."""

    matches: str | None = Field(default=None, description="Regular expression found somewhere in the text")
    label: str | None = None
    min_words: int | None = Field(default=None, ge=0)
    max_words: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _some_condition(self) -> Self:
        if not self.model_dump(exclude_none=True):
            raise ValueError("a slice rule needs one of matches, label, min_words, max_words")
        if self.min_words is not None and self.max_words is not None and self.min_words > self.max_words:
            raise ValueError("`min_words` is above `max_words`: no text has so many words")
        return self

    @property
    def reads_text(self) -> bool:
        """Whether it looks at more than the label."""
        return any(rule is not None for rule in (self.matches, self.min_words, self.max_words))

    @field_validator("matches")
    @classmethod
    def _can_be_read(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as problem:
            raise ValueError(f"not a regular expression: {problem}") from None
        return value


class Shares(Part):
    """How one file is divided; what they sum to beyond or below 1 is an error."""

    train: Share = 0.5
    validation: Share = 0.1
    tune: Share = 0.1
    certify: Share = 0.15
    test: Share = 0.15

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        total = sum(self.as_dict().values())
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares sum to {total:g}, not to 1")
        if not all(share > 0 for share in self.as_dict().values()):
            raise ValueError("every split needs a share above 0")
        return self

    def as_dict(self) -> dict[str, float]:
        """Return the shares in the order of SPLITS."""
        return {name: getattr(self, name) for name in SPLITS}


class DataPart(Part):
    """Where labelled texts or images come from.

    A source is a delimited, JSON or Parquet file, a folder of such files (`FOLDER@SPLIT` for one split of
    them) or with one folder of .txt files per class, `package:DISTRIBUTION/PATH` for one inside an installed
    package, or `hf:NAME[@split]`.
    With `input: image` folders hold image files, columns the base64 or bytes of such files, and
    `sklearn:digits` names the small set of handwritten digits that comes with scikit-learn.
    """

    input: Literal["text", "image"] = "text"
    file: str | None = Field(default=None, description="One source, divided by `shares`")
    train: str | None = None
    validation: str | None = Field(
        default=None, description="Also gives tune and certify where they have no source of their own"
    )
    tune: str | None = None
    certify: str | None = None
    test: str | None = None
    unlabelled: str | None = Field(
        default=None, description="Texts without labels, learnt from the teacher's answers only"
    )
    text: str = "text"
    label: str | None = Field(
        default="label",
        description="null: there are none, or none that count; what `teacher.remote` answers stands in for "
        "them",
    )
    slice: str | None = Field(default=None, description="Column of slices; `slice` by default, if there")
    slices: dict[str, SliceRule] = Field(default_factory=dict)
    shares: Shares = Shares()
    duplicates: Literal["refuse", "remove"] = Field(
        default="refuse",
        description="Texts that occur in two sources: refuse, or keep the later split's. Texts that repeat "
        "in one source are always left out, but for the first, and counted",
    )
    conflicts: Conflicts = Field(
        default="refuse",
        description="One text under several labels in a source: refuse, leave its rows out, or keep the "
        "label of most of them",
    )
    lookalikes: Literal["refuse", "keep"] = Field(
        default="refuse", description="Labels that differ in case or blanks alone: refuse, or keep apart"
    )
    max_examples: int | None = Field(default=None, ge=20, description="A stratified part of `file`")
    max_words: int | None = Field(default=None, ge=1, description="Words kept of each text")
    stretches: int = Field(
        default=0,
        ge=0,
        description="Later stretches, so long, of each training text, kept as extra training texts",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        apart = [name for name in SPLITS if getattr(self, name) is not None]
        if self.file is not None and apart:
            raise ValueError(f"give `file`, or one source per split, not both (`{apart[0]}` is given too)")
        if self.file is None and not {"train", "validation", "test"} <= set(apart):
            raise ValueError("give `file`, or all of `train`, `validation` and `test`")
        if (self.tune is None) != (self.certify is None):
            raise ValueError("give both of `tune` and `certify`, or neither")
        if self.max_examples is not None and self.file is None:
            raise ValueError("`max_examples` goes with `file`")
        if apart and self.shares != Shares():
            raise ValueError("`shares` goes with `file`, not with one source per split")
        if self.input == "image" and self.max_words is not None:
            raise ValueError("`max_words` is for texts, not for images")
        if self.input == "image" and self.unlabelled is not None:
            raise ValueError("`unlabelled` is for texts, not for images")
        if self.input == "image" and any(rule.reads_text for rule in self.slices.values()):
            raise ValueError("`slices` of images can only have `label`")
        if self.stretches and self.max_words is None:
            raise ValueError("`stretches` needs `max_words`")
        return self
