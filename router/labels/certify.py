"""What labels prove: thresholds tested safest first, each at level delta, until the first that fails."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from router.decide.scores import FloatArray, IntArray
from router.labels.draw import Draw
from router.labels.pair import Pair, counts_above
from router.tune.pvalues import betting_p_value
from router.tune.trinomial import trinomial_p_value

UNKNOWN = 9
"""In place of a loss: not asked yet."""


@dataclass(frozen=True)
class Step:
    """One threshold of the path, tested.

    Attributes:
        place: its index in the path.
        threshold: accept where the score is at least this.
        labels: accepted answers that differ from the reference's, among the rows drawn; all have labels.
        plus, minus: labels by which only the reference, or only the cheap variant, is right.
        p_value: of "the accuracy drop is epsilon or more".
    """

    place: int
    threshold: float
    labels: int
    plus: int
    minus: int
    p_value: float
    passed: bool


@dataclass(frozen=True)
class Certified:
    """The thresholds that were tested.

    Attributes:
        steps: in the order of testing.
        exhausted: whether every threshold in question passed, so that more labels could only lower it.
    """

    steps: tuple[Step, ...]
    exhausted: bool

    @property
    def best(self) -> Step | None:
        """The lowest threshold that passed, None where none did."""
        passed = [step for step in self.steps if step.passed]
        return passed[-1] if passed else None


def certify(pair: Pair, draw: Draw, losses: IntArray, epsilon: float, delta: float) -> Certified:
    """Test the path's thresholds from the safest down, as far as labels are complete.

    Args:
        pair: the rows.
        draw: those drawn to be labelled.
        losses: [K] in the order of the draw: 1 where only the reference is right, -1 where only the cheap
            variant is, 0 where neither is; UNKNOWN from some place on where labelling stopped. It may stop
            anywhere, for any reason, and go on later: a threshold's test waits until all drawn rows above it
            have labels.
        epsilon: accuracy drop.
        delta: level.

    All that passed hold together with probability 1 - delta (Learn then Test, fixed-sequence testing).
    """
    known = losses != UNKNOWN
    complete = int(known.argmin()) if not known.all() else len(losses)
    scores = draw.scores(pair)
    asked = counts_above(scores, pair.path)
    plus = np.concatenate([[0], np.cumsum(losses[:complete] == 1)])
    minus = np.concatenate([[0], np.cumsum(losses[:complete] == -1)])
    steps: list[Step] = []
    for place in range(draw.level + 1):
        labels = int(asked[place])
        if labels > complete:
            return Certified(tuple(steps), exhausted=False)
        counts = (int(plus[labels]), int(minus[labels]))
        p_value = trinomial_p_value(*counts, draw.n, epsilon, delta)
        passed = p_value <= delta
        threshold = float(pair.path[place])
        steps.append(Step(place, threshold, labels, *counts, p_value, passed))
        if not passed:
            return Certified(tuple(steps), exhausted=False)
    return Certified(tuple(steps), exhausted=True)


def weighted_p_value(losses: FloatArray, probabilities: FloatArray, epsilon: float, delta: float) -> float:
    """Return the p-value of H0: E[loss] >= epsilon where rows were labelled with probabilities of their own.

    Each row's loss counts 1 / probability times where it was labelled and 0 where not (Horvitz and Thompson
    1952), which has the same mean; betting (Waudby-Smith and Ramdas 2024) tests that.

    Args:
        losses: [N] in {-1, 0, 1}, in a random order; 0 where the answers agree or the row was not labelled.
        probabilities: [N] of being labelled; 1 where the answers agree.
        epsilon: accuracy drop.
        delta: the level that the bets are best for.
    """
    bound = 1.0 / float(probabilities.min(initial=1.0))
    return betting_p_value(losses / probabilities, epsilon, delta, low=-bound, high=bound)
