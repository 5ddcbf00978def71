"""Steering: the threshold of the first stage moves along a ladder of rungs under one guarantee for its life.

A text that is drawn tells of every rung: it has a score, and both answers are known whichever rung is in
force, since the reference is asked where the first stage's answer was accepted, and has answered where not.

Half of delta pays for moves to safer rungs: the alarm bets on the losses of whichever rung is in force, so it
is one bet however often that changes, and it is raised falsely, in the whole life, with probability delta / 2
at most. The other half pays for moves to cheaper rungs, split evenly between the rungs: one is taken only
while the bound on its mean drop since the last alarm, valid at all times at once, is within the promise. Each
alarm begins a new epoch without the draws before it, and the e-th epoch spends 1 / (e (e + 1)) of each half.
So with probability 1 - delta no move of the whole life is wrong: none to a safer rung while the rung in force
has kept the promise at every moment since the last, and none to a cheaper one whose mean drop over the epoch
is beyond it. The rung that the certificate is about is where steering begins; its proof is the certificate's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from contract.evidence import LiveRule
from router.decide.scores import FloatArray
from router.live.watch import Alarm, Seen, alarm, upper_sum

_SURE = 1.0
"""Standard errors that an estimate must be below the promise, for a rung to be fled to."""


@dataclass(frozen=True)
class Ladder:
    """Thresholds of the first stage, safest first; infinity sends everything to the reference.

    Attributes:
        thresholds: falling.
        max_escalation: the budget: no rung that escalates more is moved to; None: there is none.
    """

    thresholds: tuple[float, ...]
    max_escalation: float | None = None

    def accepted(self, rung: int, seen: Seen) -> FloatArray:
        """Return which draws [k] the rung would accept, as 1 or 0."""
        return (seen.score >= self.thresholds[rung]).astype(np.float64)


@dataclass(frozen=True)
class Step:
    """What steering says after a block.

    Attributes:
        rung: to be in force from now on.
        why: nothing speaks for a move, an alarm was raised, or a cheaper rung is proven.
        conflict: an alarm was raised, and the budget keeps every safer rung out of reach.
        alarm: of the rung in force.
    """

    rung: int
    why: Literal["stay", "alarm", "proven"]
    conflict: bool
    alarm: Alarm


def make_ladder(certified: float, rungs: int = 8, max_escalation: float | None = None) -> tuple[Ladder, int]:
    """Return thresholds around the certified one, and its rung.

    Each of the `rungs` above it is nearer to 1 than the one below by three tenths of what separates that one;
    each of as many below it is farther by a fifth, as long as they are above 0.
    """
    above = [1 - (1 - certified) * 0.7**step for step in range(rungs, 0, -1)]
    below = [1 - (1 - certified) * 1.2**step for step in range(1, rungs + 1)]
    thresholds = (math.inf, *above, certified, *(one for one in below if one > 0))
    return Ladder(thresholds, max_escalation), 1 + rungs


def part_of_delta(epoch: int) -> float:
    """Return the share of delta that the moves of one epoch in one direction may spend."""
    return 0.5 / (epoch * (epoch + 1))


def steer(
    ladder: Ladder, rung: int, seen: Seen, rule: LiveRule, epoch: int, escalated: Sequence[float]
) -> Step:
    """Return where to go from a rung.

    Args:
        ladder: of thresholds.
        rung: in force.
        seen: draws since the epoch began, `counts` by the rung then in force.
        rule: `promised_drop` is what the moves keep.
        epoch: from 1.
        escalated: estimated share of texts that each rung escalates.
    """
    part = rule.delta * part_of_delta(epoch)
    found, _ = alarm(seen, rule, part)
    if found.fired is not None:
        to = _refuge(ladder, rung, seen.since(found.since), rule, escalated)
        return Step(to, "alarm", to == rung, found)
    return _cheaper(ladder, rung, seen, rule, part, found)


def _refuge(ladder: Ladder, rung: int, recent: Seen, rule: LiveRule, escalated: Sequence[float]) -> int:
    """Return the cheapest safer rung that looks good enough since the excess began; else the safest."""
    within = [
        safer
        for safer in range(rung)
        if ladder.max_escalation is None or escalated[safer] <= ladder.max_escalation
    ]
    if not within:
        return rung
    for safer in reversed(within):
        on = recent.on(ladder.accepted(safer, recent))
        promised = ((on.likely, rule.promised_drop), (on.differs, rule.max_disagreement))
        if all(limit is None or _mean_and_error(on, values) <= limit for values, limit in promised):
            return safer
    return within[0]


def _mean_and_error(seen: Seen, values: FloatArray) -> float:
    texts = max(1, int(seen.texts.sum()))
    x = values * seen.counts / seen.probability
    return float(x.sum() + _SURE * math.sqrt((x**2).sum())) / texts


def _cheaper(ladder: Ladder, rung: int, seen: Seen, rule: LiveRule, part: float, found: Alarm) -> Step:
    """Return the step to the cheapest rung up to which all are proven."""
    cheaper = range(rung + 1, len(ladder.thresholds))
    texts = int(seen.texts.sum())
    to = rung
    for rung_there in cheaper:
        if not texts or not _proven(ladder, rung_there, seen, rule, part / len(ladder.thresholds)):
            break
        to = rung_there
    return Step(to, "proven" if to != rung else "stay", False, found)


def _proven(ladder: Ladder, rung: int, seen: Seen, rule: LiveRule, part: float) -> bool:
    on = seen.on(ladder.accepted(rung, seen))
    differs = np.where(on.least == on.most, on.differs, 1.0)
    promised = ((on.most, rule.promised_drop), (differs, rule.max_disagreement))
    asked = [(values, limit) for values, limit in promised if limit is not None]
    texts = int(seen.texts.sum())
    return bool(asked) and all(
        upper_sum(on, values, rule.floor, part) <= limit * texts for values, limit in asked
    )
