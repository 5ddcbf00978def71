"""Both sides on every draw: what is answered without the large model, and how often a promise is broken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from bench.decisions.draws import RIVAL, Asked, Seen, Split, certified, seen_by_rival
from contract.costs import Cost
from contract.formulas import wilson_interval
from contract.policy import Policy
from contract.predictions import Predictions

CASCADES: dict[str, tuple[str, ...]] = {
    "its table, our certificate": (RIVAL,),
    "linear": ("linear",),
    "deep table": ("deep",),
    "student": ("student-int8",),
    "deep table -> student": ("deep", "student-int8"),
    "deep table -> student, agreeing": ("deep", "student-int8"),
    "deep table -> student -> six layers": ("deep", "student-int8", "large"),
    "deep table -> student -> six layers, agreeing": ("deep", "student-int8", "large"),
}
SCORES = {name: "agreement" for name in CASCADES if name.endswith("agreeing")}
"""`sluice tune --score` of those that have another than the largest probability."""
SCOPES = ("local", "all")


def compare(
    table: Predictions,
    costs: Mapping[str, Cost],
    draws: Sequence[Split],
    rival: Mapping[str, Any],
    alphas: Sequence[float],
    delta: float,
    scopes: Sequence[str] = SCOPES,
    workers: int = 2,
) -> tuple[list[dict[str, Any]], dict[str, Policy]]:
    """Return a line of figures per system, scope and limit, and our first draw's policies by name."""
    lines, policies = [], {}
    for alpha in alphas:
        thresholds = rival["thresholds"][str(alpha)]
        seen = [seen_by_rival(table, t, split) for t, split in zip(thresholds, draws, strict=True)]
        lines.append(_line("shad0wllm as it is", Asked((RIVAL,), alpha, "local", delta), seen))
    with ProcessPoolExecutor(workers) as pool:
        for scope in scopes:
            for alpha in alphas:
                for name, names in CASCADES.items():
                    asked = Asked(names, alpha, scope, delta, SCORES.get(name, "max_probability"))
                    found = list(pool.map(partial(certified, table, costs, asked), draws))
                    lines.append(_line(name, asked, [seen for _, seen in found]))
                    policies[f"{name}, {scope}, {alpha:g}"] = found[0][0]
    return lines, policies


def _line(name: str, asked: Asked, seen: Sequence[Seen]) -> dict[str, Any]:
    wrong = [one.wrong_of_local if asked.scope == "local" else one.wrong for one in seen]
    broken = sum(share > asked.alpha for share in wrong)
    local = [one.local for one in seen]
    return {
        "name": name,
        "scope": asked.scope,
        "alpha": asked.alpha,
        "local": float(np.mean(local)),
        "local_range": [min(local), max(local)],
        "first": float(np.mean([one.first for one in seen])),
        "wrong": float(np.mean(wrong)),
        "broken": broken,
        "draws": len(seen),
        "broken_interval": list(wilson_interval(broken, len(seen))),
        "accuracy": float(np.mean([1 - one.wrong for one in seen])),
    }
