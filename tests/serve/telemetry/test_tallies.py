"""Counts gathered in a process reach the metrics, all of them, and soon."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from serve.telemetry.metrics import Telemetry
from serve.telemetry.tallies import FLUSH_S, Tallies
from serve.types.recorder import RequestRecord

RECORD = RequestRecord("cascade", ["small"], [0.9], 0.004)


def total(telemetry: Telemetry) -> float:
    """Requests counted, without a flush."""
    labels = {"family": "", "model": "cascade", "variant": "small", "outcome": "ok"}
    return telemetry.registry.get_sample_value("sluice_requests_total", labels) or 0.0


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.one_of(st.floats(-1, 20), st.sampled_from([0.1, 0.5, 1.0, 10.0]))),
    st.lists(st.integers(0, 30), max_size=3),
)
def test_gathered_values_make_the_histogram_that_single_ones_make(
    values: list[float], flushed_before: list[int]
) -> None:
    """In the same buckets, on their edges too, however often they are flushed."""
    ways = []
    for gathered in (False, True):
        registry = CollectorRegistry()
        metric = Histogram("h", "h", ["v"], buckets=(0.1, 0.5, 1.0, 10.0), registry=registry)
        tallies = Tallies()
        for i, value in enumerate(values):
            if not gathered:
                metric.labels("a").observe(value)
                continue
            if i in flushed_before:
                tallies.flush()
            tallies.spread(metric, "a").observe(value)
        tallies.flush()
        ways.append(
            {
                sample.labels["le"]: sample.value
                for family in registry.collect()
                for sample in family.samples
                if sample.name == "h_bucket"
            }
        )
    assert ways[1] == ways[0] or not values


def test_without_a_loop_counts_are_there_at_once() -> None:
    """As in a command that counts and ends."""
    telemetry = Telemetry()
    telemetry.answered(RECORD)
    assert total(telemetry) == 1


@pytest.mark.anyio
async def test_on_a_loop_the_first_count_is_there_in_the_next_turn_and_the_others_within_a_flush() -> None:
    """A request does not wait for its count; a quiet gateway shows it at once, a busy one a little later."""
    telemetry = Telemetry()
    telemetry.answered(RECORD)
    assert total(telemetry) == 0
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert total(telemetry) == 1
    for _ in range(10):
        telemetry.answered(RECORD)
    await asyncio.sleep(0)
    assert total(telemetry) == 1
    async with asyncio.timeout(10 * FLUSH_S):
        while total(telemetry) < 11:
            await asyncio.sleep(0)
    assert total(telemetry) == 11


@pytest.mark.anyio
async def test_a_scrape_from_another_thread_sees_every_count() -> None:
    """Asked in a thread, as pages are drawn: it has the loop write first, and loses nothing to it."""
    telemetry = Telemetry()
    for wanted in range(1, 200):
        telemetry.answered(RECORD)
        page = await asyncio.to_thread(telemetry.render, 0, None)
        line = f'sluice_requests_total{{family="",model="cascade",outcome="ok",variant="small"}} {wanted}.0'
        assert line.encode() in page


def test_a_process_that_ends_in_order_leaves_its_exact_totals(tmp_path: Path) -> None:
    """Counted on a loop and never flushed by anybody: the end of the process does it."""
    script = """
import asyncio
from serve.telemetry.metrics import Telemetry
from serve.types.recorder import RequestRecord
async def main():
    telemetry = Telemetry()
    for _ in range(1000):
        telemetry.answered(RequestRecord("cascade", ["small"], [0.9], 0.004))
    global kept
    kept = telemetry
asyncio.run(main())
"""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(tmp_path))  # type: ignore[no-untyped-call]
    page = generate_latest(registry)
    assert b'sluice_requests_total{family="",model="cascade",outcome="ok",variant="small"} 1000.0' in page


def test_a_counter_takes_what_was_gathered_once() -> None:
    """Two flushes add it once."""
    metric = Counter("c", "c", registry=CollectorRegistry())
    tallies = Tallies()
    tallies.count(metric).value += 3
    tallies.flush()
    tallies.flush()
    assert metric._value.get() == 3
