"""A snapshot made ready for requests: its stages in order, how they score, and what limits them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from contract.family import Family
from router.decide.cascade import CompiledPolicy, CompiledStage
from router.decide.scores import NEEDS_LOGITS
from runtime.pixels import PIXELS
from serve.dataplane.escalation import EscalationBudget
from serve.types.messages import CASCADE, ModelInfo
from serve.types.prices import Prices
from serve.types.stage import Snapshot, Stage, instructions_of


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One stage of the cascade, ready to ask and to score."""

    rules: CompiledStage
    stage: Stage
    temperature: float


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A snapshot made ready for requests, in one gear of its policy.

    Attributes:
        gear: its name; empty where the policy has none.
        watched: stages that texts escalate to, or that not every gear asks first: a dearer gear asks more of
            them.
        shares_encoder: two stages read the same encoding, so that it is worth keeping.
        keeps_encoding: the first of them is the first stage.
        abstains_at: place behind the last step where what nobody is sure of is left to a person; None: the
            last step answers all.
    """

    snapshot: Snapshot
    compiled: CompiledPolicy
    steps: tuple[Step, ...]
    deadline_s: float | None
    objective_s: float | None
    budget: EscalationBudget | None
    votes: bool
    temperatures: Mapping[str, float]
    shares_encoder: bool
    keeps_encoding: bool
    prices: Prices
    certified: bool
    abstains_at: int | None = None
    gear: str = ""
    watched: tuple[Stage, ...] = ()


def make_plans(snapshot: Snapshot) -> tuple[Plan, ...]:
    """Return a plan for each gear, the safest first; one where the policy has none.

    They share the budget of escalations, which is the policy's.
    """
    if not snapshot.gears:
        return (make_plan(snapshot, snapshot.compiled),)
    plans = [make_plan(snapshot, compiled) for _, compiled in snapshot.gears]
    first = {plan.steps[0].rules.variant for plan in plans}
    return tuple(
        replace(
            plan,
            gear=geared.gear.name,
            budget=plans[0].budget,
            watched=tuple(step.stage for step in plan.steps[len(first) == 1 :]),
        )
        for plan, geared in zip(plans, snapshot.gears, strict=True)
    )


def make_plan(snapshot: Snapshot, compiled: CompiledPolicy) -> Plan:
    """Return the plan of requests that go through the stages of the policy, or of one of its gears."""
    policy, family = snapshot.policy, snapshot.family
    asked = compiled.stages[: compiled.last] if compiled.abstains else compiled.stages
    steps = tuple(_step(rules, snapshot.stages, family) for rules in asked)
    limits = policy.limits
    encoders = [family.encoders[family.variant(rules.variant).encoder].sha256 for rules in asked]
    return Plan(
        snapshot=snapshot,
        compiled=compiled,
        steps=steps,
        deadline_s=None if limits.deadline_ms is None else limits.deadline_ms / 1e3,
        objective_s=None if limits.objective_ms is None else limits.objective_ms / 1e3,
        budget=None if limits.max_escalation_rate is None else EscalationBudget(limits.max_escalation_rate),
        votes=any(rules.score == "agreement" for rules in compiled.stages[:-1]),
        temperatures={variant.name: variant.temperature for variant in snapshot.family.variants},
        shares_encoder=len(set(encoders)) < len(encoders),
        keeps_encoding=encoders[0] in encoders[1:],
        prices=Prices.of_family(snapshot.family, policy.reference),
        certified=policy.status == "certified",
        abstains_at=compiled.last if compiled.abstains else None,
    )


def describe(name: str, plan: Plan, served_as: str = "") -> ModelInfo:
    """Return what a client may know of the cascade or of a variant of the family."""
    snapshot = plan.snapshot
    family = snapshot.family
    cascade = name == CASCADE
    variant = family.variant(snapshot.policy.stages[0].variant if cascade else name)
    images = family.encoders[variant.encoder].kind == PIXELS
    asked = instructions_of(snapshot.stages.get(snapshot.policy.reference))
    if cascade:
        policy = snapshot.policy
        return ModelInfo(
            name, family.labels, CASCADE, policy.version, served_as, name, images, asked, policy.abstains
        )
    artifact = variant.artifact.sha256
    return ModelInfo(name, family.labels, variant.kind, artifact, served_as, name, images, asked)


def _step(rules: CompiledStage, stages: Mapping[str, Stage], family: Family) -> Step:
    """A stage without a temperature uses the variant's own, as the predictions behind the policy did."""
    if rules.temperature is None and rules.score not in NEEDS_LOGITS:
        rules = replace(rules, temperature=family.variant(rules.variant).temperature)
    return Step(rules, stages[rules.variant], rules.temperature or 1.0)
