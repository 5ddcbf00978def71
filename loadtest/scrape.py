"""What the server says it used: readings of `/metrics`, and their difference.

A meter counts in steps (of a second, say), so a reading is up to one step old. Over a few seconds that is
a large error; energy is therefore read where its counter has just stepped.
"""

from __future__ import annotations

import http.client
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from contract.machine import EnergyProvenance
from contract.metrics import CPU_SECONDS, ENERGY, REMOTE_USD, REQUESTS

# The generator asks the server itself, so its counters are not asked by way of a proxy either.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
POLL_S = 0.1
STEP_S = 1.5
_NOT_COUNTED = "{url}/metrics does not count it"
_NOT_MOVED = "the counter in {url}/metrics did not move during the run, which a longer one may mend"

# Weakest first: a sum of several provenances is only as good as the weakest.
_PROVENANCES: tuple[EnergyProvenance, ...] = ("user-constant", "estimated-load", "measured-rapl")


@dataclass(frozen=True)
class Reading:
    """Counters at one time; a metric that the page lacks is None.

    Attributes:
        at_s: seconds of `time.perf_counter`.
        served: texts answered since the server started.
        cpu_seconds: by variant.
        joules: by provenance.
        charged_usd: by models behind HTTP.
    """

    at_s: float
    served: float | None
    cpu_seconds: Mapping[str, float] | None
    joules: Mapping[str, float] | None
    charged_usd: float | None = None

    @property
    def all_joules(self) -> float:
        """All energy of the page."""
        return sum((self.joules or {}).values())


@dataclass(frozen=True)
class ServerUse:
    """What a server used between two readings; None where it does not say.

    Attributes:
        window_s: time between the readings.
        served: texts answered in it.
        cpu_seconds: CPU time by variant; `gateway` is everything else.
        joules: energy of the machine, idle power included.
        idle_joules: what the idle machine would have used in that time, when that was measured.
        beside_cpu_seconds: CPU time of the generator, when it ran on the same machine.
        provenance: how the energy is known.
        charged_usd: what models behind HTTP charged.
    """

    window_s: float
    served: float | None = None
    cpu_seconds: Mapping[str, float] | None = None
    joules: float | None = None
    idle_joules: float | None = None
    beside_cpu_seconds: float = 0.0
    provenance: EnergyProvenance = "none"
    charged_usd: float | None = None

    @property
    def dynamic_joules(self) -> float | None:
        """Energy above idle that the server's CPU time accounts for; None unless idle power is known."""
        if self.joules is None or self.idle_joules is None:
            return None
        above = max(0.0, self.joules - self.idle_joules)
        own = sum((self.cpu_seconds or {}).values())
        return above * own / (own + self.beside_cpu_seconds) if own > 0 else above

    @property
    def loaded_joules(self) -> float | None:
        """All energy, less what the generator's CPU time accounts for where idle power is known."""
        dynamic = self.dynamic_joules
        return self.joules if dynamic is None or self.idle_joules is None else self.idle_joules + dynamic


def parse_metrics(page: str, at_s: float) -> Reading:
    """Return the counters of a Prometheus text page. Raises ValueError when it is not one."""
    served: float | None = None
    cpu: dict[str, float] = {}
    joules: dict[str, float] = {}
    charged: float | None = None
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name == REQUESTS.name:
                served = (served or 0.0) + sample.value * (sample.labels.get("outcome", "ok") == "ok")
            elif sample.name == CPU_SECONDS.name:
                name = sample.labels.get("variant", "")
                cpu[name] = cpu.get(name, 0.0) + sample.value
            elif sample.name == ENERGY.name:
                name = sample.labels.get("provenance", "")
                joules[name] = joules.get(name, 0.0) + sample.value
            elif sample.name == REMOTE_USD.name:
                charged = (charged or 0.0) + sample.value
    return Reading(at_s, served, cpu or None, joules or None, charged)


def headers(api_key: str | None) -> dict[str, str]:
    """Return the headers that carry a key."""
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


def read_metrics(url: str, api_key: str | None = None, *, timeout_s: float = 5.0) -> Reading | None:
    """Scrape `url`/metrics; None when there is no such page or it cannot be read."""
    try:
        return _scrape(url, api_key, timeout_s)
    except (OSError, ValueError, http.client.HTTPException):
        return None


