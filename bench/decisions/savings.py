"""A large model of some delay and price, with and without Sluicegate before it, asked through an SDK."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from bench.decisions.peer import Rows, ask_through_sdk
from bench.gateway.servers import free_port, gateway
from contract.files import write_json
from contract.formulas import (
    exact_quantile,
    paired_counts,
    paired_difference_interval,
    quantile_interval,
    wilson_interval,
)
from serve.standin.server import Running, serving
from serve.standin.settings import StandInSettings

MODEL = "large"
"""The variant whose answers the stand-in gives."""
REMOTE = "remote"
FRONT = ("linear", "deep", "student-int8")
DROP = 0.01
CLIENTS = 8


def measure(
    family: Path, out: Path, held: Rows, environments: Path, delay_ms: float, usd_per_1k: float
) -> dict[str, Any]:
    """Put the stand-in into a copy of the family, certify a drop of DROP against it, and ask for `held`."""
    port = free_port()
    front, policy = out / "front", out / "front-policy.json"
    if not policy.exists():
        with stand_in(family, port, 0.0, usd_per_1k):
            _add(family, front, out, port, usd_per_1k)
        names = ",".join((*FRONT, REMOTE))
        sluice(
            "tune", str(front), "--max-accuracy-drop", str(DROP), "--variants", names, "--out", str(policy)
        )
    job = {"labels": sorted(set(held.answers)), "texts": list(held.texts), "clients": CLIENTS}
    port = _port_of(front)
    with stand_in(family, port, delay_ms, usd_per_1k):
        upstream = {"base_url": f"http://127.0.0.1:{port}/v1", "form": "chat", "model": REMOTE}
        alone = ask_through_sdk(job | upstream, environments)
        with gateway(front, policy) as server:
            url = server.url.removesuffix("/classify")
            before = {"base_url": url, "form": "decisions", "model": "cascade"}
            routed = ask_through_sdk(job | before, environments)
    paid = [1.0] * len(alone), [float(one["variant"] == REMOTE) for one in routed]
    found = {
        "the model alone": _figures(alone, paid[0], held.answers, usd_per_1k),
        "Sluicegate before it": _figures(routed, paid[1], held.answers, usd_per_1k),
    }
    right = [_right(asked, held.answers) for asked in (routed, alone)]
    return {
        "delay_ms": delay_ms,
        "usd_per_1k": usd_per_1k,
        "texts": len(held.texts),
        "clients": CLIENTS,
        "policy": _told(policy),
        "found": found,
        "local": 1 - float(np.mean(paid[1])),
        "difference": float(right[0].mean() - right[1].mean()),
        "difference_interval": list(paired_difference_interval(*paired_counts(right[0], right[1]))),
    }


def stand_in(family: Path, port: int, delay_ms: float, usd_per_1k: float) -> AbstractContextManager[Running]:
    """Serve the large model until the block ends; client and gateway are processes of their own."""
    priced = StandInSettings(variant=MODEL, port=port, delay_ms=delay_ms, usd_per_1k=usd_per_1k)
    return serving(family, priced)


def _add(family: Path, front: Path, out: Path, port: int, usd_per_1k: float) -> None:
    """Write a copy of the family with the stand-in as its reference; its answers to the held-out rows too."""
    record = out / f"{REMOTE}.yaml"
    write_json(
        record,
        {
            "form": "chat",
            "url": f"http://127.0.0.1:{port}/v1",
            "model": REMOTE,
            "instructions": "Which intent is this?",
            "usd_per_call": usd_per_1k / 1000,
            "max_concurrency": 64,
        },
    )
    shutil.rmtree(front, ignore_errors=True)
    given = ["--name", REMOTE, "--reference", "--max-usd", "10", "--out", str(front)]
    sluice("family", "add", str(family), str(record), *given)


def _port_of(front: Path) -> int:
    """Return the port that the family's record of the stand-in names."""
    record = next(front.rglob(f"{REMOTE}*.json"))
    return int(str(json.loads(record.read_bytes())["url"]).rpartition(":")[2].split("/")[0])


def sluice(*arguments: str) -> None:
    """Run a command of this project. Raises SystemExit with its words where it fails."""
    command = [sys.executable, "-m", "sluicegate.main", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"sluice {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-2000:]}")


def _told(policy: Path) -> str:
    told = json.loads(policy.read_bytes())
    return (
        f"{told['status']}, {' -> '.join(stage['variant'] for stage in told['stages'])}, drop of {DROP:.0%}"
    )


def _right(asked: Sequence[dict[str, Any]], answers: Sequence[str]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.array([one["answer"] == answer for one, answer in zip(asked, answers, strict=True)])


def _figures(
    asked: Sequence[dict[str, Any]], paid: Sequence[float], answers: Sequence[str], usd_per_1k: float
) -> dict[str, Any]:
    """Return latency, price and accuracy with their 95% intervals; the price is that of the model's calls."""
    times = [one["ms"] for one in asked]
    right, calls, n = int(_right(asked, answers).sum()), int(sum(paid)), len(paid)
    low, high = wilson_interval(calls, n) if calls < n else (1.0, 1.0)
    return {
        "p50_ms": exact_quantile(times, 0.5),
        "p99_ms": exact_quantile(times, 0.99),
        "p99_interval_ms": quantile_interval(times, 0.99),
        "usd_per_1k": usd_per_1k * calls / n,
        "usd_interval": [usd_per_1k * low, usd_per_1k * high],
        "accuracy": right / n,
        "accuracy_interval": list(wilson_interval(right, n)),
    }
