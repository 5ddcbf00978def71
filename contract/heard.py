"""A family's teacher of which only answers are known, which were given elsewhere."""

from __future__ import annotations

from pydantic import Field

from contract.records import Frozen


class Agreement(Frozen):
    """How often a variant's answers to test texts are those of a teacher that gave its answers elsewhere."""

    n: int = Field(ge=1, description="Test texts that the teacher has answered")
    share: float = Field(ge=0, le=1)
    interval: tuple[float, float]


class HeardTeacher(Frozen):
    """A teacher that is no variant: only its answers are known, and they were given elsewhere.

    It cannot be served, so no request escalates to it. `Family.teacher` then names the variant that stands in
    its place as the reference of every policy.
    """

    name: str = Field(description="As the recipe has it")
    answered: dict[str, tuple[int, int]] = Field(
        default_factory=dict, description="By split: texts with an answer, and all texts"
    )
    n: int = Field(default=0, ge=0, description="Test texts that it has answered")
    accuracy: float | None = Field(default=None, ge=0, le=1, description="On these")
    accuracy_interval: tuple[float, float] | None = None
    deltas: bool = Field(
        default=False,
        description="It has answered every test text, so the variants' deltas are against it; else they are "
        "against the variant in its place",
    )
    notes: tuple[str, ...] = ()


class AskedTeacher(Frozen):
    """A teacher behind HTTP whose answers a family was made from: where it was asked, and what that took.

    Never a secret: the address has no key in it. What answers cost is what was booked when they came, those
    that were kept from earlier runs included.
    """

    form: str
    url: str
    model: str
    question_sha256: str = Field(
        description="Of all that an answer depends on beside the text: address, model, instructions, labels"
    )
    answered: dict[str, tuple[int, int]] = Field(
        default_factory=dict, description="By split: texts with an answer, and all texts"
    )
    given: int = Field(default=0, ge=0, description="Answers that files gave, and that were not asked for")
    soft: int = Field(default=0, ge=0, description="Replies with probabilities; others are labels alone")
    declined: dict[str, int] = Field(
        default_factory=dict, description="Replies without a label that was offered, by reason"
    )
    errors: dict[str, int] = Field(default_factory=dict, description="Texts without a reply, by reason")
    usd: float = Field(default=0.0, ge=0)
    seconds: float = Field(default=0.0, ge=0, description="The times of all replies, one after the other")
