"""What a decision takes in process: one text at a time, encoding, scores and verdicts included."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.decisions.draws import UPSTREAM
from contract.family import Family
from contract.policy import Policy
from router.decide.cascade import Answer, CompiledPolicy, compile_policy
from runtime.api import LoadedVariant
from runtime.load import load_variant

ROUNDS = 5


def decision_us(
    folder: Path, family: Family, policy: Policy, labels: Sequence[object], texts: Sequence[str]
) -> dict[str, float]:
    """Return p50, p90 and mean microseconds of a decision; one that is the large model's ends unanswered."""
    compiled = compile_policy(policy, labels)
    names = [stage.variant for stage in policy.stages if stage.variant != UPSTREAM]
    loaded = [load_variant(folder, family, name) for name in names]
    taken = []
    for text in texts[:50]:
        _decide(loaded, compiled, text)
    for _ in range(ROUNDS):
        for text in texts:
            started = time.perf_counter()
            _decide(loaded, compiled, text)
            taken.append(1e6 * (time.perf_counter() - started))
    p50, p90 = np.quantile(taken, [0.5, 0.9])
    return {"p50": float(p50), "p90": float(p90), "mean": float(np.mean(taken))}


def _decide(loaded: Sequence[LoadedVariant], compiled: CompiledPolicy, text: str) -> int | None:
    """Return the class that a stage of ours answers, None where the large model is asked."""
    place = 0
    while place < len(loaded):
        scored = compiled.stages[place].score_one(loaded[place].logits([text])[0])
        verdict = compiled.decide(place, scored.predicted, scored.score)
        if isinstance(verdict, Answer):
            return scored.predicted
        place = verdict.next_index
    return None
