"""Runs what belongs to others in environments of their own: the rival, and OpenAI's SDK as the client."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.decisions.draws import Split
from bench.gateway.environments import environment
from contract.files import write_json

PEERS = Path(__file__).parent / "peers"
TIMED = 1_000


@dataclass(frozen=True)
class Rows:
    """Texts with the large model's answers to them."""

    texts: Sequence[str]
    answers: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """Return them by name."""
        return {"texts": list(self.texts), "answers": list(self.answers)}


@dataclass(frozen=True)
class Job:
    """What the rival learns from, what it is asked about, and who certifies it."""

    train: Rows
    held: Rows
    draws: Sequence[Split]
    alphas: Sequence[float]
    delta: float
    student: str


def ask_rival(job: Job, folder: Path, environments: Path) -> dict[str, Any]:
    """Train the rival unless `folder` has its bundle, and return its answers to the held-out rows.

    Raises SystemExit with what it said where it fails.
    """
    python = environment("shad0w", environments) / "python"
    path, bundle = folder / "rival-job.json", folder / "rival"
    write_json(
        path,
        {
            "labels": sorted(set(job.train.answers)),
            "train": job.train.to_json(),
            "rows": job.held.to_json(),
            "draws": [split.certifying.tolist() for split in job.draws],
            "alphas": list(job.alphas),
            "delta": job.delta,
            "timed": TIMED,
            "student": job.student,
        },
    )
    script = str(PEERS / "shad0w_peer.py")
    if not (bundle / "told.json").exists():
        _run([str(python), script, "train", str(path), str(bundle)])
    answered = folder / "rival-answers.json"
    _run([str(python), script, "answer", str(path), str(bundle), str(answered)])
    found: dict[str, Any] = json.loads(answered.read_bytes())
    return found


def ask_through_sdk(job: dict[str, Any], environments: Path) -> list[dict[str, Any]]:
    """Send texts through OpenAI's SDK; see peers/sdk_client.py for the job and what comes back."""
    python = environment("openai", environments) / "python"
    with tempfile.TemporaryDirectory() as scratch:
        path, out = Path(scratch) / "job.json", Path(scratch) / "out.json"
        write_json(path, job)
        _run([str(python), str(PEERS / "sdk_client.py"), str(path), str(out)])
        found: list[dict[str, Any]] = json.loads(out.read_bytes())
    return found


def _run(command: list[str]) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
