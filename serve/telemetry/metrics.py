"""Metrics of the gateway: prometheus_client in multiprocess mode, exact over all replicas, dead ones too."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from contract import metrics
from contract.metrics import Metric, Outcome
from contract.policy import Policy
from serve.telemetry.arms import ArmMetrics
from serve.telemetry.dead_files import alone_in, remove_earlier_deploys, tidy
from serve.telemetry.disk import reserve
from serve.telemetry.tallies import OTHERS_FLUSH_S, Count, Spread, Tallies
from serve.types.messages import CASCADE
from serve.types.prices import Prices
from serve.types.recorder import BatchRecord, BreakerState, DegradedReason, Incident, RequestRecord

MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"
GATEWAY = "gateway"
_TOLD: dict[BreakerState, Incident] = {
    "closed": "breaker_closed",
    "open": "breaker_open",
    "half_open": "breaker_half_open",
}


def _counter(metric: Metric, registry: CollectorRegistry) -> Counter:
    return Counter(metric.name.removesuffix("_total"), metric.help, metric.labels, registry=registry)


def _histogram(metric: Metric, registry: CollectorRegistry) -> Histogram:
    return Histogram(metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=registry)


def _live_gauge(metric: Metric, registry: CollectorRegistry) -> Gauge:
    return Gauge(metric.name, metric.help, metric.labels, multiprocess_mode="livesum", registry=registry)


class Telemetry:
    """The metrics that one process writes. PROMETHEUS_MULTIPROC_DIR, made here, sends them to files."""

    def __init__(self) -> None:
        if folder := os.environ.get(MULTIPROCESS_DIR):
            Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
            reserve(Path(folder))
            with alone_in(Path(folder)):
                tidy(Path(folder))
            remove_earlier_deploys(Path(folder))
        own = CollectorRegistry()
        self.registry = own
        self.requests = _counter(metrics.REQUESTS, own)
        self.request_duration = _histogram(metrics.REQUEST_DURATION, own)
        self.escalations = _counter(metrics.ESCALATIONS, own)
        self.degraded = _counter(metrics.DEGRADED, own)
        self.batch_items = _histogram(metrics.BATCH_ITEMS, own)
        self.confidence = _histogram(metrics.CONFIDENCE, own)
        self.limits = _counter(metrics.LIMITED, own)
        self.cpu_seconds = _counter(metrics.CPU_SECONDS, own)
        self.energy = _counter(metrics.ENERGY, own)
        self.queue_items = _live_gauge(metrics.QUEUE_ITEMS, own)
        self.stage_breaker = _live_gauge(metrics.STAGE_BREAKER, own)
        self.stage_retries = _counter(metrics.STAGE_RETRIES, own)
        self.stage_hedges = _counter(metrics.STAGE_HEDGES, own)
        self.clients_left = _counter(metrics.CLIENTS_LEFT, own)
        self.usd = _counter(metrics.USD, own)
        self.saved_usd = _counter(metrics.SAVED_USD, own)
        self._unsaved_usd = 0.0
        self._stages: frozenset[str] = frozenset()
        self.arms = ArmMetrics(own)

        self._tallies = Tallies()
        self._answers: dict[tuple[str, str], tuple[Count, Spread]] = {}
        self._runs: dict[str, tuple[Spread, Spread, Spread, Count]] = {}
        self._totals: dict[str, Spread] = {}
        # A rate over a series that starts at its first event misses that event.
        for reason in get_args(DegradedReason):
            self._tallies.count(self.degraded, reason)
        self._variants_cpu_s = 0.0
        self._gateway_cpu_s = 0.0

    def answered(self, record: RequestRecord) -> None:
        """Count an answered request: texts by variant, time, confidences, escalations, degraded answers."""
        model, tallies = record.model, self._tallies
        for variant, confidence in zip(record.variants, record.confidences, strict=True):
            count, spread = self._answers.get((model, variant)) or self._answers_of(model, variant)
            count.value += 1
            spread.observe(confidence)
        (self._totals.get(model) or self._total_of(model)).observe(record.total_s)
        if record.escalation_s is not None:
            tallies.spread(self.request_duration, model, "escalation").observe(record.escalation_s)
        for source, target, texts in record.escalations:
            tallies.count(self.escalations, source, target).value += texts
        for reason, texts in record.degraded:
            tallies.count(self.degraded, reason).value += texts
        if record.prices is not None:
            self._charge(record, record.prices)
        tallies.changed()

    def _answers_of(self, model: str, variant: str) -> tuple[Count, Spread]:
        found = self._answers[model, variant] = (
            self._tallies.count(self.requests, model, variant, "ok"),
            self._tallies.spread(self.confidence, variant),
        )
        return found

    def _total_of(self, model: str) -> Spread:
        found = self._totals[model] = self._tallies.spread(self.request_duration, model, "total")
        return found

    def _charge(self, record: RequestRecord, prices: Prices) -> None:
        spent = prices.charges(record.runs())
        for variant, usd in spent.items():
            self._tallies.count(self.usd, record.caller or metrics.NO_KEY, variant).value += usd
        if record.model == CASCADE and spent and prices.reference_usd is not None:
            self._save(prices.reference_usd * len(record.variants) - sum(spent.values()))

    def _save(self, usd: float) -> None:
        """Count what a request saved; a loss, as by one that escalated, is taken off what is saved next."""
        self._unsaved_usd += usd
        if self._unsaved_usd > 0:
            self._tallies.count(self.saved_usd).value += self._unsaved_usd
            self._unsaved_usd = 0.0

    def refused(self, model: str, outcome: Outcome, texts: int) -> None:
        """Count texts that got no answer; a request without a readable text counts as one."""
        self._tallies.count(self.requests, model, "none", outcome).value += max(texts, 1)
        self._tallies.changed()

    def limited(self, key: str, limit: str, texts: int) -> None:
        """Count texts of a key beyond one of its limits."""
        self._tallies.count(self.limits, key, limit).value += texts
        self._tallies.changed()

    def batch(self, record: BatchRecord) -> None:
        """Count one call of a variant, with its CPU time."""
        items, queue, inference, cpu = self._runs.get(record.variant) or self._runs_of(record.variant)
        items.observe(record.items)
        for waited_s in record.queue_s:
            queue.observe(waited_s)
        inference.observe(record.inference_s)
        cpu.value += record.cpu_s
        self._variants_cpu_s += record.cpu_s
        self._tallies.changed()

    def _runs_of(self, variant: str) -> tuple[Spread, Spread, Spread, Count]:
        tallies, times = self._tallies, self.request_duration
        found = self._runs[variant] = (
            tallies.spread(self.batch_items, variant),
            tallies.spread(times, variant, "queue"),
            tallies.spread(times, variant, "inference"),
            tallies.count(self.cpu_seconds, variant),
        )
        return found

    def incident(self, kind: Incident, stage: str, texts: int = 1) -> None:
        """Count what happened at a stage; a breaker is in one state at a time."""
        what, _, outcome = kind.partition("_")
        if what == "breaker":
            for state in get_args(BreakerState):
                self.stage_breaker.labels(stage, state).set(float(state == outcome))
            return
        if what == "client":
            count = self._tallies.count(self.clients_left)
        else:
            family = self.stage_retries if what == "retry" else self.stage_hedges
            count = self._tallies.count(family, stage, outcome)
        count.value += texts
        self._tallies.changed()

    def stages_are(self, states: Mapping[str, BreakerState]) -> None:
        """Set the gauges of the stages that there are now, and clear those of stages that there were.

        Args:
            states: of their breakers, by stage.
        """
        for stage in self._stages - states.keys():
            self.queue_items.labels(stage).set(0)
            for state in get_args(BreakerState):
                self.stage_breaker.labels(stage, state).set(0)
        for stage, state in states.items():
            self.incident(_TOLD[state], stage)
        self._stages = frozenset(states)

    def account_for_the_rest(self, process_cpu_s: float) -> None:
        """Book what no variant used of `process_cpu_s`, the CPU time of this process since its start."""
        rest = process_cpu_s - self._variants_cpu_s - self._gateway_cpu_s
        if rest > 0:
            self._tallies.count(self.cpu_seconds, GATEWAY).value += rest
            self._gateway_cpu_s += rest
            self._tallies.changed()

    def flush(self) -> None:
        """Let every process's scrape see all that was counted here so far."""
        self._tallies.flush()

    def render(self, revision: int, policy: Policy | None) -> bytes:
        """Return the Prometheus text of all processes of this node, and the gauges of the policy in force.

        See `counts`.
        """
        return self.counts() + policy_state(revision, policy)

    def counts(self) -> bytes:
        """Return the Prometheus text of what all processes of this node have counted.

        Whatever any of them counted before the call is in it: it waits until they have written it.
        """
        self._tallies.flush_from_anywhere()
        folder = os.environ.get(MULTIPROCESS_DIR)
        if folder is None:
            return generate_latest(self.registry)
        time.sleep(OTHERS_FLUSH_S)
        shared = CollectorRegistry()
        MultiProcessCollector(shared, path=folder)  # type: ignore[no-untyped-call]
        with alone_in(Path(folder)):
            tidy(Path(folder))
            return generate_latest(shared)


