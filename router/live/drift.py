"""Score shift: an early warning that traffic no longer looks like the data a policy was tuned on.

It proves nothing of quality.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import scipy

from router.decide.scores import FloatArray

BINS = 10
PSI_WATCH = 0.1
PSI_SHIFTED = 0.25


@dataclass(frozen=True)
class ScoreShift:
    """Compares the scores of a sliding window, by exponential forgetting, with those of the tune part.

    Attributes:
        edges: inner bin edges, deciles of the tune part; expected: share of the tune part per bin.
        counts: weighted counts of recent scores per bin; window: about how many recent scores count.
    """

    edges: tuple[float, ...]
    expected: tuple[float, ...]
    window: int
    counts: tuple[float, ...]

    @staticmethod
    def from_scores(scores: FloatArray, window: int = 2000) -> ScoreShift:
        """Return the comparison against these scores [N] of the tune part."""
        edges = np.unique(np.quantile(scores, np.linspace(0, 1, BINS + 1)[1:-1]))
        share = np.bincount(np.searchsorted(edges, scores, side="right"), minlength=len(edges) + 1) / len(
            scores
        )
        return ScoreShift(tuple(edges.tolist()), tuple(share.tolist()), window, (0.0,) * len(share))

    def seen(self, scores: Sequence[float] | FloatArray) -> ScoreShift:
        """Return the comparison after a batch of scores."""
        batch = np.asarray(scores, dtype=np.float64)
        new = np.bincount(np.searchsorted(self.edges, batch, side="right"), minlength=len(self.expected))
        keep = (1.0 - 1.0 / self.window) ** len(batch)
        return replace(self, counts=tuple((keep * np.asarray(self.counts) + new).tolist()))

    @property
    def psi(self) -> float:
        """The population stability index, sum of (now - then) log(now / then); 0 when empty.

        Each share is kept at 1e-4 or more.
        """
        total = sum(self.counts)
        if total < 1.0:
            return 0.0
        now = np.maximum(np.asarray(self.counts) / total, 1e-4)
        then = np.maximum(np.asarray(self.expected), 1e-4)
        return float(((now - then) * np.log(now / then)).sum())

    @property
    def state(self) -> str:
        """ "quiet", "watch" (PSI over 0.1) or "shifted" (over 0.25).

        Quiet until a quarter of the window is full.
        """
        if sum(self.counts) < self.window / 4:
            return "quiet"
        return "shifted" if self.psi > PSI_SHIFTED else "watch" if self.psi > PSI_WATCH else "quiet"

    def dump(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)

    @staticmethod
    def load(value: dict[str, Any]) -> ScoreShift:
        """Read the JSON form back."""
        lists = {key: tuple(value[key]) for key in ("edges", "expected", "counts")}
        return ScoreShift(**{**value, **lists})


def ks_p_value(before: FloatArray, after: FloatArray) -> float:
    """Return the two-sample Kolmogorov-Smirnov p-value of equal score distributions, for a look on demand."""
    return float(scipy.stats.ks_2samp(before, after).pvalue)
