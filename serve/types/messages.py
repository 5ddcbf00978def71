"""Requests and results: what protocols and data plane hand each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from contract.probabilities import softmax
from router.decide.scores import FloatArray
from runtime.api import Encoded, Logits
from serve.types.priority import DEFAULT_PRIORITY

CASCADE = "cascade"


class Texts(list[str]):
    """The texts of one request, with what a stage in this process has already encoded of them.

    Attributes:
        encodings: by the encoder's sha256; a stage uses what is there and adds what it made.
    """

    __slots__ = ("encodings",)

    def __init__(self, texts: Sequence[str], encodings: dict[str, Encoded] | None = None) -> None:
        super().__init__(texts)
        self.encodings = {} if encodings is None else encodings

    def rows(self, rows: Sequence[int]) -> Texts:
        """Return some of the texts, their encodings with them."""
        encodings = {sha256: encoded.take(rows) for sha256, encoded in self.encodings.items()}
        return Texts([self[row] for row in rows], encodings)


@dataclass(slots=True)
class ClassifyRequest:
    """N >= 1 texts for one model, checked against the limits by the protocol that read them.

    Attributes:
        model: `cascade` or the name of a variant, either of which may have its family before it.
        texts: [N].
        timeout_s: seconds that the client is ready to wait, from `arrived_at`.
        arrived_at: clock second at which the head of the request was there.
        caller: name of the key that asks; empty without keys.
        priority: level, 1 the highest.
        sticky_key: requests with the same one are answered by the same arm of a canary; empty: by lot.
        asked: the model as the client wrote it, where its family has a shorter name for it.
    """

    model: str
    texts: Sequence[str]
    timeout_s: float | None
    arrived_at: float
    caller: str = ""
    priority: int = DEFAULT_PRIORITY
    sticky_key: bytes = b""
    asked: str = ""


@dataclass(slots=True, eq=False)
class ClassifyResult:
    """Answers to N texts, all from one snapshot.

    Attributes:
        model: as asked.
        labels: the label set; class indices point into it.
        predicted, confidence, variant, escalated, degraded: [N] each.
        logits: [N, C] of the stage that answered each text.
        temperatures: [N] that divide them.
        policy_version: of the policy in force; None where no policy had a part.
        by_load: [N] whether it is degraded for want of time, room or a stage that works, rather than by the
            policy's own budget; empty where none is.
        abstained: [N] whether nobody answers it, and what stands there is the last stage's guess; empty under
            a policy that never abstains.
        certified: whether the policy in force has a certificate; False where no policy had a part.
        gear: of the policy, in which all were answered; empty where it has none.
    """

    model: str
    labels: tuple[str, ...]
    predicted: list[int]
    confidence: list[float]
    variant: list[str]
    escalated: list[bool]
    degraded: list[bool]
    logits: Logits
    temperatures: list[float]
    policy_version: str | None
    by_load: Sequence[bool] = ()
    certified: bool = False
    abstained: Sequence[bool] = ()
    gear: str = ""

    def label(self, row: int) -> str:
        """Return the answer to a text; empty where nobody answers."""
        return "" if self.abstained and self.abstained[row] else self.labels[self.predicted[row]]

    def probabilities(self) -> FloatArray:
        """Return calibrated probabilities [N, C]."""
        return softmax(self.logits / np.asarray(self.temperatures)[:, None])


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a client may know of a served model.

    Attributes:
        name: by which it is asked.
        labels: the label set.
        kind: `cascade`, or the kind of the variant.
        content_sha256: of its policy or artifact.
        family: name that its family is served under.
        local: its own name in the family, by which it is counted; empty: `name` is that.
        images: whether its texts are images.
        instructions: of the question that its family was made for, word for word; None where they are not
            known.
        abstains: whether its policy leaves some texts to a person.
    """

    name: str
    labels: tuple[str, ...]
    kind: str
    content_sha256: str
    family: str = ""
    local: str = ""
    images: bool = False
    instructions: str | None = None
    abstains: bool = False

    @property
    def is_cascade(self) -> bool:
        """Whether it is the cascade of its family."""
        return (self.local or self.name) == CASCADE


def local_name(name: str, family: str) -> str:
    """Return a model's name without that family before it; a family's name alone means its cascade."""
    if not family or not name.startswith(family):
        return name
    rest = name[len(family) :]
    if not rest:
        return CASCADE
    return rest[1:] if rest[0] == "/" else name
