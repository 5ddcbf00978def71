"""The policy on disk: stages, thresholds, and the certificate behind them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from contract.errors import PolicyError
from contract.family import Family
from contract.files import read_json, sha256_of_json, write_json
from contract.mix import Mix
from contract.records import Frozen, parse_record

SCHEMA = 1
BUSY = "busy"
"""The gear that is the policy's own stages: the cheapest that keep its targets."""
ScoreName = Literal["max_probability", "margin", "entropy", "per_class", "deferral", "agreement"]
ABSTAIN = "abstain"
"""In a variant's place at the last stage: nobody answers what reaches it, which is left to a person."""
PolicyStatus = Literal["certified", "uncertified", "no_safe_threshold"]


class ClassRule(Frozen):
    """What differs where a stage predicts one class: its threshold, and where it escalates to."""

    threshold: float
    next: str | None = Field(default=None, description="Variant to escalate to; default: the next stage")


class Stage(Frozen):
    """A place of a variant in the cascade.

    The last stage has no threshold, and always answers, or is `abstain` and never does.
    """

    variant: str
    score: ScoreName = "max_probability"
    temperature: float | None = Field(
        default=None, gt=0, description="Divides the logits; null: confidence is used as the variant gives it"
    )
    threshold: float | None = Field(default=None, description="Accept when score >= threshold")
    per_class: dict[str, ClassRule] = Field(default_factory=dict)
    score_parameters: dict[str, Any] | None = Field(
        default=None, description="Fitted parameters of the scores that have some"
    )


