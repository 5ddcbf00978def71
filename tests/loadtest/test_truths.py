"""Real Locust against servers of known behaviour: what is measured is what happened."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from contract.errors import InputError
from contract.run import read_requests, read_summary
from loadtest import runner, scrape
from loadtest.generator import Generator, LoadAborted
from loadtest.reference import Behaviour, serving
from loadtest.runner import LoadPlan, LoadProgress, drive, measure_idle_watts, run_load
from loadtest.scrape import Reading, read_metrics
from serve.local.processes import look_at
from tables.labelled import from_rows

# The reference server answers the first word: 1 text in 10 is labelled otherwise.
TEXTS = from_rows([(f"l{i % 3} text {i} é", "other" if i % 10 == 0 else f"l{i % 3}") for i in range(50)])


@pytest.fixture(scope="module")
def generator() -> Iterator[Generator]:
    """Locust, for the runs that may share one."""
    with Generator() as started:
        yield started


def _plan(url: str, rate: float = 100.0, seconds: float = 1.0, **more: object) -> LoadPlan:
    given: dict[str, object] = {"data": TEXTS, "warmup_s": 0.2, "slo_ms": 100.0, "seed": 1, **more}
    return LoadPlan(url=url, rate_per_s=rate, duration_s=seconds, **given)  # type: ignore[arg-type]


def test_a_run_is_written_with_the_rate_asked_and_the_labels_known(tmp_path: Path) -> None:
    """The arrivals are those of the seed, each is sent once, none waits, and accuracy is the known one."""
    with serving(Behaviour(delay_ms=5)) as server:
        seen: list[LoadProgress] = []
        summary = run_load(_plan(server.url, out=tmp_path / "run"), progress=seen.append)
        assert len(server.state.arrived_at) == 120
    rows = read_requests(tmp_path / "run")
    assert summary == read_summary(tmp_path / "run")
    assert (summary.n, summary.errors, rows.num_rows) == (100, 0, 100)
    assert summary.accuracy == pytest.approx(np.mean(rows["row"].to_numpy() % 10 != 0))
    assert summary.rate_held_per_s <= 100.0
    latency, service = rows["latency_ms"].to_numpy(), rows["service_ms"].to_numpy()
    intended, done = rows["intended_at_s"].to_numpy(), rows["done_at_s"].to_numpy()
    assert np.allclose(latency, (done - intended) * 1000, atol=0.01)
    assert (service >= 5).all()
    assert (latency >= service).all()
    assert summary.p99_ms == np.sort(latency)[98]
    assert set(rows["variant"].to_pylist()) == {"reference"}
    assert summary.policy_version == "reference"
    assert {p.phase for p in seen} >= {"measuring", "draining", "done"}
    assert seen[-1].sent == 120


@pytest.mark.timing
def test_a_stall_shows_in_p99_with_every_request_that_was_due_in_it(generator: Generator) -> None:
    """Nothing is omitted: requests due during the stall are sent, and wait for the rest of it."""
    with serving(Behaviour(stall_at_s=0.6, stall_s=0.5)) as server:
        result = drive(_plan(server.url), generator=generator)
        began = (server.state.first_at or 0.0) + 0.6
        due_in_stall = sum(began <= at < began + 0.5 for at in server.state.arrived_at)
    latency = result.requests["latency_ms"].to_numpy()
    intended = result.requests["intended_at_s"].to_numpy()
    slow = latency > 100
    assert (result.summary.p99_ms or 0) > 400
    assert due_in_stall > 30
    assert slow.sum() >= 0.7 * due_in_stall
    # Open loop: within the stall a later arrival waits less, by as much as it came later.
    end = intended[slow] + latency[slow] / 1000
    assert np.ptp(end) < 0.25
    assert (result.summary.goodput_per_s or 0) < 80


@pytest.mark.timing
def test_errors_and_hangs_are_counted_and_miss_the_objective(generator: Generator) -> None:
    """Every tenth request fails and every seventh hangs, and that is what the run says."""
    with serving(Behaviour(error_every=10, hang_every=7)) as server:
        plan = _plan(server.url, 50, 1.0, warmup_s=0.0, timeout_s=0.7, protocol="oip")
        result = drive(plan, generator=generator)
    hangs = sum(k % 7 == 0 for k in range(1, 51))
    refused = sum(k % 10 == 0 and k % 7 != 0 for k in range(1, 51))
    status = result.requests["status"].to_numpy()
    assert ((status == -1).sum(), (status == 500).sum()) == (hangs, refused)
    assert result.summary.errors == hangs + refused
    assert (result.summary.p99_ms or 0) >= 699
    goodput = (50 - hangs - refused) / 50 * result.summary.rate_held_per_s
    assert (result.summary.goodput_per_s or 0) <= goodput + 1e-9


@pytest.mark.timing
def test_a_queue_costs_at_least_what_theory_says(generator: Generator) -> None:
    """One worker with 8 ms of service at 60% load: mean wait above half of rho D / 2 (1 - rho)."""
    with serving(Behaviour(service_ms=8)) as server:
        result = drive(_plan(server.url, 75, 2.0), generator=generator)
        own = np.array(server.state.due_at) - np.array(server.state.arrived_at)
    service = result.requests["service_ms"].to_numpy()
    theory = 0.6 * 8 / (2 * (1 - 0.6))
    assert service.mean() - 8 > 0.5 * theory
    assert service.mean() >= own[-len(service) :].mean() * 1000 * 0.9
    assert service.min() >= 8


@pytest.mark.timing
def test_energy_is_read_before_the_measured_part(
    monkeypatch: pytest.MonkeyPatch, generator: Generator
) -> None:
    """Waiting for the energy counter to step falls in the warm-up: the measured part is scraped once."""
    scraped: list[float] = []

    def noted(url: str, key: str | None = None, *, timeout_s: float = 5.0) -> Reading | None:
        scraped.append(time.time())
        return read_metrics(url, key, timeout_s=timeout_s)

    for module in (runner, scrape):
        monkeypatch.setattr(module, "read_metrics", noted)
    with serving(Behaviour(idle_watts=10, energy_step_s=60)) as server:
        plan = LoadPlan(server.url, TEXTS, 20, 1.5, warmup_s=1.2, meter=True)
        found = drive(plan, generator=generator)
    at_s = found.requests["intended_at_s"].to_numpy()
    assert len([at for at in scraped if at < at_s.min()]) > 3
    assert len([at for at in scraped if at_s.min() + 0.2 < at < at_s.max()]) <= 1
    assert found.use is not None


@pytest.mark.timing
def test_server_counters_give_cpu_and_energy_with_provenance(generator: Generator) -> None:
    """3 ms of CPU and 2 J per answer are 3 CPU-seconds and, less the generator's part, 0.56 Wh per 1,000."""
    with serving(Behaviour(cpu_seconds=0.003, joules=2.0)) as server:
        summary = drive(_plan(server.url, 100, 1.0, idle_watts=0.0), generator=generator).summary
    assert summary.cpu_seconds_per_1k == pytest.approx(3.0, rel=0.02)
    assert summary.energy_provenance == "user-constant"
    own = 0.3 / (0.3 + (summary.generator_cpu_share or 0) * 1.1)
    assert own * 0.9 * 2000 / 3600 < (summary.energy_wh_per_1k or 0) < 2000 / 3600 * 1.03


