"""Which rows to label: accepted answers that differ from the reference's, drawn with known probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from router.decide.scores import FloatArray, IntArray
from router.labels.pair import Pair, counts_above


@dataclass(frozen=True, eq=False)
class Draw:
    """K rows to label, safest first: the first matter for every threshold, the last for the lowest.

    Attributes:
        places: [K] indices into the rows of the pair, by falling score: of n rows drawn at random all that
            differ at or above `level`.
        n: rows drawn, whether they differ or not.
        level: the lowest threshold in question, an index into the pair's path; -1 where the first has too
            many.
        probability: n / rows of the pair, the chance that each of these rows had.
    """

    places: IntArray
    n: int
    level: int
    probability: float

    def __len__(self) -> int:
        return len(self.places)

    def scores(self, pair: Pair) -> FloatArray:
        """Return [K] the scores, falling."""
        return np.asarray(pair.scores[self.places])


def draw_rows(pair: Pair, budget: int, seed: int) -> Draw:
    """Return at most `budget` rows to label.

    Of as many rows, drawn at random, as should hold `budget` differing ones above the lowest threshold in
    question (all, where they hold fewer), it is those that differ, from the safest down as far as the budget
    lasts. How many are drawn was fixed by other rows, and how low they go depends on how many differ and on
    no label: so each threshold is tested as if every one of the n rows had a label.
    """
    hoped = budget / max(pair.rate_at_reach, 1.0 / max(1, pair.n_path))
    n = min(len(pair), max(1, int(hoped)))
    order = np.random.default_rng([seed, 1]).permutation(len(pair))[:n]
    differing = np.sort(order[pair.differs[order]])
    counts = counts_above(pair.scores[differing], pair.path)
    level = int((counts <= budget).sum()) - 1
    if level < 0:
        return Draw(np.zeros(0, dtype=np.int64), n, -1, n / len(pair))
    chosen = differing[pair.scores[differing] >= pair.path[level]]
    order = np.lexsort((chosen, -pair.scores[chosen]))
    return Draw(chosen[order], n, level, n / len(pair))
