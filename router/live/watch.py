"""Promise against live traffic: a bound on the drop and a lifelong alarm, from audits and late labels.

A text is drawn with a probability q that is known before anything is known of its answer. X = D / q where it
was drawn, and 0 where it was not, has the mean of its loss D = 1[answer wrong] - 1[reference wrong] (Horvitz
and Thompson 1952). D is 0 wherever both give the same answer, so only differing draws need a label; until one
comes D is somewhere in [-1, 1], and every claim takes it at its worst.

For a fixed stake l >= 0 and the conditional means m of X, the products of (1 + l X) exp(-l m) and of (1 - l
X) exp(l m) are supermartingales, since 1 + y <= exp(y). Texts that were not drawn, or agreed, leave them as
they are but for the means; so they depend on how often each value came and not on the order, hold however the
means drift, and may be worked out again whenever a label comes, late or out of order. A mixture over stakes
covers the sum of the means at all times at once (Ville 1939; Howard, Ramdas, McAuliffe and Sekhon 2021).

The alarm bets that the drop exceeds what is promised. A bet that began long ago has lost too much to notice a
change; so one is begun at every block, with weight 1 / (k (k + 1)) for the k-th, and the weighted mean of all
is one bet: below 1 / delta for ever with probability 1 - delta while the promise holds at every moment. Such
sums are e-detectors where they control the time to a false alarm (Shin, Ramdas and Rinaldo 2022); with
weights that add up to 1 they control the whole life. Blocks are judged in the order of their decisions, each
prefix by itself, so labels that are still to come hold up only what was decided after them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from contract.evidence import Block, LiveRule, LiveStanding, Yardstick
from router.decide.scores import FloatArray, IntArray

STAKES = np.geomspace(0.05, 0.95, 6)
_BISECTIONS = 60
_LEAST = {"open": -1.0, "differed": -1.0, "worse": 1.0, "better": -1.0, "even": 0.0, "agreed": 0.0}
_MOST = _LEAST | {"open": 1.0, "differed": 1.0}


@dataclass(frozen=True)
class Seen:
    """Blocks of audits as arrays: texts [B] by block, and of k draws what is not surely a loss of 0.

    Attributes:
        texts: [B] answered.
        block: [k] index of its block; `probability` with which it was drawn; `score` of the answer.
        least, most: [k] of its loss as far as it is known.
        differs: [k] 1 where it is known to differ from the reference's answer, else 0.
        counts: [k] whether the policy in force accepted it; the others count on cheaper rungs alone.
    """

    texts: IntArray
    block: IntArray
    probability: FloatArray
    score: FloatArray
    least: FloatArray
    most: FloatArray
    differs: FloatArray
    counts: FloatArray

    @property
    def likely(self) -> FloatArray:
        """The loss [k] where known, and 1 where only the difference is: the reference taken for the truth."""
        return np.where(self.least == self.most, self.least, self.differs)

    def on(self, accepted: FloatArray) -> Seen:
        """Return the same draws with others accepted: [k], 1 or 0."""
        return Seen(
            self.texts,
            self.block,
            self.probability,
            self.score,
            self.least,
            self.most,
            self.differs,
            accepted,
        )

    def since(self, block: int) -> Seen:
        """Return what was seen from a block on."""
        kept = self.block >= block
        parts = (self.probability, self.score, self.least, self.most, self.differs, self.counts)
        return Seen(self.texts[block:], self.block[kept] - block, *(part[kept] for part in parts))


def seen_in(blocks: Sequence[Block]) -> Seen:
    """Return blocks as arrays."""
    rows = [(index, row) for index, block in enumerate(blocks) for row in block.rows]
    outcomes = [row.outcome for _, row in rows]

    def column(values: Sequence[float]) -> FloatArray:
        return np.array(values, dtype=np.float64)

    return Seen(
        texts=np.array([block.texts for block in blocks], dtype=np.int64),
        block=np.array([index for index, _ in rows], dtype=np.int64),
        probability=column([row.probability for _, row in rows]),
        score=column([row.score for _, row in rows]),
        least=column([_LEAST[outcome] for outcome in outcomes]),
        most=column([_MOST[outcome] for outcome in outcomes]),
        differs=column([outcome not in ("open", "agreed") for outcome in outcomes]),
        counts=column([not row.escalated for _, row in rows]),
    )


def bounds(seen: Seen, floor: float, delta: float) -> tuple[float, float]:
    """Return an interval of the mean drop over the texts so far.

    It holds at all times at once with probability 1 - delta; [-1, 1] before any text.
    """
    texts = int(seen.texts.sum())
    if not texts:
        return -1.0, 1.0
    high = upper_sum(seen, seen.most, floor, delta / 2) / texts
    low = -upper_sum(seen, -seen.least, floor, delta / 2) / texts
    return max(-1.0, min(1.0, low)), min(1.0, max(-1.0, high))


def upper_sum(seen: Seen, values: FloatArray, floor: float, delta: float) -> float:
    """Return a bound from above on the sum of the conditional means of `values` [k] / probability.

    It holds at all times at once with probability 1 - delta: the mean over stakes of exp(l sum) times the
    product of 1 - l X stays below 1 / delta.
    """
    stakes = STAKES * floor
    paid = np.log1p(-stakes[:, None] * _values(seen, values)).sum(axis=1)
    limit = -math.log(delta)
    low = float(((limit - paid) / stakes).min())
    high = float(((limit + math.log(len(stakes)) - paid) / stakes).min())
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if _mean_log(stakes * middle + paid) < limit else (low, middle)
    return high


@dataclass(frozen=True)
class Alarm:
    """What a lifelong bet against a promise has come to.

    Attributes:
        log_wealth: the largest so far.
        fired: index of the block after which it first reached 1 / delta; None: not yet.
        since: index of the block at which the best of its bets began by then.
    """

    log_wealth: float
    fired: int | None
    since: int


def alarm(seen: Seen, rule: LiveRule, delta: float) -> tuple[Alarm, Yardstick]:
    """Return the alarm on what is promised, and by what it was raised.

    Where both a drop and a disagreement are promised, half of the wealth is bet on each.
    """
    bets: list[tuple[Yardstick, FloatArray]] = []
    if rule.promised_drop is not None:
        bets.append(("drop", steps(seen, seen.least, rule.promised_drop, rule.floor)))
    if rule.max_disagreement is not None:
        bets.append(("disagreement", steps(seen, seen.differs, rule.max_disagreement, rule.floor)))
    if not bets or not len(seen.texts):
        return Alarm(0.0, None, 0), ""
    wealth = np.array([_wealth(moves) for _, moves in bets])
    joint = np.array([_mean_log(column) for column in wealth.T])
    over = np.flatnonzero(joint >= -math.log(delta))
    peak = max(0.0, float(joint.max()))
    if not len(over):
        return Alarm(peak, None, 0), ""
    fired = int(over[0])
    best = int(wealth[:, fired].argmax())
    return Alarm(peak, fired, _best_start(bets[best][1][: fired + 1])), bets[best][0]


def steps(seen: Seen, values: FloatArray, limit: float, floor: float) -> FloatArray:
    """Return what each block adds to each stake's log-wealth [B, stakes], betting on more than `limit`."""
    stakes = STAKES * floor
    gained = np.log1p(stakes[:, None] * _values(seen, values))
    total = np.array([np.bincount(seen.block, gain, minlength=len(seen.texts)) for gain in gained]).T
    return np.asarray(total - stakes * limit * seen.texts[:, None])


