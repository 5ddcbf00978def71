"""The rival in an environment of its own: its table compiled, its answers and certificates written down.

    python shad0w_peer.py train JOB.json BUNDLE
    python shad0w_peer.py answer JOB.json BUNDLE OUT.json

JOB.json: {"labels", "train": {"texts", "answers"}, "rows": {"texts", "answers"}, "draws": [[row, ...], ...],
"alphas", "delta", "timed", "student"}. It knows nothing else of this project.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from shad0w.api import load
from shad0w.reliability import SelectiveRiskController
from shad0w.shadow import shadow_compile

QUESTION = "intent"


def train(job: dict[str, Any], bundle: Path) -> None:
    """Compile its table of all training rows; what certifies comes later, drawn from other rows."""
    texts, answers = job["train"]["texts"], job["train"]["answers"]
    records = [{"text": text, QUESTION: answer} for text, answer in zip(texts, answers, strict=True)]
    rows = job["rows"]
    first = [{"text": rows["texts"][i], QUESTION: rows["answers"][i]} for i in job["draws"][0]]
    schema = {QUESTION: {"type": "choice", "criteria": dict.fromkeys(job["labels"], "")}}
    started = time.perf_counter()
    model, certificate = shadow_compile(
        schema,
        records,
        alpha=max(job["alphas"]),
        delta=job["delta"],
        cal_records=first,
        student=job["student"],
    )
    model.save(str(bundle))
    told = {"seconds": time.perf_counter() - started, "certificate": certificate}
    (bundle / "told.json").write_text(json.dumps(told), encoding="utf-8")


def answer(job: dict[str, Any], bundle: Path) -> dict[str, Any]:
    """Return its answers to the rows, the threshold of every draw and level, and what a decision takes."""
    question = load(str(bundle)).questions[QUESTION]
    index = {label: number for number, label in enumerate(job["labels"])}
    texts = job["rows"]["texts"]
    found = [question.decide(text, observe=False) for text in texts]
    predicted = np.array([index[one["choice"]] for one in found])
    confidence = np.array([one["confidence"] for one in found])
    right = predicted == np.array([index[label] for label in job["rows"]["answers"]])
    thresholds = {}
    for alpha in job["alphas"]:
        fitted = [
            SelectiveRiskController(alpha, job["delta"]).fit(confidence[rows], right[rows]).threshold
            for rows in map(np.array, job["draws"])
        ]
        thresholds[str(alpha)] = [float(one) if np.isfinite(one) else None for one in fitted]
    return {
        "predicted": predicted.tolist(),
        "confidence": confidence.tolist(),
        "thresholds": thresholds,
        "decide_us": _timed(question, texts[: job["timed"]]),
        "native": question._native is not None,
        "training": json.loads((bundle / "told.json").read_text(encoding="utf-8")),
    }


def _timed(question: Any, texts: list[str]) -> dict[str, float]:
    taken = []
    for _ in range(5):
        for text in texts:
            started = time.perf_counter()
            question.decide(text, probabilities=False, observe=False)
            taken.append(1e6 * (time.perf_counter() - started))
    return {"p50": float(np.median(taken)), "mean": float(np.mean(taken))}


def main() -> None:
    """Do what the command line asks."""
    verb, job, bundle = sys.argv[1], json.loads(Path(sys.argv[2]).read_bytes()), Path(sys.argv[3])
    if verb == "train":
        train(job, bundle)
    else:
        Path(sys.argv[4]).write_text(json.dumps(answer(job, bundle)), encoding="utf-8")


if __name__ == "__main__":
    main()