class Limits(Frozen):
    """Limits that hold while serving."""

    deadline_ms: float | None = Field(default=None, gt=0)
    max_escalation_rate: float | None = Field(default=None, ge=0, le=1)
    objective_ms: float | None = Field(
        default=None, gt=0, description="Answers later than this are worth nothing: rules who may wait"
    )

    @model_serializer(mode="wrap")
    def _without_what_came_later(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is not said, as certificates do."""
        told: dict[str, Any] = dump(self)
        if told["objective_ms"] is None:
            del told["objective_ms"]
        return told


class CertifiedTarget(Frozen):
    """One of the targets that a certificate covers, all at once at its delta."""

    metric: str
    epsilon: float
    method: str


_LATER = frozenset({"stands_for", "machine", "n_labels", "tuning"})


class Certificate(Frozen):
    """The guarantee behind a policy, and all it depends on."""

    method: str
    metric: str = "accuracy_drop"
    epsilon: float
    delta: float = Field(gt=0, lt=1)
    n_tune: int = Field(ge=0)
    n_certify: int = Field(ge=0)
    seed: int
    data_sha256: str
    variants: dict[str, str] = Field(default_factory=dict, description="Variant name to artifact sha256")
    created_at: str = ""
    p_value: float | None = None
    targets: tuple[CertifiedTarget, ...] = Field(
        default=(), description="Every target covered; `metric` and `epsilon` repeat the first"
    )
    stands_for: str | None = Field(
        default=None,
        description="The teacher in whose place the reference stands, because only its answers are known: "
        "drops are from the reference, and nothing is said of that teacher",
    )
    machine: str | None = Field(
        default=None, description="Processor and instruction sets that gave the answers it is about"
    )
    n_labels: int | None = Field(
        default=None, ge=0, description="Labels behind it, where only chosen rows were labelled"
    )
    tuning: dict[str, Any] | None = Field(
        default=None,
        description="Targets and settings: with them and the rows anybody can tune again",
    )

    @model_serializer(mode="wrap")
    def _without_what_came_later(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is not said: a policy keeps its version when a later release knows more keys."""
        told: dict[str, Any] = dump(self)
        return {key: value for key, value in told.items() if value is not None or key not in _LATER}


class Expected(Frozen):
    """What the tuning data say this policy will do; of a policy that abstains, accuracy where it answers."""

    accuracy: float | None = None
    accuracy_interval: tuple[float, float] | None = None
    accuracy_drop: float | None = None
    escalation_rate: float | None = None
    usd_per_1k: float | None = None
    latency_ms: float | None = None
    energy_wh_per_1k: float | None = None
    abstention_rate: float | None = Field(default=None, description="Share that is left to a person")

    @model_serializer(mode="wrap")
    def _without_what_came_later(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is not said, as certificates do."""
        told: dict[str, Any] = dump(self)
        if told["abstention_rate"] is None:
            del told["abstention_rate"]
        return told


class Gear(Frozen):
    """A rung of the ladder that load moves a policy along: other stages or thresholds, certified with it.

    Attributes:
        epsilon: promised of the certificate's first metric while this gear answers.
        delta: level at which it was tested; None where nothing is certified.
        p_value: None where the drop is zero by construction.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")
    stages: tuple[Stage, ...] = Field(min_length=1)
    epsilon: float
    delta: float | None = Field(default=None, gt=0, lt=1)
    p_value: float | None = None
    expected: Expected = Expected()


class Signature(Frozen):
    """Who vouches for a policy: an Ed25519 public key and its signature of the version, both in base64."""

    public_key: str
    signature: str


class Policy(Frozen):
    """Stages and thresholds, content-addressed by `version`."""

    schema_: int = Field(default=SCHEMA, alias="schema")
    version: str = Field(default="", description="sha256 of the canonical content, this key left out")
    status: PolicyStatus
    reference: str
    stages: tuple[Stage, ...] = Field(min_length=1)
    limits: Limits = Limits()
    certificate: Certificate | None = None
    expected: Expected = Expected()
    needed_n: int | None = Field(
        default=None, description="Labelled rows to certify with that would be enough"
    )
    gears: tuple[Gear, ...] = Field(
        default=(), description="From the one of an idle gateway to the last under overload; empty: none"
    )
    mix: Mix | None = Field(
        default=None, description="Cells with bounds of their own, where a change of the mix is covered"
    )

    signatures: tuple[Signature, ...] = Field(
        default=(), description="Not part of the content that is hashed"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_stages(self.stages)
        if self.reference == ABSTAIN:
            raise ValueError(f"the reference is a variant, not {ABSTAIN!r}")
        if self.status == "certified" and self.certificate is None:
            raise ValueError("status is certified but there is no certificate")
        if self.mix is not None and self.mix.variant != self.stages[0].variant:
            raise ValueError(f"its cells are of {self.mix.variant!r}, which is not the first stage")
        names = [gear.name for gear in self.gears]
        if len(set(names)) != len(names):
            raise ValueError("two gears have one name")
        for gear in self.gears:
            try:
                _check_stages(gear.stages)
            except ValueError as problem:
                raise ValueError(f"gear {gear.name!r}: {problem}") from None
            if gear.name == BUSY and gear.stages != self.stages:
                raise ValueError(f"gear {BUSY!r} has other stages than the policy itself")
            if (gear.stages[-1].variant == ABSTAIN) != self.abstains:
                raise ValueError("either all gears abstain, or none does")
        if self.gears and BUSY not in names:
            raise ValueError(f"there are gears, but none of them is {BUSY!r}, the policy's own stages")
        return self

    @property
    def cascades(self) -> tuple[tuple[Stage, ...], ...]:
        """The stages of the policy itself, then those of each gear: what may answer while it is in force."""
        return (self.stages, *(gear.stages for gear in self.gears))

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants of every stage but `abstain`, each once."""
        found = dict.fromkeys(stage.variant for stages in self.cascades for stage in stages)
        return tuple(name for name in found if name != ABSTAIN)

    @property
    def abstains(self) -> bool:
        """Whether what no stage is sure of is left to a person."""
        return self.stages[-1].variant == ABSTAIN

    def in_gear(self, name: str) -> Policy:
        """Return one gear as a policy by itself, which promises nothing. Raises PolicyError: no such gear."""
        for gear in self.gears:
            if gear.name == name:
                return Policy(
                    status="uncertified",
                    reference=self.reference,
                    stages=gear.stages,
                    limits=self.limits,
                    expected=gear.expected,
                ).sealed()
        known = ", ".join(gear.name for gear in self.gears)
        raise PolicyError(
            f"the policy has no gear {name!r}" if known else f"the policy has no gears, so no {name!r}",
            hint=f"it has: {known}" if known else "sluice tune ... --gears makes a policy with some",
        )

    def content(self) -> dict[str, Any]:
        """Return the JSON form without `version`, and without gears and cells where there are none."""
        value = self.model_dump(mode="json", by_alias=True)
        value.pop("version")
        value.pop("signatures")
        if not self.gears:
            del value["gears"]
        if self.mix is None:
            del value["mix"]
        return value

    def dump(self) -> dict[str, Any]:
        """Return the JSON form, `version` set to the hash of the rest."""
        content = self.content()
        signed = [one.model_dump(mode="json") for one in self.signatures]
        told = {"schema": content.pop("schema"), "version": self.content_sha256(), **content}
        return told | {"signatures": signed} if signed else told

    def content_sha256(self) -> str:
        """Return the version that this content has."""
        return sha256_of_json(self.content())

    def sealed(self) -> Policy:
        """Return the same policy with its version set."""
        return self.model_copy(update={"version": self.content_sha256()})


def _check_stages(stages: tuple[Stage, ...]) -> None:
    names = [s.variant for s in stages]
    if len(set(names)) != len(names):
        raise ValueError("a variant has two stages")
    if stages[-1].threshold is not None or stages[-1].per_class:
        raise ValueError("the last stage always answers: it has no threshold and no per_class")
    for index, stage in enumerate(stages[:-1]):
        if stage.threshold is None:
            raise ValueError(f"stage {index} ({stage.variant!r}) needs a threshold: it is not the last")
        for label, rule in stage.per_class.items():
            if rule.next is not None and rule.next not in names[index + 1 :]:
                raise ValueError(
                    f"stage {index}, class {label!r}: next {rule.next!r} is not one of the later stages"
                )
    if ABSTAIN in names[:-1] or names == [ABSTAIN]:
        raise ValueError(f"the stage {ABSTAIN!r} comes last, after one that may answer")
    if names[-1] == ABSTAIN and stages[-1] != Stage(variant=ABSTAIN):
        raise ValueError(f"the stage {ABSTAIN!r} has no score, temperature or parameters")


def parse_policy(raw: Any, *, where: object | None = None) -> Policy:
    """Return a policy from its JSON form, checked and sealed.

    Raises:
        PolicyError: a newer schema, a broken rule, or a version that is not the hash of the content.
    """
    policy = parse_record(Policy, raw, where=where, error=PolicyError, newest=SCHEMA)
    try:
        sealed = policy.sealed()
    except ValueError:
        raise PolicyError(
            "it holds what JSON has no form for: NaN, infinity or half of a surrogate pair", where=where
        ) from None
    if policy.version and policy.version != sealed.version:
        raise PolicyError(
            "its version is not the hash of its content: it was edited by hand",
            where=where,
            hint='remove the "version" key to accept the edit; a certificate does not survive one',
        )
    if not policy.version and policy.status == "certified":
        raise PolicyError(
            "certified, but without the version that binds the certificate to its content",
            where=where,
            hint='set "status" to "uncertified" and "certificate" to null, or tune again',
        )
    return sealed


def read_policy(path: Path) -> Policy:
    """Read `policy.json`. Raises PolicyError naming file and rule."""
    return parse_policy(read_json(path, error=PolicyError), where=path)


def write_policy(path: Path, policy: Policy) -> None:
    """Write `policy.json` atomically, sealed."""
    write_json(path, policy.dump())


def check_policy_fits(policy: Policy, family: Family) -> None:
    """Raise PolicyError unless the family has every stage, and the very artifacts that were certified."""
    for stage in chain.from_iterable(policy.cascades):
        if stage.variant not in family.names and stage.variant != ABSTAIN:
            raise PolicyError(
                f"the policy names variant {stage.variant!r}, which family {family.name!r} lacks",
                hint=f"tune again on this family; it has: {', '.join(family.names)}",
            )
        for label in stage.per_class:
            if label not in family.labels:
                raise PolicyError(f"per_class of {stage.variant!r} names an unknown label {label!r}")
    if policy.reference not in family.names:
        raise PolicyError(f"the reference {policy.reference!r} is not in family {family.name!r}")
    for name, sha256 in policy.certificate.variants.items() if policy.certificate else ():
        if name in family.names and family.variant(name).artifact.sha256 != sha256:
            raise PolicyError(
                f"the certificate was made for another build of variant {name!r} ({sha256[:12]}…)",
                hint="tune again on this family",
            )


def require_certified_answers(policy: Policy, otherwise: Mapping[str, str]) -> None:
    """Raise PolicyError when a certificate is about other answers than this machine gives.

    Args:
        policy: to be put in force.
        otherwise: what is other about the answers of variants on this machine, in words.
    """
    if policy.status != "certified":
        return
    names = dict.fromkeys((*policy.variants, policy.reference))
    other = [f"{name} {otherwise[name]}" for name in names if name in otherwise]
    if other:
        raise PolicyError(
            f"the policy's certificate is about other answers than this machine gives: {'; '.join(other)}",
            hint="measure and tune here (sluice compress RECIPE --out FAMILY, then sluice tune), or serve a "
            "policy that promises nothing (sluice tune --uncertified)",
        )


def single_variant_policy(variant: str) -> Policy:
    """Return the uncertified policy that sends everything to one variant."""
    return Policy(status="uncertified", reference=variant, stages=(Stage(variant=variant),)).sealed()
