"""Metrics of the gateway: prometheus_client in multiprocess mode, exact over all replicas, dead ones too."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import get_args

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from contract import metrics
from contract.metrics import NO_FAMILY, Metric
from contract.policy import Policy
from serve.telemetry.dead_files import alone_in, remove_earlier_deploys, tidy
from serve.telemetry.disk import reserve
from serve.telemetry.figures import FamilyFigures, Meters
from serve.telemetry.tallies import OTHERS_FLUSH_S, Tallies
from serve.types.recorder import BreakerState, Incident, PassingOn

MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"
GATEWAY = "gateway"
_TOLD: dict[BreakerState, Incident] = {
    "closed": "breaker_closed",
    "open": "breaker_open",
    "half_open": "breaker_half_open",
}
InForce = tuple[str, int, Policy]
"""Of one family: the name that it is served under, its revision and its policy."""


class Telemetry(PassingOn, Meters):
    """The metrics that one process writes. PROMETHEUS_MULTIPROC_DIR, made here, sends them to files.

    As a recorder it counts what belongs to no family.
    """

    def __init__(self) -> None:
        if folder := os.environ.get(MULTIPROCESS_DIR):
            Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
            reserve(Path(folder))
            with alone_in(Path(folder)):
                tidy(Path(folder))
            remove_earlier_deploys(Path(folder))
        self.registry = CollectorRegistry()
        Meters.__init__(self, self.registry)
        self._tallies = Tallies()
        self._families: dict[str, FamilyFigures] = {}
        self._stages: frozenset[tuple[str, str]] = frozenset()
        self._gears: frozenset[tuple[str, str]] = frozenset()
        self._gateway_cpu_s = 0.0
        PassingOn.__init__(self, self.of(NO_FAMILY))

    def of(self, family: str) -> FamilyFigures:
        """Return the recorder of a family, by the name that it is served under."""
        if family not in self._families:
            self._families[family] = FamilyFigures(family, self, self._tallies)
        return self._families[family]

    def stages_are(self, states: Mapping[tuple[str, str], BreakerState]) -> None:
        """Set the gauges of the stages that there are now, and clear those of stages that there were.

        Args:
            states: of their breakers, by family and stage.
        """
        for family, stage in self._stages - states.keys():
            self.queue_items.labels(family, stage).set(0)
            for state in get_args(BreakerState):
                self.stage_breaker.labels(family, stage, state).set(0)
        for (family, stage), state in states.items():
            self.of(family).incident(_TOLD[state], stage)
        self._stages = frozenset(states)

    def gears_are(self, gears: Mapping[str, str]) -> None:
        """Set the gauge of the gear that this replica is in, by family; a policy without any has none.

        A gear that was left stays as 0.
        """
        now = frozenset((family, gear) for family, gear in gears.items() if gear)
        for family, gear in self._gears - now:
            self.gear.labels(family, gear).set(0)
        for family, gear in now - self._gears:
            self.gear.labels(family, gear).set(1)
        self._gears = now

    def account_for_the_rest(self, process_cpu_s: float) -> None:
        """Book what no variant used of `process_cpu_s`, the CPU time of this process since its start."""
        variants_cpu_s = sum(figures.variants_cpu_s for figures in self._families.values())
        rest = process_cpu_s - variants_cpu_s - self._gateway_cpu_s
        if rest > 0:
            self._tallies.count(self.cpu_seconds, NO_FAMILY, GATEWAY).value += rest
            self._gateway_cpu_s += rest
            self._tallies.changed()

    def flush(self) -> None:
        """Let every process's scrape see all that was counted here so far."""
        self._tallies.flush()

    def render(self, revision: int, policy: Policy | None) -> bytes:
        """Return the Prometheus text of all processes of this node, and the gauges of the policy in force.

        See `counts`.
        """
        return self.counts() + (b"" if policy is None else policy_state([(NO_FAMILY, revision, policy)]))

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


def policy_state(in_force: Collection[InForce], families: int | None = None) -> bytes:
    """Return the gauges of what is in force as Prometheus text.

    Args:
        in_force: the policies of the families that are ready.
        families: how many are served, ready or not; None: those.
    """
    state = CollectorRegistry()
    state.register(_PolicyState(in_force, len(in_force) if families is None else families))
    return generate_latest(state)


class _PolicyState(Collector):
    """Gauges of the policies in force, drawn fresh at each scrape: a policy that left leaves no series."""

    def __init__(self, in_force: Collection[InForce], families: int) -> None:
        self._in_force = in_force
        self._families = families

    def collect(self) -> Iterable[GaugeMetricFamily]:
        info, revisions = _gauge(metrics.POLICY_INFO), _gauge(metrics.REVISION)
        escalation = _gauge(metrics.POLICY_EXPECTED_ESCALATION)
        energy = _gauge(metrics.POLICY_EXPECTED_ENERGY)
        for family, revision, policy in self._in_force:
            info.add_metric([family, policy.version, policy.status], 1)
            revisions.add_metric([family], revision)
            expected = policy.expected
            if expected.escalation_rate is not None:
                escalation.add_metric([family], expected.escalation_rate)
            if expected.energy_wh_per_1k is not None:
                energy.add_metric([family], expected.energy_wh_per_1k * 3.6)
        served = GaugeMetricFamily(metrics.FAMILIES.name, metrics.FAMILIES.help, value=self._families)
        return [served, *(gauge for gauge in (info, revisions, escalation, energy) if gauge.samples)]


def _gauge(metric: Metric) -> GaugeMetricFamily:
    return GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
