"""The metrics of several nodes in one page: each count with the node that counted it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

NODE = "node"


def join_pages(pages: Mapping[str, bytes]) -> bytes:
    """Return one page of the pages of several nodes, every sample labelled `node`.

    Totals over the nodes are then sums without that label, and stay exact when a node is lost: its series
    end, where a total that was summed here would fall and look like a restart.

    Args:
        pages: by the node's name, each the Prometheus text of that node's processes.
    """
    registry = CollectorRegistry()
    registry.register(_Joined(pages))
    return generate_latest(registry)


class _Joined(Collector):
    def __init__(self, pages: Mapping[str, bytes]) -> None:
        self._pages = pages

    def collect(self) -> Iterable[Metric]:
        joined: dict[str, Metric] = {}
        for node in sorted(self._pages):
            for family in text_string_to_metric_families(self._pages[node].decode()):
                metric = joined.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                for sample in family.samples:
                    metric.samples.append(sample._replace(labels={NODE: node, **sample.labels}))
        return joined.values()
