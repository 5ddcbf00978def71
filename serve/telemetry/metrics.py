"""Metrics of the gateway: prometheus_client in multiprocess mode, exact over all replicas, dead ones too."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from contract import metrics
from contract.metrics import Metric, Outcome
from contract.policy import Policy
from serve.telemetry.arms import ArmMetrics
from serve.types.messages import CASCADE
from serve.types.prices import Prices
from serve.types.recorder import BatchRecord, DegradedReason, RequestRecord

MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"
GATEWAY = "gateway"


def _counter(metric: Metric, registry: CollectorRegistry) -> Counter:
    return Counter(metric.name.removesuffix("_total"), metric.help, metric.labels, registry=registry)


def _histogram(metric: Metric, registry: CollectorRegistry) -> Histogram:
    return Histogram(metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=registry)


class Telemetry:
    """The metrics that one process writes. PROMETHEUS_MULTIPROC_DIR, made here, sends them to files."""

    def __init__(self) -> None:
        if folder := os.environ.get(MULTIPROCESS_DIR):
            Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        own = CollectorRegistry()
        self.registry = own
        self.requests = _counter(metrics.REQUESTS, own)
        self.request_duration = _histogram(metrics.REQUEST_DURATION, own)
        self.escalations = _counter(metrics.ESCALATIONS, own)
        self.degraded = _counter(metrics.DEGRADED, own)
        self.batch_items = _histogram(metrics.BATCH_ITEMS, own)
        self.confidence = _histogram(metrics.CONFIDENCE, own)
        self.cpu_seconds = _counter(metrics.CPU_SECONDS, own)
        self.energy = _counter(metrics.ENERGY, own)
        self.queue_items = Gauge(
            metrics.QUEUE_ITEMS.name,
            metrics.QUEUE_ITEMS.help,
            metrics.QUEUE_ITEMS.labels,
            multiprocess_mode="livesum",
            registry=own,
        )
        self.usd = _counter(metrics.USD, own)
        self.saved_usd = _counter(metrics.SAVED_USD, own)
        self._unsaved_usd = 0.0
        self.arms = ArmMetrics(own)

        self._children: dict[tuple[str, ...], Any] = {}
        # A rate over a series that starts at its first event misses that event.
        for reason in get_args(DegradedReason):
            self._child(self.degraded, reason)
        self._variants_cpu_s = 0.0
        self._gateway_cpu_s = 0.0

    def answered(self, record: RequestRecord) -> None:
        """Count an answered request: texts by variant, time, confidences, escalations, degraded answers."""
        model = record.model
        for variant, confidence in zip(record.variants, record.confidences, strict=True):
            self._child(self.requests, model, variant, "ok").inc()
            self._child(self.confidence, variant).observe(confidence)
        self._child(self.request_duration, model, "total").observe(record.total_s)
        if record.escalation_s is not None:
            self._child(self.request_duration, model, "escalation").observe(record.escalation_s)
        for source, target, texts in record.escalations:
            self._child(self.escalations, source, target).inc(texts)
        for reason, texts in record.degraded:
            self._child(self.degraded, reason).inc(texts)
        if record.prices is not None:
            self._charge(record, record.prices)

    def _charge(self, record: RequestRecord, prices: Prices) -> None:
        spent = prices.charges(record.runs())
        for variant, usd in spent.items():
            self._child(self.usd, record.caller or metrics.NO_KEY, variant).inc(usd)
        if record.model == CASCADE and spent and prices.reference_usd is not None:
            self._save(prices.reference_usd * len(record.variants) - sum(spent.values()))

    def _save(self, usd: float) -> None:
        """Count what a request saved; a loss, as by one that escalated, is taken off what is saved next."""
        self._unsaved_usd += usd
        if self._unsaved_usd > 0:
            self._child(self.saved_usd).inc(self._unsaved_usd)
            self._unsaved_usd = 0.0

    def refused(self, model: str, outcome: Outcome, texts: int) -> None:
        """Count texts that got no answer; a request without a readable text counts as one."""
        self._child(self.requests, model, "none", outcome).inc(max(texts, 1))

    def batch(self, record: BatchRecord) -> None:
        """Count one call of a variant, with its CPU time."""
        variant = record.variant
        self._child(self.batch_items, variant).observe(record.items)
        queue = self._child(self.request_duration, variant, "queue")
        for waited_s in record.queue_s:
            queue.observe(waited_s)
        self._child(self.request_duration, variant, "inference").observe(record.inference_s)
        self._child(self.cpu_seconds, variant).inc(record.cpu_s)
        self._variants_cpu_s += record.cpu_s

    def account_for_the_rest(self, process_cpu_s: float) -> None:
        """Book what no variant used of `process_cpu_s`, the CPU time of this process since its start."""
        rest = process_cpu_s - self._variants_cpu_s - self._gateway_cpu_s
        if rest > 0:
            self._child(self.cpu_seconds, GATEWAY).inc(rest)
            self._gateway_cpu_s += rest

    def _child(self, family: MetricWrapperBase, *labels: str) -> Any:
        key = (family._name, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = family.labels(*labels) if labels else family
        return child

    def render(self, revision: int, policy: Policy | None) -> bytes:
        """Return the Prometheus text of all processes of this node, and the gauges of the policy in force."""
        folder = os.environ.get(MULTIPROCESS_DIR)
        if folder is None:
            page = generate_latest(self.registry)
        else:
            _forget_live_gauges_of_dead_processes(Path(folder))
            shared = CollectorRegistry()
            MultiProcessCollector(shared, path=folder)  # type: ignore[no-untyped-call]
            page = generate_latest(shared)
        if policy is None:
            return page
        state = CollectorRegistry()
        state.register(_PolicyState(revision, policy))
        return page + generate_latest(state)


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


def _forget_live_gauges_of_dead_processes(folder: Path) -> None:
    for file in folder.glob("gauge_live*_*.db"):
        pid = file.stem.rsplit("_", 1)[-1]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            file.unlink(missing_ok=True)
