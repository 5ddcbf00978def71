"""Metrics by arm: what trials counted, booked once, however often and for however many trials."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from contract.trial import ArmCounts, PairCounts, TrialCounts, TrialKind
from serve.telemetry.arms import ArmMetrics

FASTEST = (1, *(0,) * 21)
Trials = dict[str, tuple[TrialKind, TrialCounts]]


def counts(times: int) -> TrialCounts:
    """Counts that have grown so many times."""
    one = TrialCounts(
        live=ArmCounts(requests=1, texts=2, latency_s=0.0002, latencies=FASTEST),
        candidate=ArmCounts(requests=1, texts=3, failed=1, escalated=1, degraded=1, usd=0.5),
        pairs=PairCounts(same=2, worse=1),
    )
    total = TrialCounts()
    for _ in range(times):
        total = total.plus(one)
    return total


def test_growth_is_booked_once_and_the_live_arm_once_for_all_trials() -> None:
    """Calls in between change nothing; a second trial has its own arm and shares the live one."""
    registry = CollectorRegistry()
    arms = ArmMetrics(registry)
    for times in (1, 1, 3):
        trials: Trials = {"c": ("canary", counts(times)), "s": ("shadow", counts(times))}
        arms.book(trials)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, {"family": "", **labels})

    assert value("sluice_arm_requests_total", arm="live", outcome="ok") == 3
    assert value("sluice_arm_requests_total", arm="canary", outcome="ok") == 3
    assert value("sluice_arm_requests_total", arm="shadow", outcome="failed") == 3
    assert value("sluice_arm_texts_total", arm="live") == 6
    assert value("sluice_arm_escalated_total", arm="canary") == 3
    assert value("sluice_arm_degraded_total", arm="canary") == 3
    assert value("sluice_arm_usd_total", arm="shadow") == 1.5
    assert value("sluice_arm_pairs_total", arm="shadow", outcome="worse") == 3
    assert value("sluice_arm_duration_seconds_bucket", arm="live", le="0.0005") == 3
    assert value("sluice_arm_duration_seconds_count", arm="live") == 3


def test_a_trial_that_follows_another_starts_at_nothing() -> None:
    """Counters go on from what the first one left."""
    registry = CollectorRegistry()
    arms = ArmMetrics(registry)
    arms.book({"one": ("canary", counts(2))})
    arms.book({})
    arms.book({"two": ("canary", counts(1))})
    assert registry.get_sample_value("sluice_arm_texts_total", {"family": "", "arm": "canary"}) == 9
