"""Metrics of trials by arm: booked now and then from counts, so that no request writes one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram

from contract import metrics
from contract.metrics import NO_FAMILY, Metric
from contract.trial import ArmCounts, ArmName, PairCounts, TrialCounts, TrialKind

_PAIRS = tuple(PairCounts.model_fields)


class ArmMetrics:
    """What arms did, as counters of one process.

    Args:
        registry: where they are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(metric: Metric) -> Counter:
            name = metric.name.removesuffix("_total")
            return Counter(name, metric.help, metric.labels, registry=registry)

        self._requests = counter(metrics.ARM_REQUESTS)
        self._texts = {
            "texts": counter(metrics.ARM_TEXTS),
            "escalated": counter(metrics.ARM_ESCALATED),
            "degraded": counter(metrics.ARM_DEGRADED),
        }
        self._usd = counter(metrics.ARM_USD)
        self._pairs = counter(metrics.ARM_PAIRS)
        self._duration = Histogram(
            metrics.ARM_DURATION.name,
            metrics.ARM_DURATION.help,
            metrics.ARM_DURATION.labels,
            buckets=metrics.ARM_DURATION.buckets,
            registry=registry,
        )
        self._booked: dict[str, dict[str, TrialCounts]] = {}

    def book(self, trials: Mapping[str, tuple[TrialKind, TrialCounts]], family: str = NO_FAMILY) -> None:
        """Book what was counted since the last call; the live arm once, however many trials watch it.

        Args:
            trials: kind and counts by the trial's id, the counts growing from call to call.
            family: name that theirs is served under.
        """
        known = self._booked.get(family, {})
        for place, (trial, (kind, now)) in enumerate(trials.items()):
            before = known.get(trial, TrialCounts())
            if place == 0:
                self._book(family, "live", before.live, now.live)
            self._book(family, kind, before.candidate, now.candidate)
            for outcome in _PAIRS:
                _add(self._pairs.labels(family, kind, outcome), now.pairs, before.pairs, outcome)
        self._booked[family] = {trial: now for trial, (_, now) in trials.items()}

    def _book(self, family: str, arm: ArmName, before: ArmCounts, now: ArmCounts) -> None:
        _add(self._requests.labels(family, arm, "ok"), now, before, "requests")
        _add(self._requests.labels(family, arm, "failed"), now, before, "failed")
        for name, texts in self._texts.items():
            _add(texts.labels(family, arm), now, before, name)
        _add(self._usd.labels(family, arm), now, before, "usd")
        duration: Any = self._duration.labels(family, arm)
        for bucket, count, known in zip(duration._buckets, now.latencies, before.latencies, strict=True):
            bucket.inc(count - known)
        duration._sum.inc(now.latency_s - before.latency_s)


def _add(counter: Any, now: Any, before: Any, name: str) -> None:
    grown = getattr(now, name) - getattr(before, name)
    if grown:
        counter.inc(grown)
