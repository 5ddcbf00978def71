"""What a proxy sees of its gateway: families, policies, trials, and counters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import httpx
from prometheus_client.parser import text_string_to_metric_families

from contract.errors import SluiceError
from contract.metrics import REQUESTS, SAVED_USD
from serve.control.admin_client import list_families, show_policy, show_trials
from sluicegate.proxy.moves import Facts
from sluicegate.proxy.recipe import TEACHER


class View(Protocol):
    """Whoever says what a gateway serves, and what it has counted."""

    def look(self) -> Facts | None:
        """Return what is served; None where no gateway answers."""
        ...

    def counters(self) -> dict[str, float]:
        """Return `saved_usd`, and texts answered `here` and `elsewhere`; nothing where they are not known."""
        ...


@dataclass(frozen=True)
class Gateway:
    """A running gateway, asked at its two ports.

    Attributes:
        url, admin_url: of both.
        family: name of the one that is looked at.
    """

    url: str
    admin_url: str
    family: str

    def look(self) -> Facts | None:
        """Return what is served under the family's name; None where no gateway answers (yet)."""
        try:
            served = [one["served_as"] for one in list_families(self.admin_url)["families"]]
            if self.family not in served:
                return Facts()
            revision = show_policy(self.admin_url, family=self.family)
            trials = show_trials(self.admin_url, family=self.family)
        except SluiceError:
            return None
        return Facts(
            loaded=True,
            in_force=str(revision["policy"]["version"]),
            trials={one["kind"]: (one["policy_version"], one["verdict"]["decision"]) for one in trials},
        )

    def counters(self) -> dict[str, float]:
        """Return what the page of metrics says."""
        try:
            reply = httpx.get(f"{self.url}/metrics", timeout=3, trust_env=False)
            reply.raise_for_status()
        except httpx.HTTPError:
            return {}
        return read_counters(reply.text)


def read_counters(page: str) -> dict[str, float]:
    """Return `saved_usd`, and texts answered `here` and `elsewhere`, from a page of metrics."""
    found = {"saved_usd": 0.0, "here": 0.0, "elsewhere": 0.0}
    for metric in text_string_to_metric_families(page):
        for sample in metric.samples:
            if sample.name == SAVED_USD.name:
                found["saved_usd"] += sample.value
            elif sample.name == REQUESTS.name and sample.labels.get("outcome") == "ok":
                by_upstream = TEACHER in (sample.labels.get("variant"), sample.labels.get("model"))
                found["elsewhere" if by_upstream else "here"] += sample.value
    return found
