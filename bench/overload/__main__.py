"""What a gateway does at several times its capacity: `python -m bench.overload [--out PAGE]`.

A stage of known speed (a fake that sleeps 5 ms a text, one replica, so 200 texts a second), asked by name and
as the last stage of the cascade, with and without an objective of 200 ms, open loop.
"""

from __future__ import annotations

import argparse
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.overload.simulate import table as simulated
from contract.files import write_text
from contract.run import Summary
from loadtest.generator import Generator
from loadtest.runner import LoadPlan, drive
from runtime.machine import describe_machine
from serve.local import launcher
from serve.settings.gateway import Settings
from serve.settings.limits import RequestLimits
from serve.settings.stages import FakeSettings
from tables.labelled import Labelled, from_rows

DELAY_MS = 5.0
OBJECTIVE_MS = 200.0
CAPACITY_PER_S = 1000 / DELAY_MS
TIMES = (0.5, 0.8, 0.9, 1.0, 2.0, 3.0)
CASCADE_TIMES = (1.0, 3.0, 6.0)
LARGE = "fake-large"


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes:
        times: of the capacity.
        summary: of the run.
        by_status: requests by HTTP status.
    """

    times: float
    summary: Summary
    by_status: Counter[int]

    def cells(self, peak: float | None) -> str:
        """Return the row in Markdown, goodput beside its peak where there is one."""
        done = self.summary
        good = done.goodput_per_s or 0.0
        of_peak = "" if peak is None else f" ({good / peak:.0%})"
        shed = ", ".join(
            f"{count} times {status}" for status, count in sorted(self.by_status.items()) if status != 200
        )
        return (
            f"| {self.times:g} | {done.rate_held_per_s:.0f} | {good:.0f}{of_peak} "
            f"| {done.p50_ms or np.nan:.0f} | {done.p99_ms or np.nan:.0f} | {done.degraded_rate or 0:.0%} "
            f"| {shed or 'nothing'} |"
        )


HEAD = (
    "| times the capacity | requests/s | in time/s (of the peak) | p50 ms of answers | p99 ms | degraded "
    "| refused |\n| --- | --- | --- | --- | --- | --- | --- |"
)


@contextmanager
def gateway(objective_ms: float | None) -> Iterator[str]:
    """Run a gateway on fakes; give its URL."""
    with ExitStack() as held:
        ports = []
        for _ in range(2):
            probe = held.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
        held.close()
        settings = Settings(
            fake=FakeSettings(delay_ms=DELAY_MS),
            port=ports[0],
            admin_port=ports[1],
            limits=RequestLimits(objective_ms=objective_ms),
        )
        with launcher.start(settings) as handle:
            yield handle.url


def texts(count: int = 3000) -> Labelled:
    """Texts of which the cascade escalates some."""
    return from_rows([(f"sport: story {n}", "sport") for n in range(count)])


def measure(
    url: str, model: str, times: tuple[float, ...], seconds: float, generator: Generator
) -> list[Row]:
    """Drive one model at several rates."""
    rows = []
    for one in times:
        plan = LoadPlan(
            url, texts(), one * CAPACITY_PER_S, seconds, model=model, slo_ms=OBJECTIVE_MS, warmup_s=2.0,
            meter=False,
        )  # fmt: skip
        result = drive(plan, generator=generator)
        rows.append(Row(one, result.summary, Counter(result.requests["status"].to_pylist())))
        sys.stderr.write(f"{model} {rows[-1].cells(CAPACITY_PER_S)} {result.summary.void_reason or ''}\n")
    return rows


def section(title: str, rows: list[Row], *, peaks: bool = True) -> str:
    """Return a table with its heading."""
    peak = max(row.summary.goodput_per_s or 0.0 for row in rows) or 1.0 if peaks else None
    void = [
        f"\nVoid at {row.times:g} times the capacity, since the load was not what was asked for: "
        f"{row.summary.void_reason}."
        for row in rows
        if row.summary.void_reason
    ]
    return "\n".join((f"## {title}\n", HEAD, *(row.cells(peak) for row in rows), *void))


def machine() -> str:
    """Return this machine in words."""
    found = describe_machine()
    return f"{found.cores:g} cores, {found.cpu}"


def main() -> None:
    """Measure, and write the page or print it."""
    parser = argparse.ArgumentParser(prog="python -m bench.overload", description=__doc__)
    parser.add_argument("--out", type=Path, help="the page, such as docs/benchmarks/overload.md")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each run")
    parser.add_argument("--only", choices=("with", "without"), help="with or without the objective alone")
    given = parser.parse_args()
    parts = [
        "# Overload\n\nMade by `python -m bench.overload --seconds "
        f"{given.seconds:g} --out docs/benchmarks/overload.md`. One stage of "
        f"known speed: a fake that sleeps {DELAY_MS:g} ms\na text in one replica, {CAPACITY_PER_S:g} a "
        f"second at most, behind two gateway replicas; Poisson arrivals,\n{given.seconds:g} s a run, "
        f"one text a request. In time is within {OBJECTIVE_MS:g} ms, as the client sees it. {machine()}.\n\n"
        "Not measured here: requests of several texts, several priorities, and a stage whose batches have "
        "a start cost."
    ]
    with Generator() as generator:
        if given.only != "without":
            with gateway(OBJECTIVE_MS) as url:
                by_name = measure(url, LARGE, TIMES, given.seconds, generator)
                cascade = measure(url, "cascade", CASCADE_TIMES, given.seconds, generator)
            parts += [
                section("The stage by name, `objective_ms: 200`", by_name),
                section("The cascade over it, `objective_ms: 200`", cascade, peaks=False),
            ]
        if given.only != "with":
            with gateway(None) as url:
                before = measure(url, LARGE, (0.9, 2.0, 3.0), given.seconds, generator)
            parts.append(section("The stage by name without an objective", before))
    parts.append(
        "## Disciplines, simulated\n\nMade by `python -m bench.overload.simulate`.\n\n"
        + "\n".join(simulated())
    )
    page = "\n\n".join(parts) + "\n"
    if given.out is None:
        sys.stdout.write(page)
    else:
        write_text(given.out, page)


if __name__ == "__main__":
    main()
