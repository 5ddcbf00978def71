"""Live state: what a running gateway loads, as one immutable, numbered revision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, ValidationError

from contract.errors import PolicyError
from contract.policy import Policy
from contract.records import Frozen, first_problem
from contract.trial import Auto, Decision, TrialCounts, TrialKind, Verdict, VerdictRule

SCHEMA = 1
SEED_FOR_ANOTHER = "seed for another family"


class FamilyReference(Frozen):
    """A family that a revision names: which build, and where replicas find it."""

    name: str = ""
    sha256: str
    path: str


class Candidate(Frozen):
    """A policy, with its family, that is on trial beside the one in force.

    Attributes:
        id: names the trial; keys are hashed with it, so that an id that stays keeps every key in its arm.
        share: of requests that it answers (canary), or that it is shown a copy of (shadow).
        since: when the trial began; `since_revision` the revision that began it.
        auto: what the verdict may do by itself.
    """

    id: str
    policy: Policy
    family: FamilyReference
    share: float = Field(gt=0, le=1)
    since: str
    since_revision: int = Field(ge=1)
    rule: VerdictRule = VerdictRule()
    auto: Auto = "off"


class Ruling(Frozen):
    """How a trial ended, with the counts that anybody can judge again by the candidate's rule.

    Attributes:
        by: who decided: an operator, the verdict alone, or nobody: another change ended the trial, such as a
            push, a rollback, or another candidate in its place. It counts as withdrawn then.
        verdict: what the counts proved then, whoever decided.
    """

    kind: TrialKind
    candidate: Candidate
    decision: Decision
    by: Literal["operator", "verdict", "change"]
    counts: TrialCounts
    verdict: Verdict


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
    canary: Candidate | None = None
    shadow: Candidate | None = None
    seed: bool | None = Field(
        default=None, description="By a start of the gateway, not while it served; null in old revisions"
    )
    gear: str | None = Field(default=None, description="Of the policy, fixed by hand; null: load decides")
    before_sha256: str | None = Field(
        default=None, description="Of the revision before, as it was written; null in the first and old ones"
    )
    rulings: tuple[Ruling, ...] = Field(default=(), description="Of the trials that this very revision ended")

    @property
    def family(self) -> FamilyReference:
        """The family in force."""
        return FamilyReference(name=self.family_name, sha256=self.family_sha256, path=self.family_path)

    @property
    def is_seed(self) -> bool:
        """Whether a start of the gateway put it in force."""
        if self.seed is None:
            return self.number == 1 or self.reason == SEED_FOR_ANOTHER
        return self.seed

    @property
    def families(self) -> tuple[FamilyReference, ...]:
        """Every family that replicas must have loaded to serve this revision, the one in force first."""
        all_of_them = (self.family, *(candidate.family for _, candidate in self.trials()))
        return tuple({family.sha256: family for family in reversed(all_of_them)}.values())[::-1]

    def trials(self) -> Iterator[tuple[TrialKind, Candidate]]:
        """Yield each candidate on trial."""
        if self.canary is not None:
            yield "canary", self.canary
        if self.shadow is not None:
            yield "shadow", self.shadow

    def serving(self, policy: Policy, family: FamilyReference | None = None) -> Revision:
        """Return the same state with another policy in force, and with another family where one is given.

        Trials end: what their candidates were held against is no longer there. So does a gear fixed by hand.
        """
        family = family or self.family
        return self.model_copy(
            update={
                "policy": policy,
                "family_sha256": family.sha256,
                "family_path": family.path,
                "family_name": family.name,
                "canary": None,
                "shadow": None,
                "gear": None,
            }
        )

    def in_gear(self, name: str | None) -> Revision:
        """Return the same state with the gear fixed, or left to load (None). Raises PolicyError: no such."""
        if name is not None:
            self.policy.in_gear(name)
        return self.model_copy(update={"gear": name})

    def dump(self) -> dict[str, Any]:
        """Return the JSON form."""
        value = self.model_dump(mode="json", by_alias=True)
        value["policy"] = self.policy.dump()
        if self.before_sha256 is None:
            del value["before_sha256"]
        for kind, candidate in self.trials():
            value[kind]["policy"] = candidate.policy.dump()
        for ruling, told in zip(self.rulings, value["rulings"], strict=True):
            told["candidate"]["policy"] = ruling.candidate.policy.dump()
        return value


def parse_revision(raw: Any, *, where: object | None = None) -> Revision:
    """Return a revision from its JSON form. Raises PolicyError naming the file and rule."""
    try:
        return Revision.model_validate(raw)
    except ValidationError as problem:
        raise PolicyError(first_problem(problem), where=where) from None
