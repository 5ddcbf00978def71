"""One run: start the generator, read the server's counters around the measured part, write what came back."""

from __future__ import annotations

import math
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from contract.errors import InputError
from contract.machine import Machine
from contract.prices import load_grid, load_prices
from contract.run import Summary, write_run
from contract.urls import parse_base_url
from loadtest import protocol as wire
from loadtest.arrivals import POISSON, arrival_times_s, rows_to_ask
from loadtest.exchange import Order, Samples, Send
from loadtest.generator import Generator
from loadtest.protocol import PROTOCOLS, Protocol
from loadtest.reach import check_answers_at, on_this_machine
from loadtest.record import requests_table
from loadtest.scrape import (
    POLL_S,
    STEP_S,
    Reading,
    ServerUse,
    difference,
    headers,
    read_at_step,
    read_metrics,
    what_is_missing,
)
from loadtest.summary import Economy, Setting, summarise
from loadtest.traffic import Traffic
from runtime.machine import describe_machine
from tables.labelled import Labelled, read_labelled

METERED_WARMUP_S = STEP_S + 0.5


@dataclass(frozen=True)
class LoadProgress:
    """How far a run is. Phases: starting, warm-up, measuring, draining, done."""

    phase: str
    passed_s: float
    total_s: float
    sent: int
    planned: int
    answered: int
    errors: int


@dataclass(frozen=True)
class LoadPlan:
    """Everything that decides one run.

    Attributes:
        url: where the gateway answers; kept without a slash at its end.
        data: a labelled file, or texts already read.
        rate_per_s: arrivals per second, open loop.
        duration_s: measured seconds; `warmup_s` at the same rate come before and are left out.
        model: a variant, or `cascade`.
        protocol: `v1` (POST /v1/classify) or `oip` (Open Inference Protocol v2, JSON).
        seed: decides arrivals and the order of texts.
        slo_ms: the objective for one answer; without it there is no goodput.
        api_key: sent as `Authorization: Bearer`.
        traffic: how arrivals are spread; at one rate by a Poisson process, unless told otherwise.
        split: the split of the data to ask, where the file has a `split` column.
        text, label, slice_column: names of the columns.
        timeout_s: a request without a whole answer by then is an error.
        connections: most connections at once; waiting for one counts as latency.
        stop_when_lost: end the run once more than 1% have missed the objective.
        out: run folder to write; None writes nothing.
        economy: prices and grid intensity; None takes those that ship with the project.
        machine: the machine that serves; None: this one, if the URL leads here.
        idle_watts: power of the idle server, for energy above idle (`measure_idle_watts`).
        meter: take energy where its counter steps: before the measured part, if the warm-up has room
            for it (METERED_WARMUP_S), and up to two seconds after it.
    """

    url: str
    data: Path | Labelled
    rate_per_s: float
    duration_s: float
    model: str = "cascade"
    protocol: Protocol = "v1"
    seed: int = 0
    warmup_s: float = 1.0
    slo_ms: float | None = None
    api_key: str | None = None
    traffic: Traffic = POISSON
    split: str | None = None
    text: str = "text"
    label: str = "label"
    slice_column: str | None = None
    timeout_s: float = 10.0
    connections: int = 4096
    stop_when_lost: bool = False
    out: Path | None = None
    economy: Economy | None = None
    machine: Machine | None = None
    idle_watts: float | None = None
    meter: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", str(parse_base_url(self.url)))
        if self.protocol not in PROTOCOLS:
            raise InputError(f"unknown protocol {self.protocol!r}", hint=f"one of: {', '.join(PROTOCOLS)}")
        for name, low in (("rate_per_s", 0.0), ("duration_s", 0.0), ("timeout_s", 0.0), ("warmup_s", -1.0)):
            if not low < getattr(self, name) < math.inf:
                raise InputError(f"{name} must be positive, not {getattr(self, name)}")
        if self.seed < 0:
            raise InputError(f"seed must not be negative, but is {self.seed}")
        if self.warmup_s < 0:
            raise InputError(f"warmup_s must not be negative, but is {self.warmup_s}")
        if self.slo_ms is not None and not 0 < self.slo_ms < math.inf:
            raise InputError(f"slo_ms must be positive, not {self.slo_ms}")


@dataclass(frozen=True)
class LoadResult:
    """A finished run: figures, rows (contract.run.REQUEST_SCHEMA), what the server used, what was asked."""

    summary: Summary
    requests: pa.Table
    use: ServerUse | None
    setting: Setting


Progress = Callable[[LoadProgress], None]


def run_load(
    plan: LoadPlan, *, progress: Progress | None = None, abort: threading.Event | None = None
) -> Summary:
    """Drive a gateway as planned, write the run folder, return its summary.

    Raises:
        InputError: the plan or the data break a rule, or nothing answers at the URL.
        EnvironmentProblem: Locust is missing or the generator broke.
        LoadAborted: `abort` was set.
    """
    return drive(plan, progress=progress, abort=abort).summary


