"""Run it: a fake family with a slow last stage, load for a while, then a trickle; replicas seen all along.

Writes docs/benchmarks/scaling.md; ends with 1 where replicas did not come, did not go, or a request was lost.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from runtime.machine import describe_machine
from serve.local import launcher
from serve.local.run_folder import processes_of
from serve.settings.gateway import Settings
from tests.ports import free_port

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks" / "scaling.md"
STAGE = "stage-fake-large"
RULES = {"min": 1, "max": 3, "queued": 8, "busy": 0.7, "up_after_s": 1, "down_after_s": 5, "window_s": 2}


@dataclass
class Seen:
    """What clients and the process table show.

    Attributes:
        statuses: of all replies; 0 where there was none.
        late: replies that took longer than the timeout of their clients.
        rows: second, phase, replicas of the gateway and of the stage, answers in that second.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    answered: int = 0
    rows: list[tuple[float, str, int, int, int]] = field(default_factory=list)


def main() -> int:
    """Run it and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--load-s", type=float, default=25.0)
    parser.add_argument("--idle-s", type=float, default=25.0)
    parser.add_argument("--clients", type=int, default=24)
    given = parser.parse_args()
    settings = Settings.model_validate(
        {
            "fake": {"delay_ms": 20.0},
            "port": free_port(),
            "admin_port": free_port(),
            "replicas": RULES | {"busy": 0.3},
            "stages": {"fake-large": {"replicas": RULES}},
        }
    )
    seen = Seen()
    with launcher.start(settings, lambda words: print(words, file=sys.stderr)) as gateway:
        drive(gateway, seen, given)
    most_stage = max(row[3] for row in seen.rows)
    most_gateway = max(row[2] for row in seen.rows)
    last = seen.rows[-1]
    held = set(seen.statuses) == {200} and most_stage == RULES["max"] and most_gateway > 1
    held = held and last[2:4] == (1, 1)
    PAGE.write_text(page(seen, given, held))
    print(PAGE.read_text())
    return 0 if held else 1


def drive(gateway: launcher.Handle, seen: Seen, given: argparse.Namespace) -> None:
    """Send load, then a trickle, and look at the replicas twice a second."""
    stop_load, stop = threading.Event(), threading.Event()
    lock = threading.Lock()

    def send(number: int, until: threading.Event, pause_s: float) -> None:
        with httpx.Client(base_url=gateway.url, timeout=30, trust_env=False) as client:
            n = 0
            while not until.is_set():
                n += 1
                texts = [f"story {number} {n} {part}" for part in range(4)]
                try:
                    status = client.post("/v1/classify", json={"inputs": texts}).status_code
                except httpx.TransportError:
                    status = 0
                with lock:
                    seen.statuses[status] += 1
                    seen.answered += status == 200
                until.wait(pause_s)

    started = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(given.clients + 2) as pool:
        jobs = [pool.submit(send, n, stop_load, 0.0) for n in range(given.clients)]
        jobs += [pool.submit(send, 1000 + n, stop, 0.05) for n in range(2)]
        before = 0
        ends = given.load_s + given.idle_s
        while (at := time.monotonic() - started) < ends:
            if at >= given.load_s:
                stop_load.set()
            gateways, stages = replicas(gateway, ":gateway"), replicas(gateway, STAGE)
            answered = seen.answered
            seen.rows.append(
                (at, "trickle" if stop_load.is_set() else "load", gateways, stages, answered - before)
            )
            before = answered
            stop.wait(max(0.0, started + len(seen.rows) - time.monotonic()))
        stop_load.set()
        stop.set()
        for job in jobs:
            job.result()


def replicas(gateway: launcher.Handle, word: str) -> int:
    """Return how many replica processes a deployment has."""
    commands = [process.command for process in processes_of(gateway.folder)]
    return sum(command.startswith("ray::") and word in command for command in commands)


def page(seen: Seen, given: argparse.Namespace, held: bool) -> str:
    """Return the page."""
    machine = describe_machine()
    rows = "\n".join(
        f"| {at:.0f} | {phase} | {gateways} | {stages} | {answers} |"
        for at, phase, gateways, stages, answers in seen.rows
    )
    told = ", ".join(f"{key}: {value}" for key, value in RULES.items())
    return f"""# Scaling

`make scaling` writes this page: fakes whose last stage takes 20 ms a text; {given.clients} clients in a
closed loop for {given.load_s:g} s with four texts a request, then two that pause 50 ms after each reply.
The stage has
`replicas: {{{told}}}`,
the gateway the same with `busy: 0.3`. {machine.cpu}, {machine.cores} cores.

Replies by status: {dict(seen.statuses)}. All held: {"yes" if held else "no"} (every reply
200, the stage at its most under load, the gateway above one, one of each at the end).

| second | phase | gateway replicas | stage replicas | answers in it |
| --- | --- | --- | --- | --- |
{rows}
"""


if __name__ == "__main__":
    sys.exit(main())
