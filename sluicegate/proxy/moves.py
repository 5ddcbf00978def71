"""What a proxy does next: a pure decision from where it stands and what it sees."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from router.tune.savings import rows_to_certify
from sluicegate.proxy.standing import Standing

Move = Literal[
    "wait",
    "train",
    "tune",
    "load",
    "unload",
    "begin_shadow",
    "end_shadow",
    "begin_canary",
    "settle",
    "go_back",
]

FEWEST_TEXTS = 100
TEXTS_PER_LABEL = 20
SHARES = {"train": 0.45, "validation": 0.1, "tune": 0.1, "certify": 0.25, "test": 0.1}
"""Of collected texts in a recipe; the certifying part is what a certificate needs most of."""


@dataclass(frozen=True)
class Facts:
    """What is seen now.

    Attributes:
        texts: distinct texts that were kept, of the question that is learnt.
        train_asked: somebody said that it shall train now.
        loaded: whether the gateway serves the proxy's family.
        in_force: version of the policy in force there; empty where none is.
        trials: version of the policy on trial, and its verdict's decision, by kind.
    """

    texts: int = 0
    train_asked: bool = False
    loaded: bool = False
    in_force: str = ""
    trials: dict[str, tuple[str, str]] | None = None

    def trial(self, kind: str, version: str) -> str | None:
        """Return the decision so far on a policy's trial of that kind; None where it is not on trial."""
        found = (self.trials or {}).get(kind)
        return found[1] if found is not None and found[0] == version else None


def enough_texts(labels: int, max_disagreement: float, confidence: float) -> int:
    """Return how many distinct texts make a training worth trying.

    The certifying part must be able to certify a family that disagrees half as often as it may
    (`rows_to_certify`), and each label needs some texts to be learnt from.
    """
    certify = rows_to_certify(max_disagreement, 1 - confidence, max_disagreement / 2) or 0
    return max(FEWEST_TEXTS, TEXTS_PER_LABEL * labels, math.ceil(certify / SHARES["certify"]))


def next_move(standing: Standing, facts: Facts, *, trains: bool = True) -> Move:
    """Return what to do next. Every move may be made again after a kill in the middle of it.

    Args:
        standing: as last written.
        facts: as seen now.
        trains: False for one that only collects.
    """
    if not trains:
        return "wait"
    version = standing.policy_version
    match standing.phase:
        case "collecting" if facts.loaded and standing.round:
            return "unload"
        case "collecting" | "full":
            asked = facts.train_asked and facts.texts >= FEWEST_TEXTS
            enough = standing.phase == "collecting" and facts.texts >= standing.needed_texts > 0
            return "train" if asked or enough else "wait"
        case "training":
            return "train"
        case "certifying":
            return "tune"
        case "loading":
            return "begin_shadow" if facts.loaded else "load"
        case "shadow":
            if facts.in_force == version:
                return "settle"
            if (decision := facts.trial("shadow", version)) is not None:
                return {"promote": "begin_canary", "withdraw": "go_back"}.get(decision, "wait")  # type: ignore[return-value]
            return "go_back" if standing.trial_begun else "begin_shadow"
        case "canary":
            if facts.in_force == version:
                return "settle"
            if facts.trial("shadow", version) is not None:
                return "end_shadow"
            if (decision := facts.trial("canary", version)) is not None:
                return "go_back" if decision == "withdraw" else "wait"
            return "go_back" if standing.trial_begun else "begin_canary"