def test_keys_are_sent_and_their_absence_shows(generator: Generator) -> None:
    """With the key requests are answered; without it all are errors, and accuracy is unknown."""
    with serving(Behaviour(api_key="secret")) as server:
        plan = _plan(server.url, 50, 0.5, api_key="secret")
        assert drive(plan, generator=generator).summary.errors == 0
        refused = drive(_plan(server.url, 50, 0.5), generator=generator).summary
    assert refused.errors == refused.n == 25
    assert refused.accuracy is None
    assert "not one of 25 requests was answered: the first got status 401: " in (refused.void_reason or "")


def test_a_lost_run_ends_early_when_asked_to(generator: Generator) -> None:
    """With more than 1% late for sure, the rest is not sent and the run is void."""
    with serving(Behaviour(delay_ms=300)) as server:
        summary = drive(_plan(server.url, 50, 20.0, stop_when_lost=True), generator=generator).summary
    assert summary.stopped_early
    assert not summary.valid
    assert 1 <= summary.n < 500


def test_an_abort_leaves_nothing(tmp_path: Path) -> None:
    """Setting the event ends the run with LoadAborted: no file, no process."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    abort = threading.Event()

    def stop(progress: LoadProgress) -> None:
        if progress.phase == "measuring":
            abort.set()

    with serving() as server, pytest.raises(LoadAborted):
        run_load(_plan(server.url, 50, 30.0, out=tmp_path / "run"), progress=stop, abort=abort)
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_generator_outlives_its_runner(how: signal.Signals) -> None:
    """Whatever ends the runner, Locust goes with it."""
    code = (
        "import sys\nfrom loadtest.runner import LoadPlan, run_load\nfrom tables.labelled import from_rows\n"
        "plan = LoadPlan(sys.argv[1], from_rows([('a', 'a')]), 20, 60, warmup_s=0)\n"
        "run_load(plan, progress=lambda p: print(p.phase, flush=True))\n"
    )
    with serving() as server:
        runner = subprocess.Popen(
            [sys.executable, "-c", code, server.url],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert runner.stdout is not None
        assert runner.stdout.readline().strip() == "measuring"
        children = psutil.Process(runner.pid).children(recursive=True)
        commands = [seen.command for child in children if (seen := look_at(child)) is not None]
        assert any("locust" in command for command in commands)
        runner.send_signal(how)
        runner.wait(20)
        gone, alive = psutil.wait_procs(children, timeout=20)
        runner.stdout.close()
    assert not alive
    assert gone


def test_bad_plans_and_absent_servers_are_named() -> None:
    """A URL without a server, or a plan out of range, is an input error with a hint."""
    with pytest.raises(InputError, match="nothing answers") as caught:
        run_load(_plan("http://127.0.0.1:1"))
    assert "sluice serve" in str(caught.value)
    for broken in (
        {"rate": math.nan},
        {"seed": -1},
        {"rate": 0.0},
        {"seconds": -1.0},
        {"slo_ms": 0.0},
        {"protocol": "grpc"},
    ):
        with pytest.raises(InputError):
            _plan("http://x", **broken)
    with pytest.raises(InputError, match="URL"):
        _plan("ftp://localhost:8000")


@pytest.mark.timing
def test_idle_power_is_read_from_the_server() -> None:
    """A server that reports 12 W while idle has 12 W of idle power; one without energy has None."""
    with serving(Behaviour(idle_watts=12.0)) as server:
        assert measure_idle_watts(server.url, 0.2) == pytest.approx(12.0, rel=0.05)
    with serving(Behaviour(idle_watts=12.0, energy_step_s=0.7)) as server:
        assert measure_idle_watts(server.url, 0.2) == pytest.approx(12.0, rel=0.3)
    with serving() as server:
        assert measure_idle_watts(server.url, 0.01) is None


def test_data_may_be_a_file(tmp_path: Path, generator: Generator) -> None:
    """A plan with a path reads it, split and all."""
    path = tmp_path / "d.csv"
    path.write_text("text,label,split\nx y,x,test\nz,z,tune\n")
    with serving() as server:
        result = drive(_plan(server.url, 40, 0.5, data=path, split="test"), generator=generator)
    assert set(result.requests["row"].to_pylist()) == {0}
