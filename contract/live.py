"""Live state: what a running gateway loads, as one immutable, numbered revision."""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationError

from contract.errors import PolicyError
from contract.policy import Policy
from contract.records import Frozen, first_problem

SCHEMA = 1


class FamilyReference(Frozen):
    """A family that a revision names: which build, and where replicas find it."""

    name: str = ""
    sha256: str
    path: str


class Revision(Frozen):
    """One state of the gateway. Numbers start at 1 and grow by 1; a number is written once.

    What a revision holds beside policy and family has a default that means "none": revisions written before
    it was known stay readable.
    """

    schema_: int = Field(default=SCHEMA, alias="schema")
    number: int = Field(ge=1)
    created_at: str
    reason: str = Field(default="", description="push, rollback to N, seed ...")
    policy: Policy
    family_sha256: str
    family_path: str = Field(description="Where replicas find the family")
    family_name: str = Field(default="", description="As its manifest has it; empty in old revisions")

    @property
    def family(self) -> FamilyReference:
        """The family in force."""
        return FamilyReference(name=self.family_name, sha256=self.family_sha256, path=self.family_path)

    @property
    def families(self) -> tuple[FamilyReference, ...]:
        """Every family that replicas must have loaded to serve this revision, the one in force first."""
        return (self.family,)

    def serving(self, policy: Policy, family: FamilyReference | None = None) -> Revision:
        """Return the same state with another policy in force, and with another family where one is given."""
        family = family or self.family
        return self.model_copy(
            update={
                "policy": policy,
                "family_sha256": family.sha256,
                "family_path": family.path,
                "family_name": family.name,
            }
        )

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
