"""A burst of five times the capacity, with certified gears and without: `python -m bench.overload.gears`.

Fakes with known answers: a first stage of a fifth of a millisecond a text, a reference that sleeps 40 ms
a text. The capacity is that of the policy itself: what the reference carries by its escalation rate. Poisson
arrivals at half of it, five times it for the middle third, and half of it again, over HTTP.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import uvicorn

from bench.overload.__main__ import machine
from contract.costs import COSTS, read_costs
from contract.family import read_family
from contract.policy import Policy
from contract.predictions import PREDICTIONS
from loadtest.generator import Generator
from loadtest.runner import LoadPlan, drive
from loadtest.traffic import Traffic
from router.decide.cascade import compile_policy
from router.tune.targets import Targets
from router.tune.tune import TuneSettings, tune
from runtime.fake import FakeEncoder, FakeModel, FakeRuntime
from runtime.fake_family import LABELS, write_fake_family
from runtime.load import load_variant
from serve.dataplane.plane import DataPlane
from serve.http.app import Gateway
from serve.http.connection import connections_to
from serve.ray.replica_figures import shift_gears
from serve.settings.limits import RequestLimits
from serve.settings.stages import BatchRules
from serve.stages.inline import InlineStage
from serve.stages.loading import compile_gears
from serve.types.recorder import NoRecorder
from serve.types.stage import Snapshot
from tables.labelled import from_rows
from tables.predictions import read_predictions

FIRST, REFERENCE = "fake-other", "fake-large"
DELAYS_MS = {"fake-small": 0.1, FIRST: 0.2, REFERENCE: 40.0}
OBJECTIVE_MS = 400.0
DROP, OVERLOAD_DROP = 0.004, 0.04
TIMES = (0.5, 5.0, 0.5)
TEXTS = [f"{LABELS[n % len(LABELS)]}: live {n}" for n in range(20_000)]


def tuned(folder: Path) -> Policy:
    """Write a family of fakes there and return its policy with gears."""
    write_fake_family(folder, delay_ms=DELAYS_MS, rows=12_000)
    targets = Targets(max_accuracy_drop=DROP)
    settings = TuneSettings(
        reference=REFERENCE, variants=(FIRST, REFERENCE), gears=True, overload_drop=OVERLOAD_DROP,
        per_class="never",
    )  # fmt: skip
    return tune(read_predictions(folder / PREDICTIONS), read_costs(folder / COSTS), targets, settings).policy


@contextmanager
def gateway(folder: Path, policy: Policy) -> Iterator[str]:
    """Serve the family by a policy from one process, its stages inside it; give its URL."""
    family, recorder = read_family(folder), NoRecorder()
    stages = {
        name: InlineStage(load_variant(folder, family, name), BatchRules(run_in="thread"), recorder)
        for name in (FIRST, REFERENCE)
    }
    compiled, gears = compile_policy(policy, family.labels), compile_gears(policy, family.labels)
    snapshot = Snapshot(1, policy, compiled, family, stages, gears=gears)
    limits = RequestLimits(objective_ms=OBJECTIVE_MS)
    plane = DataPlane(lambda: snapshot, limits, recorder)
    app = Gateway(plane, limits, recorder, lambda: b"")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        server = uvicorn.Server(
            uvicorn.Config(
                app, log_level="warning", access_log=False, lifespan="off", http=connections_to(app.hot)
            )
        )

        async def serve() -> None:
            shifting = asyncio.create_task(shift_gears(lambda: [plane]))
            await server.serve(sockets=[listener])
            shifting.cancel()

        thread = threading.Thread(target=lambda: asyncio.run(serve()))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def right_by_reference() -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return for each of TEXTS whether the reference is right: the fake answers the same wherever it runs."""
    model = FakeModel(labels=LABELS, accuracy=0.97)
    answers = FakeRuntime(model).logits(FakeEncoder().encode(TEXTS)).argmax(axis=1)
    truth = [LABELS.index(text.partition(":")[0]) for text in TEXTS]
    return np.asarray(answers == np.array(truth))