def judge(blocks: Sequence[Block], rule: LiveRule, share: float = 1.0) -> LiveStanding:
    """Return what blocks prove under a rule; the alarm may spend this share of delta."""
    seen = seen_in(blocks)
    delta = rule.delta * share
    low, high = bounds(seen, rule.floor, rule.delta)
    found, by = alarm(seen, rule, delta)
    texts = int(seen.texts.sum())
    return LiveStanding(
        texts=texts,
        draws=sum(block.draws for block in blocks),
        asked=sum(block.asked for block in blocks),
        labelled=sum(row.truth is not None for block in blocks for row in block.rows if not row.escalated),
        drop=float(_values(seen, seen.likely).sum()) / texts if texts else None,
        drop_low=low,
        drop_high=high,
        disagreement=float(_values(seen, seen.differs).sum()) / texts if texts else None,
        log_wealth=found.log_wealth,
        needed=-math.log(delta),
        alarm=by,
        since_text=int(seen.texts[: found.since].sum()) if by else None,
    )


def _values(seen: Seen, values: FloatArray) -> FloatArray:
    return values * seen.counts / seen.probability


def _wealth(moves: FloatArray) -> FloatArray:
    """Return the log-wealth [B] of the weighted bets that begin at each block, after each block."""
    running = np.full(moves.shape[1], -np.inf)
    wealth = np.empty(len(moves))
    for index, move in enumerate(moves):
        k = index + 1
        running = np.logaddexp(running, -math.log(k * (k + 1))) + move
        wealth[index] = np.logaddexp(_mean_log(running), -math.log(k + 1))
    return wealth


def _best_start(moves: FloatArray) -> int:
    backwards = np.cumsum(moves[::-1], axis=0)[::-1]
    return int(np.array([_mean_log(row) for row in backwards]).argmax())


def _mean_log(logs: FloatArray) -> float:
    """Return log of the mean of exp(logs)."""
    top = float(logs.max())
    return top + math.log(float(np.exp(logs - top).mean()))
