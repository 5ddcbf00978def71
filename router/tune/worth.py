"""What more labelled rows would be worth where nothing was certified, by simulation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from router.tune.certify import Tested, fixed_sequence
from router.tune.policies import Evidence

MORE = 100
LIVES = 100


def worth_of_rows(evidence: Evidence, tested: Sequence[Tested]) -> str | None:
    """Return in words what 100 more rows to certify with would be worth; None where nothing was tested.

    Rows like those at hand are added 100 times at random, and the candidates that were tested are tested
    again, in their order. What would come after the last of them is not known, so the saving is at least
    what is told.
    """
    sample = evidence.certify
    alone = float(evidence.search.sample.usd[evidence.reference])
    if sample is None or not tested or alone <= 0.0:
        return None
    rng = np.random.default_rng([evidence.seed, 1])
    n = len(sample)
    saved = []
    for _ in range(LIVES):
        rows = np.concatenate([np.arange(n), rng.integers(0, n, MORE)])
        found = fixed_sequence(
            evidence.search,
            [t.estimate for t in tested],
            sample.take(rows),
            rng.permutation(len(rows)),
            evidence.level,
        )
        saved.append(max([0.0, *(1.0 - t.estimate.usd_per_1k / alone for t in found if t.passed)]))
    low, high = np.quantile(saved, [0.1, 0.9])
    return (
        f"The next {MORE} labelled rows to certify with, if like these, would be worth: {np.mean(saved):.0%} "
        f"saved, certified, in place of nothing (80% of simulated outcomes: {low:.0%} to {high:.0%})."
    )
