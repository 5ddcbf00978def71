"""The answers of a model behind HTTP, merged from its replies, and as logits for the rest of the house."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.api import Logits
from runtime.remote.forms.said import Probabilities, Said, led_by, spread

FLOOR = 1e-6
"""The least probability that a logit is made of: replies leave out what is unlikely, and say 0 or 1."""


@dataclass(frozen=True)
class Answered:
    """Answers to N texts.

    Attributes:
        labels: [N] class indices.
        probabilities: [N, C]: as told, else the agreement of repeated answers; None where neither is there.
        usd: what the replies cost.
        seconds: of the slowest reply, from when it was asked for; waits and failed tries are not in it.
        tokens_in, tokens_out: that the replies counted.
    """

    labels: NDArray[np.int64]
    probabilities: Probabilities | None
    usd: float
    seconds: float
    tokens_in: int = 0
    tokens_out: int = 0

    def logits(self, classes: int) -> Logits:
        """Return float32 logits [N, C] whose softmax is the probabilities; sure where there are none."""
        return logits_of(self.labels, self.probabilities, classes)


def logits_of(labels: NDArray[np.int64], probabilities: Probabilities | None, classes: int) -> Logits:
    """Return float32 logits [N, C]: log-probabilities, none below log(FLOOR)."""
    if probabilities is None:
        probabilities = np.zeros((len(labels), classes))
        probabilities[np.arange(len(labels)), labels] = 1.0
    return np.log(np.maximum(probabilities, FLOOR)).astype(np.float32)


def agreed(replies: Sequence[Said], classes: int) -> Said:
    """Return what R replies to the same one text say together.

    The mean of their probabilities; where one told none, the share of the replies that name each label. Of
    labels named as often the one named first is the answer.
    """
    tokens_in, tokens_out = (
        sum(getattr(one, name) for one in replies) for name in ("tokens_in", "tokens_out")
    )
    first = replies[0]
    if len(replies) == 1:
        return first
    told = [one.probabilities for one in replies if one.probabilities is not None]
    if len(told) == len(replies):
        mean: Probabilities = np.mean(told, axis=0)[0]
        return Said(np.array([int(mean.argmax())]), mean[None, :], tokens_in, tokens_out)
    votes = Counter(int(one.labels[0]) for one in replies)
    label, _ = votes.most_common(1)[0]
    shares = np.zeros(classes)
    for voted, n in votes.items():
        shares[voted] = n / len(replies)
    return Said(np.array([label]), led_by(label, shares)[None, :], tokens_in, tokens_out)


def joined(parts: Sequence[Said], classes: int) -> Said:
    """Return what replies to several texts say, one after the other."""
    if len(parts) == 1:
        return parts[0]
    probabilities = None
    if any(part.probabilities is not None for part in parts):
        rows = [
            part.probabilities
            if part.probabilities is not None
            else np.stack([spread(int(label), 1.0, classes) for label in part.labels])
            for part in parts
        ]
        probabilities = np.concatenate(rows)
    return Said(
        np.concatenate([part.labels for part in parts]),
        probabilities,
        sum(part.tokens_in for part in parts),
        sum(part.tokens_out for part in parts),
    )