def drive(
    plan: LoadPlan,
    *,
    generator: Generator | None = None,
    progress: Progress | None = None,
    abort: threading.Event | None = None,
) -> LoadResult:
    """As `run_load`, but return the rows as well; with a `generator`, without starting one for this run."""
    if generator is None:
        with Generator() as own:
            return drive(plan, generator=own, progress=progress, abort=abort)
    data = labelled(plan)
    check_answers_at(plan.url, plan.api_key)
    at_s, warmup = _arrivals(plan)
    which = rows_to_ask(len(data), len(at_s), seed=plan.seed)
    send = Send(at_s, which, tuple(wire.body(plan.protocol, plan.model, text) for text in data.texts))
    with tempfile.TemporaryDirectory(prefix="sluice-load-") as name:
        samples, use = _generate(generator, plan, Path(name), send, warmup, progress, abort)
    requests = requests_table(samples, data, which, protocol=plan.protocol, model=plan.model, warmup=warmup)
    setting = Setting(
        model=plan.model,
        url=plan.url,
        protocol=plan.protocol,
        seed=plan.seed,
        rate_per_s=plan.rate_per_s,
        duration_s=plan.duration_s,
        warmup_s=plan.warmup_s,
        slo_ms=plan.slo_ms,
        arrivals=plan.traffic.words,
        window_start_s=samples.start_at_s + plan.warmup_s,
        generator_cpu_share=samples.cpu_share,
        stopped_early=samples.stopped_early,
        data_sha256=data.sha256,
        unmetered_reason=what_is_missing(use, plan.url, plan.api_key),
    )
    machine = plan.machine or (describe_machine() if on_this_machine(plan.url) else None)
    economy = plan.economy or default_economy(machine)
    summary = summarise(requests, setting, use=use, economy=economy, machine=machine)
    if plan.out is not None:
        write_run(plan.out, requests, summary)
    return LoadResult(summary, requests, use, setting)


def labelled(plan: LoadPlan) -> Labelled:
    """Return the texts of a plan. Raises DataError."""
    if isinstance(plan.data, Labelled):
        return plan.data
    return read_labelled(
        plan.data, text=plan.text, label=plan.label, slice_column=plan.slice_column, split=plan.split
    )


def default_economy(machine: Machine | None) -> Economy:
    """Return the shipped prices and grid intensity, for the cores of a machine."""
    prices, grid = load_prices(), load_grid()
    return Economy(
        usd_per_core_hour=prices.usd_per_core_hour,
        cores=machine.cores if machine else None,
        grid_g_per_kwh=grid.intensity(),
        basis={
            "prices": f"{prices.usd_per_core_hour} USD per core-hour, {prices.source}, {prices.as_of}",
            "grid": f"{grid.intensity():g} gCO2e per kWh ({grid.default}), {grid.source}, {grid.as_of}",
        },
    )


def measure_idle_watts(url: str, seconds: float = 3.0, *, api_key: str | None = None) -> float | None:
    """Return the power that a server reports while nobody asks it; None where it reports no energy."""
    before = read_at_step(url, api_key)
    if before is None or not before.joules:
        return None
    time.sleep(seconds)
    use = difference(before, read_at_step(url, api_key))
    return None if use is None or use.joules is None else use.joules / use.window_s


def _arrivals(plan: LoadPlan) -> tuple[Any, int]:
    measured = arrival_times_s(plan.rate_per_s, plan.duration_s, seed=plan.seed, traffic=plan.traffic)
    if not plan.warmup_s:
        return measured, 0
    rate = plan.traffic.start_rate(plan.rate_per_s)
    even = replace(plan.traffic, segments=(), trace=())
    warm = arrival_times_s(rate, plan.warmup_s, seed=plan.seed + 2**31, traffic=even)
    return np.concatenate([warm, plan.warmup_s + measured]), len(warm)


def _generate(
    generator: Generator,
    plan: LoadPlan,
    folder: Path,
    send: Send,
    warmup: int,
    progress: Progress | None,
    abort: threading.Event | None,
) -> tuple[Samples, ServerUse | None]:
    base = parse_base_url(plan.url)
    key = "".join(f"{name}: {value}\r\n" for name, value in headers(plan.api_key).items())
    allowed = int(0.01 * (len(send.at_s) - warmup))
    order = Order(
        host=base.host,
        port=base.port,
        tls=base.scheme == "https",
        head=f"POST {base.prefix}{wire.path(plan.protocol, plan.model)} HTTP/1.1\r\n"
        f"Host: {base.netloc}\r\nContent-Type: application/json\r\n"
        f"Accept: application/json\r\nAccept-Encoding: identity\r\n{key}",
        name=plan.model,
        timeout_s=plan.timeout_s,
        connections=plan.connections,
        warmup=warmup,
        miss_ms=plan.slo_ms,
        stop_after_misses=allowed if plan.stop_when_lost and plan.slo_ms else None,
    )
    order.write(folder)
    send.write(folder)
    before: Reading | None = None
    after: Reading | None = None
    phase = "warm-up"
    limit_s = float(send.at_s[-1]) + plan.timeout_s + 30.0
    for event in generator.run(folder, limit_s, abort):
        name = event["event"]
        if (
            plan.meter
            and before is None
            and 0 < (left_s := plan.warmup_s - event["passed_s"]) <= STEP_S + 0.3
        ):
            before = read_at_step(plan.url, plan.api_key, limit_s=left_s - POLL_S)
        elif name == "measuring" and before is None:
            before = read_metrics(plan.url, plan.api_key)
        elif name == "drained":
            after = read_metrics(plan.url, plan.api_key)
        phase = {"measuring": "measuring", "drained": "draining", "written": "done"}.get(name, phase)
        if progress:
            total_s = plan.warmup_s + plan.duration_s
            counts = (event["sent"], len(send.at_s), event["answered"], event["errors"])
            progress(LoadProgress(phase, event["passed_s"], total_s, *counts))
    stepped = read_at_step(plan.url, plan.api_key, after=after) if plan.meter and after else None
    samples = Samples.read(folder)
    beside = samples.cpu_share if on_this_machine(plan.url) else 0.0
    use = difference(before, after, stepped=stepped, idle_watts=plan.idle_watts, beside_cpu_share=beside)
    return samples, use