def row(
    name: str,
    requests: pa.Table,
    reference: np.ndarray[tuple[int], np.dtype[np.bool_]],
    stretch: tuple[float, float],
) -> str:
    """Return what became of the requests of a stretch of seconds, in Markdown."""
    at = requests["intended_at_s"].to_numpy()
    at = at - at.min()
    part = requests.filter((at >= stretch[0]) & (at < stretch[1]))
    answered = part.filter(np.array(part["status"].to_pylist()) == 200)
    latency = answered["latency_ms"].to_numpy()
    right = np.array(answered["answer"].to_pylist()) == np.array(answered["label"].to_pylist())
    loss = reference[answered["row"].to_numpy()].astype(float) - right
    error = 196 * loss.std() / np.sqrt(len(loss))
    shares = [np.mean(np.array(answered[key].to_pylist(), dtype=bool)) for key in ("escalated", "degraded")]
    late = float((latency > OBJECTIVE_MS).mean())
    return (
        f"| {name} | {len(part) / (stretch[1] - stretch[0]):.0f} | {len(part) - len(answered)} "
        f"| {np.percentile(latency, 50):.0f} | {np.percentile(latency, 99):.0f} | {late:.2%} "
        f"| {100 * loss.mean():.2f} ± {error:.2f} | {shares[0]:.1%} | {shares[1]:.1%} |"
    )


def main() -> None:
    """Measure both, and print the section."""
    parser = argparse.ArgumentParser(prog="python -m bench.overload.gears", description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each third of a run")
    given = parser.parse_args()
    data = from_rows([(text, text.partition(":")[0]) for text in TEXTS])
    reference = right_by_reference()
    with tempfile.TemporaryDirectory() as made, Generator() as generator:
        folder = Path(made)
        policy = tuned(folder)
        capacity = 1000 / DELAYS_MS[REFERENCE] / (policy.expected.escalation_rate or 1.0)
        segments = tuple((times * capacity, times * capacity) for times in TIMES)
        rows = []
        for name, served in (
            ("with gears", policy),
            ("without", policy.model_copy(update={"gears": (), "version": ""}).sealed()),
        ):
            with gateway(folder, served) as url:
                traffic = Traffic(segments=segments)
                plan = LoadPlan(
                    url, data, traffic.mean_rate, 3 * given.seconds, slo_ms=OBJECTIVE_MS, warmup_s=2.0,
                    meter=False, traffic=traffic,
                )  # fmt: skip
                requests = drive(plan, generator=generator).requests
            for number, (times, when) in enumerate(zip(TIMES, ("before", "burst", "after"), strict=True)):
                stretch = (number * given.seconds, (number + 1) * given.seconds)
                rows.append(row(f"{name}, {when} ({times:g} times)", requests, reference, stretch))
    ladder = "\n".join(
        f"| {gear.name} | {100 * gear.epsilon:g} | {gear.expected.escalation_rate:.1%} |"
        for gear in policy.gears
    )
    sys.stdout.write(
        "## Gears\n\n"
        f"Made by `python -m bench.overload.gears --seconds {given.seconds:g}`. {machine()}.\n{_told()}\n\n"
        f"The capacity of the policy itself is {capacity:.0f} texts a second.\n\n"
        f"| gear | promised drop, points | escalates |\n| --- | --- | --- |\n{ladder}\n\n"
        "| run | requests/s | not answered | p50 ms | p99 ms | late | accuracy below the reference, points "
        "| escalated | degraded |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        + "\n".join(rows)
        + "\n"
    )


def _told() -> str:
    return (
        f"Fakes with known answers: a first stage of {DELAYS_MS[FIRST]:g} ms a text, a reference that sleeps "
        f"{DELAYS_MS[REFERENCE]:g} ms a text;\none gateway process without Ray, asked over HTTP. Certified "
        f"for {100 * DROP:g} points, for {100 * OVERLOAD_DROP:g} under overload;\n"
        f"`objective_ms: {OBJECTIVE_MS:g}`. Accuracy is held against the reference's on the same texts."
    )


if __name__ == "__main__":
    main()
