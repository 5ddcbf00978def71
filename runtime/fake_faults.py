"""What a fake variant can do wrong, so that whoever serves it can be shown to bear it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from contract.records import Frozen

Fault = Literal["wrong_shape", "not_a_number", "late", "never"]


class FakeFaults(Frozen):
    """Shares of a fake's calls that go wrong in one way each; together at most 1.

    Attributes:
        wrong_shape: one row of logits too few. not_a_number: NaN and infinity among them.
        late: they come `late_s` later. never: the call does not come back.
    """

    wrong_shape: float = Field(default=0.0, ge=0, le=1)
    not_a_number: float = Field(default=0.0, ge=0, le=1)
    late: float = Field(default=0.0, ge=0, le=1)
    late_s: float = Field(default=1.0, ge=0)
    never: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _not_more_than_all(self) -> FakeFaults:
        if self.wrong_shape + self.not_a_number + self.late + self.never > 1:
            raise ValueError("the shares of calls that go wrong add up to more than 1")
        return self

    def drawn(self, chance: float) -> Fault | None:
        """Return what goes wrong with a call that drew a number in [0, 1)."""
        faults: tuple[Fault, ...] = ("wrong_shape", "not_a_number", "late", "never")
        for fault in faults:
            chance -= float(getattr(self, fault))
            if chance < 0:
                return fault
        return None
