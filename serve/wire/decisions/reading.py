"""From a model's logits to the probabilities of what a question offered, and what may be said of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from contract.errors import NotReady
from serve.types.messages import ClassifyResult
from serve.wire.decisions.matching import Match

BY_NAME = "a variant by name answered, and no policy"
NO_CERTIFICATE = "the policy in force has no certificate"
DEGRADED = "a cheaper stage answered than the policy wanted"
ABSTAINED = "no stage was sure enough: the text is left to a person"
UNSURE = "its labels alone told who answers: name the question in the settings, or a model in the request"
OTHERWISE = "another label is the most probable than what this answer says"
BY_UPSTREAM = "answered upstream"


def read_off(
    match: Match, labels: tuple[str, ...], logits: NDArray[np.float32], temperature: float, kind: str
) -> tuple[list[float], int]:
    """Return the probabilities of what was offered, and which of them is the largest.

    Over a part of the labels they are renormalised: the softmax of its logits alone, which is the same and
    holds also where every probability of the part is as good as 0.

    Args:
        match: how the model answers.
        labels: of the result; they may be others than those of the match, if the family has just changed.
        logits: [C].
        temperature: divides them.
        kind: of the question.

    Raises:
        NotReady: the family has changed, and what was offered are not its labels any more.
    """
    rows = match.rows
    if labels is not match.family_labels and labels != match.family_labels:
        names = [match.family_labels[row] for row in rows.tolist()]
        if not set(names).issubset(labels):
            raise NotReady("the family that answers this question has just changed: ask again")
        place = {label: row for row, label in enumerate(labels)}
        rows = np.array([place[name] for name in names])
    if kind == "predicate":
        probability = float(_softmax(logits, temperature)[rows[0]])
        return [probability], int(probability < 0.5)
    probabilities = _softmax(logits[rows], temperature)
    return probabilities.tolist(), int(probabilities.argmax())


def _softmax(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    scaled = logits.astype(np.float64)
    scaled /= temperature
    scaled -= scaled.max()
    np.exp(scaled, out=scaled)
    scaled /= scaled.sum()
    return scaled


def doubt(match: Match, result: ClassifyResult, says_yes: bool | None = None) -> str | None:
    """Return why no certificate stands behind an answer; None where one does.

    A certificate is about the most probable of all labels of a family, found as the policy says. Among more
    than two, the most probable may be a predicate's yes and have less than a half.

    Args:
        match: how the model answers.
        result: its result.
        says_yes: what a predicate's answer says; None for other questions.
    """
    if result.policy_version is None:
        return BY_NAME
    if result.abstained and result.abstained[0]:
        return ABSTAINED
    if not result.certified:
        return NO_CERTIFICATE
    if result.degraded[0]:
        return DEGRADED
    if not match.whole:
        return f"{match.offered} of {len(match.family_labels)} labels were offered; certified are all of them"
    if not match.meant:
        return UNSURE
    if says_yes is not None:
        is_yes = result.labels[result.predicted[0]] == match.family_labels[match.rows[0]]
        if is_yes != says_yes:
            return OTHERWISE
    return None