def policy_state(revision: int, policy: Policy | None) -> bytes:
    """Return the gauges of the policy in force as Prometheus text; nothing where none is."""
    if policy is None:
        return b""
    state = CollectorRegistry()
    state.register(_PolicyState(revision, policy))
    return generate_latest(state)


class _PolicyState(Collector):
    """Gauges of the policy in force, drawn fresh at each scrape: a policy that left leaves no series."""

    def __init__(self, revision: int, policy: Policy) -> None:
        self._revision = revision
        self._policy = policy

    def collect(self) -> Iterable[GaugeMetricFamily]:
        policy = self._policy
        info = GaugeMetricFamily(
            metrics.POLICY_INFO.name, metrics.POLICY_INFO.help, labels=metrics.POLICY_INFO.labels
        )
        info.add_metric([policy.version, policy.status], 1)
        yield info
        yield GaugeMetricFamily(metrics.REVISION.name, metrics.REVISION.help, value=self._revision)
        expected = policy.expected
        if expected.escalation_rate is not None:
            metric = metrics.POLICY_EXPECTED_ESCALATION
            yield GaugeMetricFamily(metric.name, metric.help, value=expected.escalation_rate)
        if expected.energy_wh_per_1k is not None:
            metric = metrics.POLICY_EXPECTED_ENERGY
            yield GaugeMetricFamily(metric.name, metric.help, value=expected.energy_wh_per_1k * 3.6)
