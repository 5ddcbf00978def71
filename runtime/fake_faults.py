"""What a fake variant can do wrong, so that whoever serves it can be shown to bear it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from pydantic import Field, model_validator

from contract.records import Frozen

Fault = Literal["wrong_shape", "not_a_number", "late", "never"]
FAULTS: tuple[Fault, ...] = get_args(Fault)


class FakeFaults(Frozen):
    """Shares of a fake's calls that go wrong in one way each; together at most 1.

    Attributes:
        wrong_shape: one row of logits too few. not_a_number: NaN and infinity among them.
        late: they come `late_s` later. never: the call does not come back.
        by_text: a call with a text in which a fault is named in brackets, "[late]", has that fault besides.
    """

    wrong_shape: float = Field(default=0.0, ge=0, le=1)
    not_a_number: float = Field(default=0.0, ge=0, le=1)
    late: float = Field(default=0.0, ge=0, le=1)
    late_s: float = Field(default=1.0, ge=0)
    never: float = Field(default=0.0, ge=0, le=1)
    by_text: bool = False

    @model_validator(mode="after")
    def _not_more_than_all(self) -> FakeFaults:
        if self.wrong_shape + self.not_a_number + self.late + self.never > 1:
            raise ValueError("the shares of calls that go wrong add up to more than 1")
        return self

    def drawn(self, chance: float, texts: Iterable[str]) -> Fault | None:
        """Return what goes wrong with a call of these texts that drew a number in [0, 1)."""
        if self.by_text:
            named = [fault for text in texts for fault in FAULTS if f"[{fault}]" in text]
            if named:
                return named[0]
        for fault in FAULTS:
            chance -= float(getattr(self, fault))
            if chance < 0:
                return fault
        return None