def what_is_missing(use: ServerUse | None, url: str, api_key: str | None = None) -> str | None:
    """Return why a run has no energy or no CPU time, in one line; None where it has both."""
    if use is not None and use.joules is not None and use.cpu_seconds is not None:
        return None
    try:
        page = _scrape(url, api_key, 5.0)
    except (OSError, ValueError, http.client.HTTPException) as problem:
        return f"no energy and no CPU time: {url}/metrics cannot be read ({problem})"
    if use is None:
        return f"no energy and no CPU time: {url}/metrics was not there all the time, or started anew"
    said = []
    if use.joules is None:
        told = _NOT_MOVED if page.joules else f"{_NOT_COUNTED} (`sluice serve --watts-per-core N` does)"
        said.append("no energy: " + told.format(url=url))
    if use.cpu_seconds is None:
        said.append("no CPU time: " + _NOT_COUNTED.format(url=url))
    return "; ".join(said)


def _scrape(url: str, api_key: str | None, timeout_s: float) -> Reading:
    request = urllib.request.Request(f"{url.rstrip('/')}/metrics", headers=headers(api_key))
    with DIRECT.open(request, timeout=timeout_s) as response:
        page = response.read().decode("utf-8", "replace")
    return parse_metrics(page, time.perf_counter())


def read_at_step(
    url: str, api_key: str | None = None, *, limit_s: float = STEP_S, after: Reading | None = None
) -> Reading | None:
    """Return a reading taken when the energy counter has just stepped, or the last one before the limit.

    Returns at once where the page has no energy. `after` is a reading that the step is to be seen against.
    """
    first = after or read_metrics(url, api_key)
    reading, until = first, time.perf_counter() + limit_s
    while first is not None and reading is not None and first.joules and time.perf_counter() < until:
        time.sleep(POLL_S)
        reading = read_metrics(url, api_key)
        if reading is not None and reading.all_joules != first.all_joules:
            break
    return reading


def difference(
    before: Reading | None,
    after: Reading | None,
    *,
    stepped: Reading | None = None,
    idle_watts: float | None = None,
    beside_cpu_share: float = 0.0,
) -> ServerUse | None:
    """Return what was used between two readings; None when one is missing or a counter went back.

    Args:
        before, after: readings around the load, `before` at a step of the energy counter.
        stepped: a reading at a step soon after `after`, when the server was idle again; energy is taken up
            to there, less what being idle took since `after`.
        idle_watts: power of the idle machine; None leaves energy above idle unknown.
        beside_cpu_share: CPU time of the generator as a share of one core, when it ran on the same machine.
    """
    if before is None or after is None:
        return None
    window = after.at_s - before.at_s
    served = None if before.served is None or after.served is None else after.served - before.served
    cpu = _grown(before.cpu_seconds or {}, after.cpu_seconds)
    joules = _grown(before.joules or {}, (stepped or after).joules)
    found = (served or 0.0, *(cpu or {}).values(), *(joules or {}).values())
    if window <= 0 or min(found) < 0:
        return None
    tail = 0.0 if stepped is None else max(0.0, stepped.at_s - after.at_s)
    sources = [p for p in _PROVENANCES if joules and joules.get(p, 0.0) > 0]
    return ServerUse(
        window_s=window,
        served=served,
        cpu_seconds=cpu,
        joules=_less_idle(sum(joules[p] for p in sources), window, tail, idle_watts)
        if joules and sources
        else None,
        idle_joules=None if idle_watts is None else idle_watts * window,
        beside_cpu_seconds=beside_cpu_share * window,
        provenance=sources[0] if sources else "none",
        charged_usd=None if after.charged_usd is None else after.charged_usd - (before.charged_usd or 0.0),
    )


def _less_idle(joules: float, window: float, tail: float, idle_watts: float | None) -> float:
    if idle_watts is None:
        return joules * window / (window + tail)
    return max(0.0, joules - idle_watts * tail)


def _grown(before: Mapping[str, float], after: Mapping[str, float] | None) -> dict[str, float] | None:
    if after is None:
        return None
    return {name: value - before.get(name, 0.0) for name, value in after.items()}
