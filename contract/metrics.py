"""Metric names, labels, help texts and buckets: the one place that the gateway, dashboards and rules read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

LATENCY_BUCKETS_S = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075,
    0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
BATCH_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
CONFIDENCE_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 0.995, 1.0)

NO_KEY = "none"
"""Label `key` of requests that came without one."""

NO_FAMILY = ""
"""Label `family` of what belongs to none."""

Outcome = Literal["ok", "client_error", "overloaded", "deadline", "server_error"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


@dataclass(frozen=True)
class Metric:
    """One metric family as it appears in a scrape (`name`, with the `_total` of counters)."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()

    @property
    def series(self) -> tuple[str, ...]:
        """The sample names that a scrape of this metric holds."""
        if self.kind == "histogram":
            return tuple(f"{self.name}_{suffix}" for suffix in ("bucket", "sum", "count"))
        return (self.name,)


REQUESTS = Metric(
    "sluice_requests_total", "counter", ("family", "model", "variant", "outcome"), "Texts answered or refused"
)
REQUEST_DURATION = Metric(
    "sluice_request_duration_seconds",
    "histogram",
    ("family", "model", "stage"),
    "Time of a request by stage of its path: total, queue, inference, escalation",
    LATENCY_BUCKETS_S,
)
ESCALATIONS = Metric(
    "sluice_escalations_total",
    "counter",
    ("family", "from_variant", "to_variant"),
    "Texts handed to the next stage",
)
DEGRADED = Metric(
    "sluice_degraded_total",
    "counter",
    ("family", "reason"),
    "Texts answered by a cheaper stage than the policy wanted",
)
ABSTAINED = Metric(
    "sluice_abstained_total",
    "counter",
    ("family",),
    "Texts that no stage was sure enough of, and that are left to a person",
)
BATCH_ITEMS = Metric(
    "sluice_batch_items", "histogram", ("family", "variant"), "Texts in one call of a variant", BATCH_BUCKETS
)
CONFIDENCE = Metric(
    "sluice_confidence", "histogram", ("family", "variant"), "Confidence of given answers", CONFIDENCE_BUCKETS
)
CPU_SECONDS = Metric(
    "sluice_cpu_seconds_total",
    "counter",
    ("family", "variant"),
    "CPU time by variant; `gateway` is everything else",
)
ENERGY = Metric(
    "sluice_energy_joules_total", "counter", ("provenance",), "Energy since start, by how it is known"
)
POLICY_INFO = Metric(
    "sluice_policy_info", "gauge", ("family", "version", "status"), "1 for the policy in force"
)
POLICY_EXPECTED_ESCALATION = Metric(
    "sluice_policy_expected_escalation_rate",
    "gauge",
    ("family",),
    "Escalation rate that the policy in force expects",
)
POLICY_EXPECTED_ENERGY = Metric(
    "sluice_policy_expected_energy_joules",
    "gauge",
    ("family",),
    "Joules per request that the policy in force expects",
)
LIMITED = Metric(
    "sluice_limited_total", "counter", ("key", "limit"), "Texts refused because their key was beyond a limit"
)
QUEUE_ITEMS = Metric("sluice_queue_items", "gauge", ("family", "variant"), "Texts waiting for a variant")
USD = Metric(
    "sluice_usd_total",
    "counter",
    ("family", "key", "variant"),
    "Cost of answers by who asked and by the variant that ran",
)
SAVED_USD = Metric(
    "sluice_saved_usd_total",
    "counter",
    ("family",),
    "What the cascade's answers, degraded ones aside, would have cost by the reference alone, less what was "
    "paid",
)
ARM_REQUESTS = Metric(
    "sluice_arm_requests_total",
    "counter",
    ("family", "arm", "outcome"),
    "Requests of the cascade while a candidate is on trial, by arm: ok, failed",
)
ARM_TEXTS = Metric("sluice_arm_texts_total", "counter", ("family", "arm"), "Texts that an arm answered")
ARM_ESCALATED = Metric(
    "sluice_arm_escalated_total", "counter", ("family", "arm"), "Texts that an arm answered by a later stage"
)
ARM_DEGRADED = Metric(
    "sluice_arm_degraded_total",
    "counter",
    ("family", "arm"),
    "Texts answered by a cheaper stage than the arm wanted",
)
ARM_DURATION = Metric(
    "sluice_arm_duration_seconds",
    "histogram",
    ("family", "arm"),
    "Time of a request by arm",
    LATENCY_BUCKETS_S,
)
ARM_USD = Metric("sluice_arm_usd_total", "counter", ("family", "arm"), "Cost of an arm's answers")
ARM_PAIRS = Metric(
    "sluice_arm_pairs_total",
    "counter",
    ("family", "arm", "outcome"),
    "Texts of a candidate's arm by what came of their comparison with the live policy",
)
STAGE_BREAKER = Metric(
    "sluice_stage_breaker",
    "gauge",
    ("family", "stage", "state"),
    "Gateway replicas whose breaker is in that state",
)
STAGE_RETRIES = Metric(
    "sluice_stage_retries_total",
    "counter",
    ("family", "stage", "outcome"),
    "Texts of calls that were lost: sent again, or refused as budget or time was spent",
)
STAGE_HEDGES = Metric(
    "sluice_stage_hedges_total",
    "counter",
    ("family", "stage", "outcome"),
    "Texts of late calls sent to a second replica, and those that it answered first: sent, won",
)
REMOTE_FAILURES = Metric(
    "sluice_remote_failures_total",
    "counter",
    ("family", "stage", "kind"),
    "Texts of requests to servers elsewhere that failed, by kind: unreachable, late, busy, broken, rejected, "
    "unreadable, declined",
)
REMOTE_USD = Metric(
    "sluice_remote_usd_total",
    "counter",
    ("family", "stage"),
    "What servers elsewhere charge, by the tokens that their replies count or by the call",
)
CLIENTS_LEFT = Metric(
    "sluice_clients_left_total", "counter", (), "Requests whose client left before there was an answer"
)
GEAR = Metric(
    "sluice_gear", "gauge", ("family", "gear"), "Gateway replicas in that gear of the policy in force"
)
REVISION = Metric("sluice_revision", "gauge", ("family",), "Number of the live-state revision in force")
FAMILIES = Metric("sluice_families", "gauge", (), "Families in force")

ALL = (
    REQUESTS, REQUEST_DURATION, ESCALATIONS, DEGRADED, ABSTAINED, BATCH_ITEMS, CONFIDENCE, CPU_SECONDS,
    ENERGY, POLICY_INFO, POLICY_EXPECTED_ESCALATION, POLICY_EXPECTED_ENERGY, LIMITED, QUEUE_ITEMS, USD,
    SAVED_USD,
    ARM_REQUESTS, ARM_TEXTS, ARM_ESCALATED, ARM_DEGRADED, ARM_DURATION, ARM_USD, ARM_PAIRS,
    STAGE_BREAKER, STAGE_RETRIES, STAGE_HEDGES, REMOTE_FAILURES, REMOTE_USD, CLIENTS_LEFT, GEAR,
    REVISION, FAMILIES,
)  # fmt: skip
