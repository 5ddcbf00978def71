"""What one process counts of one family: the recorder that the hot path tells, on the process's metrics."""

from __future__ import annotations

from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from contract import metrics
from contract.metrics import Metric, Outcome
from serve.telemetry.arms import ArmMetrics
from serve.telemetry.tallies import Count, Spread, Tallies
from serve.types.messages import CASCADE
from serve.types.prices import Prices
from serve.types.recorder import BatchRecord, BreakerState, DegradedReason, Incident, RequestRecord


def _counter(metric: Metric, registry: CollectorRegistry) -> Counter:
    return Counter(metric.name.removesuffix("_total"), metric.help, metric.labels, registry=registry)


def _histogram(metric: Metric, registry: CollectorRegistry) -> Histogram:
    return Histogram(metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=registry)


def _live_gauge(metric: Metric, registry: CollectorRegistry) -> Gauge:
    return Gauge(metric.name, metric.help, metric.labels, multiprocess_mode="livesum", registry=registry)


class Meters:
    """The metrics of one process, each with the label `family` first where it has that."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = _counter(metrics.REQUESTS, registry)
        self.request_duration = _histogram(metrics.REQUEST_DURATION, registry)
        self.escalations = _counter(metrics.ESCALATIONS, registry)
        self.degraded = _counter(metrics.DEGRADED, registry)
        self.abstained = _counter(metrics.ABSTAINED, registry)
        self.batch_items = _histogram(metrics.BATCH_ITEMS, registry)
        self.confidence = _histogram(metrics.CONFIDENCE, registry)
        self.limits = _counter(metrics.LIMITED, registry)
        self.cpu_seconds = _counter(metrics.CPU_SECONDS, registry)
        self.energy = _counter(metrics.ENERGY, registry)
        self.queue_items = _live_gauge(metrics.QUEUE_ITEMS, registry)
        self.stage_breaker = _live_gauge(metrics.STAGE_BREAKER, registry)
        self.gear = _live_gauge(metrics.GEAR, registry)
        self.stage_retries = _counter(metrics.STAGE_RETRIES, registry)
        self.stage_hedges = _counter(metrics.STAGE_HEDGES, registry)
        self.remote_failures = _counter(metrics.REMOTE_FAILURES, registry)
        self.remote_usd = _counter(metrics.REMOTE_USD, registry)
        self.clients_left = _counter(metrics.CLIENTS_LEFT, registry)
        self.usd = _counter(metrics.USD, registry)
        self.saved_usd = _counter(metrics.SAVED_USD, registry)
        self.arms = ArmMetrics(registry)


class FamilyFigures:
    """What one family does in one process.

    Args:
        family: name that it is served under; empty for what belongs to none.
        meters: of the process.
        tallies: of the process.
    """

    def __init__(self, family: str, meters: Meters, tallies: Tallies) -> None:
        self._family = family
        self._meters = meters
        self._tallies = tallies
        self._unsaved_usd = 0.0
        self._charging: set[str] = set()
        self._answers: dict[tuple[str, str], tuple[Count, Spread]] = {}
        self._runs: dict[str, tuple[Spread, Spread, Spread, Count]] = {}
        self._totals: dict[str, Spread] = {}
        self.variants_cpu_s = 0.0
        # A rate over a series that starts at its first event misses that event.
        for reason in get_args(DegradedReason):
            tallies.count(meters.degraded, family, reason)
        tallies.count(meters.abstained, family)

    def answered(self, record: RequestRecord) -> None:
        """Count an answered request: texts by variant, time, confidences, escalations, degraded answers."""
        model, tallies, meters = record.model, self._tallies, self._meters
        for variant, confidence in zip(record.variants, record.confidences, strict=True):
            count, spread = self._answers.get((model, variant)) or self._answers_of(model, variant)
            count.value += 1
            spread.observe(confidence)
        (self._totals.get(model) or self._total_of(model)).observe(record.total_s)
        if record.escalation_s is not None:
            time_of = tallies.spread(meters.request_duration, self._family, model, "escalation")
            time_of.observe(record.escalation_s)
        for source, target, texts in record.escalations:
            tallies.count(meters.escalations, self._family, source, target).value += texts
        for reason, texts in record.degraded:
            tallies.count(meters.degraded, self._family, reason).value += texts
        if record.abstained:
            tallies.count(meters.abstained, self._family).value += record.abstained
        if record.prices is not None:
            self._charge(record, record.prices)
        tallies.changed()

    def spent(self, record: RequestRecord) -> None:
        """Count what a request without an answer cost."""
        if record.prices is not None:
            self._charge(record, record.prices)
            self._tallies.changed()

    def _answers_of(self, model: str, variant: str) -> tuple[Count, Spread]:
        found = self._answers[model, variant] = (
            self._tallies.count(self._meters.requests, self._family, model, variant, "ok"),
            self._tallies.spread(self._meters.confidence, self._family, variant),
        )
        return found

    def _total_of(self, model: str) -> Spread:
        times = self._meters.request_duration
        found = self._totals[model] = self._tallies.spread(times, self._family, model, "total")
        return found

    def _charge(self, record: RequestRecord, prices: Prices) -> None:
        spent = prices.charges(record.runs())
        key = record.caller or metrics.NO_KEY
        for variant, usd in spent.items():
            self._tallies.count(self._meters.usd, self._family, key, variant).value += usd
        if prices.reference_usd is None or not spent:
            return
        if record.model == CASCADE:
            # Under a policy that abstains a text that is degraded is one that nobody answers.
            unlike = record.abstained or sum(texts for _, texts in record.degraded)
            standing = len(record.variants) - unlike
            here = sum(usd for variant, usd in spent.items() if variant not in self._charging)
            self._save(prices.reference_usd * standing - here)
        elif record.model in self._charging:
            self._save(spent.get(record.model, 0.0))

    def _save(self, usd: float) -> None:
        """Count what was saved; a loss, as by what a server elsewhere charges, is taken off the next.

        All that such servers charge is a loss, comparisons off the path included, so that what requests were
        handed on for is not taken off twice. An answer that is degraded saves nothing: the reference's would
        not have been.
        """
        self._unsaved_usd += usd
        if self._unsaved_usd > 0:
            self._tallies.count(self._meters.saved_usd, self._family).value += self._unsaved_usd
            self._unsaved_usd = 0.0

    def refused(self, model: str, outcome: Outcome, texts: int) -> None:
        """Count texts that got no answer; a request without a readable text counts as one."""
        count = self._tallies.count(self._meters.requests, self._family, model, "none", outcome)
        count.value += max(texts, 1)
        self._tallies.changed()

    def limited(self, key: str, limit: str, texts: int) -> None:
        """Count texts of a key beyond one of its limits."""
        self._tallies.count(self._meters.limits, key, limit).value += texts
        self._tallies.changed()

    def batch(self, record: BatchRecord) -> None:
        """Count one call of a variant, with its CPU time."""
        items, queue, inference, cpu = self._runs.get(record.variant) or self._runs_of(record.variant)
        items.observe(record.items)
        for waited_s in record.queue_s:
            queue.observe(waited_s)
        inference.observe(record.inference_s)
        cpu.value += record.cpu_s
        if record.charged_usd:
            charged = self._tallies.count(self._meters.remote_usd, self._family, record.variant)
            charged.value += record.charged_usd
            self._charging.add(record.variant)
            self._save(-record.charged_usd)
        self.variants_cpu_s += record.cpu_s
        self._tallies.changed()

    def _runs_of(self, variant: str) -> tuple[Spread, Spread, Spread, Count]:
        tallies, meters, family = self._tallies, self._meters, self._family
        times = meters.request_duration
        found = self._runs[variant] = (
            tallies.spread(meters.batch_items, family, variant),
            tallies.spread(times, family, variant, "queue"),
            tallies.spread(times, family, variant, "inference"),
            tallies.count(meters.cpu_seconds, family, variant),
        )
        return found

    def incident(self, kind: Incident, stage: str, texts: int = 1) -> None:
        """Count what happened at a stage; a breaker is in one state at a time."""
        what, _, outcome = kind.partition("_")
        if what == "breaker":
            for state in get_args(BreakerState):
                self._meters.stage_breaker.labels(self._family, stage, state).set(float(state == outcome))
            return
        if what == "client":
            count = self._tallies.count(self._meters.clients_left)
        else:
            meters = self._meters
            by_what = {
                "retry": meters.stage_retries,
                "hedge": meters.stage_hedges,
                "call": meters.remote_failures,
            }
            count = self._tallies.count(by_what[what], self._family, stage, outcome)
        count.value += texts
        self._tallies.changed()
