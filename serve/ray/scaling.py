"""How many replicas load asks for: Ray's autoscaling policy of one deployment, on our own figures.

Ray counts calls, and a call here carries many texts, or none is made while they wait in a gateway: its own
policy would see little of either. Ray takes this module into its controller by value, so it imports nothing
of ours.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

WAITING = "waiting"
"""Texts that wait or run in a replica itself: added up over replicas."""
ASKED = "asked"
"""Texts that all gateways have outstanding for the deployment, as every replica is told: the most counts."""
BUSY = "busy"
"""Share of its time in which a replica works: added up over replicas."""


class ByLoad:
    """As many replicas as keep both targets. Ray adds bounds and delays.

    Args:
        queued: texts that wait or run, per replica.
        busy: share of its time in which a replica works.
    """

    def __init__(self, queued: float, busy: float) -> None:
        self._queued = queued
        self._busy = busy

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Return the number of replicas wanted, from Ray's AutoscalingContext, and no state."""
        figures = context.aggregated_metrics or {}
        shares = figures.get(BUSY, {}).values()
        if not shares:  # nobody has reported yet
            return context.target_num_replicas, {}
        work = sum(figures.get(WAITING, {}).values()) + max(figures.get(ASKED, {}).values(), default=0.0)
        return self.wanted(work, shares), {}

    def wanted(self, work: float, shares: Collection[float]) -> int:
        """Return the replicas that keep both targets.

        Args:
            work: texts that wait or run, all replicas together.
            shares: of each replica's time in which it works.
        """
        return max(1, math.ceil(work / self._queued), math.ceil(sum(shares) / self._busy - 1e-9))
