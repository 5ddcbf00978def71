"""Metrics of several processes, dead ones included, add up in one scrape."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from contract import metrics
from serve.ray import deployments
from serve.telemetry.metrics import Telemetry

WRITE = """
from serve.types.recorder import BatchRecord, RequestRecord
from serve.telemetry.metrics import Telemetry
t = Telemetry()
t.answered(RequestRecord("cascade", ["small", "large"], [0.9, 0.99], 0.004, 0.002, [("small", "large", 1)]))
t.refused("cascade", "overloaded", 3)
t.batch(BatchRecord("small", 2, [0.0, 0.001], 0.002, 0.0015))
t.account_for_the_rest(0.5)
t.queue_items.labels("", "small").set(7)
"""
READ = """
import sys
from serve.telemetry.metrics import Telemetry
sys.stdout.buffer.write(Telemetry().render(0, None))
"""


def scrape(folder: Path, writers: int) -> dict[str, float]:
    """Samples after some processes have written and ended, by name and labels."""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    for _ in range(writers):
        subprocess.run([sys.executable, "-c", WRITE], env=environment, check=True)
    page = subprocess.run(
        [sys.executable, "-c", READ], env=environment, check=True, capture_output=True, text=True
    ).stdout
    return {
        sample.name + "".join(f",{k}={v}" for k, v in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def test_the_folder_is_made_where_it_is_needed(tmp_path: Path) -> None:
    """A process on a node where nobody made the folder makes it, for its own user alone."""
    folder = tmp_path / "of" / "this-run"
    assert scrape(folder, 1)["sluice_requests_total,family=,model=cascade,outcome=ok,variant=small"] == 1
    assert folder.stat().st_mode & 0o777 == 0o700


def test_totals_of_dead_processes_stay_and_their_queues_do_not(tmp_path: Path) -> None:
    """Counters and histograms of two ended processes add up; their queue lengths are forgotten."""
    samples = scrape(tmp_path, 2)
    assert samples["sluice_requests_total,family=,model=cascade,outcome=ok,variant=small"] == 2
    assert samples["sluice_requests_total,family=,model=cascade,outcome=overloaded,variant=none"] == 6
    assert samples["sluice_request_duration_seconds_count,family=,model=cascade,stage=total"] == 2
    assert samples["sluice_escalations_total,family=,from_variant=small,to_variant=large"] == 2
    assert abs(samples["sluice_cpu_seconds_total,family=,variant=small"] - 0.003) < 1e-9
    assert abs(samples["sluice_cpu_seconds_total,family=,variant=gateway"] - (1.0 - 0.003)) < 1e-9
    assert f"{metrics.QUEUE_ITEMS.name},variant=small" not in samples


@pytest.mark.anyio
async def test_energy_at_a_users_price_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """With --watts-per-core, what CodeCarbon thinks does not matter: the counter's provenance is the user."""

    class Ready:
        async def states(self) -> list[Any]:
            return []

    monkeypatch.setattr(deployments, "METER_EVERY_S", 0.01)
    telemetry = Telemetry()
    metering = asyncio.create_task(deployments.meter_energy(Ready().states, telemetry, 5.0))
    while (page := telemetry.render(0, None)) and b'joules_total{provenance="user-constant"}' not in page:
        assert not metering.done()
        sum(number * number for number in range(100_000))
        await asyncio.sleep(0)
    metering.cancel()
    assert b"estimated-load" not in page


def test_incidents_are_counted_and_a_breaker_is_in_one_state() -> None:
    """What happens seldom: retries, hedges, clients that left, and where each breaker stands."""
    telemetry = Telemetry()
    for kind in ("breaker_closed", "breaker_open", "breaker_half_open", "breaker_open"):
        telemetry.incident(kind, "teacher")
    telemetry.incident("retry_sent", "teacher", 3)
    telemetry.incident("hedge_won", "teacher", 2)
    telemetry.incident("client_left", "")
    page = telemetry.render(0, None).decode()
    for line in (
        'sluice_stage_breaker{family="",stage="teacher",state="open"} 1.0',
        'sluice_stage_breaker{family="",stage="teacher",state="closed"} 0.0',
        'sluice_stage_breaker{family="",stage="teacher",state="half_open"} 0.0',
        'sluice_stage_retries_total{family="",outcome="sent",stage="teacher"} 3.0',
        'sluice_stage_hedges_total{family="",outcome="won",stage="teacher"} 2.0',
        "sluice_clients_left_total 1.0",
    ):
        assert line in page


def test_a_stage_that_is_there_no_more_leaves_nothing_in_the_gauges(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What waited at it and how its breaker stood ends with it; the others' states stand."""
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    telemetry = Telemetry()
    telemetry.stages_are({("", "old"): "open", ("", "small"): "closed"})
    telemetry.queue_items.labels("", "old").set(40)
    telemetry.stages_are({("", "small"): "half_open"})
    page = telemetry.counts().decode()
    assert 'sluice_queue_items{family="",variant="old"} 0.0' in page
    states = [line for line in page.splitlines() if line.startswith("sluice_stage_breaker{")]
    assert [line for line in states if line.endswith(" 1.0")] == [
        'sluice_stage_breaker{family="",stage="small",state="half_open"} 1.0'
    ]


def test_a_replica_is_counted_in_one_gear_and_only_where_there_are_gears() -> None:
    """The gear that was left is 0, the one taken 1, and a policy without gears has no series."""
    telemetry = Telemetry()
    telemetry.gears_are({"a": "busy", "b": ""})
    telemetry.gears_are({"a": "overload-1", "b": ""})
    page = telemetry.render(0, None).decode()
    assert 'sluice_gear{family="a",gear="busy"} 0.0' in page
    assert 'sluice_gear{family="a",gear="overload-1"} 1.0' in page
    assert 'gear="",' not in page
    assert 'family="b"' not in page
