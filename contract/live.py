"""Live state: what a running gateway loads, as one immutable, numbered revision."""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationError

from contract.errors import PolicyError
from contract.policy import Policy
from contract.records import Frozen, first_problem

SCHEMA = 1


class Revision(Frozen):
    """One state of the gateway. Numbers start at 1 and grow by 1; a number is written once."""

    schema_: int = Field(default=SCHEMA, alias="schema")
    number: int = Field(ge=1)
    created_at: str
    reason: str = Field(default="", description="push, rollback to N, seed ...")
    policy: Policy
    family_sha256: str
    family_path: str = Field(description="Where replicas find the family")

    def dump(self) -> dict[str, Any]:
        """Return the JSON form."""
        value = self.model_dump(mode="json", by_alias=True)
        value["policy"] = self.policy.dump()
        return value


def parse_revision(raw: Any, *, where: object | None = None) -> Revision:
    """Return a revision from its JSON form. Raises PolicyError naming the file and rule."""
    try:
        return Revision.model_validate(raw)
    except ValidationError as problem:
        raise PolicyError(first_problem(problem), where=where) from None
