"""Simulated lives of a policy in force: audits, labels that come late, alarms, and steering along a ladder.

A life is 50,000 texts drawn from a table of which both answers and the truth are known, with what changes on
the way. One promise and one policy; what differs between lives is the seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.routing.tables import markdown, read
from contract.evidence import LiveRule
from contract.formulas import wilson_interval
from router.live.ladder import Ladder, make_ladder, steer
from router.live.watch import Seen, alarm, bounds

LIVES = 200
LENGTH = 50_000
DELTA = 0.1
SHARE = 0.3
FLOOR = 0.2
BLOCK_DRAWS = 300
LABEL_AFTER = 2_000
"""Texts that go by, on average, until the true label of a differing text is told."""

Change = Literal["none", "drift", "shift", "mix"]
CHANGES: dict[Change, str] = {
    "none": "no change",
    "drift": "slow drift, to 2 points beyond the promise at the end",
    "shift": "sudden shift half way, to 2 points beyond the promise",
    "mix": "changed mix: hard classes grow from their share to three times it",
}
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """Texts of a two-stage cascade: scores [N] of the first stage, and its loss where it is accepted.

    Attributes:
        loss: [N] 1, 0 or -1 against the reference; differs: [N] whether the answers do.
        hard: [N] whether it is of the classes on which the first stage loses most.
        threshold: in force; `promised_drop`, `max_disagreement` are kept there with something to spare.
    """

    score: Floats
    loss: Floats
    differs: NDArray[np.bool_]
    hard: NDArray[np.bool_]
    threshold: float
    promised_drop: float
    max_disagreement: float


def world_of(data: Path, epsilon: float = 0.01) -> World:
    """Return ResNet18 before ResNet152 at a threshold that loses four fifths of `epsilon`."""
    rows = read(data, "imagenet_resnets").predictions
    cheap, large = rows.variants["resnet18"], rows.variants["resnet152"]
    loss = rows.correct("resnet152").astype(float) - rows.correct("resnet18")
    score = cheap.confidence
    order = np.argsort(-score, kind="stable")
    drop = np.cumsum(loss[order]) / len(loss)
    at = int(np.flatnonzero(drop <= 0.8 * epsilon)[-1])
    threshold = float(score[order][at])
    accepted = score >= threshold
    codes = np.unique(np.asarray(rows.label), return_inverse=True)[1]
    per_class = np.bincount(codes, loss * accepted) / np.maximum(1, np.bincount(codes))
    hard = per_class[codes] > np.quantile(per_class, 0.8)
    differs = cheap.prediction != large.prediction
    limit = float((differs & accepted).mean()) + 0.5 * epsilon
    return World(score, loss, differs, hard, threshold, epsilon, limit)


@dataclass(frozen=True)
class Texts:
    """The texts of one life [LENGTH], in order, and what becomes of them.

    Attributes:
        mean: [LENGTH] the true mean loss of an accepted text at that moment, by threshold, see `drop_at`.
    """

    score: Floats
    loss: Floats
    differs: NDArray[np.bool_]
    probability: Floats
    drawn: NDArray[np.int64]
    label_at: NDArray[np.int64]
    weight: Floats
    harm: Floats


def live_through(world: World, change: Change, rng: np.random.Generator, length: int = LENGTH) -> Texts:
    """Return one life."""
    at = np.arange(length) / length
    share = float(world.hard.mean())
    weight = np.full(length, share)
    if change == "mix":
        weight = share + np.clip((at - 0.25) / 0.5, 0, 1) * 2 * share
    hard, easy = np.flatnonzero(world.hard), np.flatnonzero(~world.hard)
    rows = np.where(rng.random(length) < weight, rng.choice(hard, length), rng.choice(easy, length))
    score, loss, differs = world.score[rows], world.loss[rows].copy(), world.differs[rows].copy()
    harm = _harm(world, change, at)
    spoilt = rng.random(length) < harm
    loss[spoilt], differs[spoilt] = 1.0, True
    shape = np.sqrt(np.clip(1 - score, 0.01, 1))
    probability = np.clip(SHARE * shape / float(np.sqrt(np.clip(1 - world.score, 0.01, 1)).mean()), FLOOR, 1)
    drawn = np.flatnonzero(rng.random(length) < probability)
    label_at = np.arange(length) + rng.geometric(1 / LABEL_AFTER, length)
    return Texts(score, loss, differs, probability, drawn, label_at, weight, harm)


def drop_at(world: World, texts: Texts, threshold: float) -> Floats:
    """Return the true mean drop [LENGTH] at each moment, were that threshold in force."""
    accepted = world.score >= threshold
    means = [float((world.loss * accepted)[part].mean()) for part in (world.hard, ~world.hard)]
    shares = [float(accepted[part].mean()) for part in (world.hard, ~world.hard)]
    base = texts.weight * means[0] + (1 - texts.weight) * means[1]
    took = texts.weight * shares[0] + (1 - texts.weight) * shares[1]
    return np.asarray((1 - texts.harm) * base + texts.harm * took)


def _harm(world: World, change: Change, at: Floats) -> Floats:
    """Return with which probability the first stage is wrong, and the reference right, at each moment."""
    accepted = world.score >= world.threshold
    base = float((world.loss * accepted).mean())
    most = (world.promised_drop + 0.02 - base) / (float(accepted.mean()) - base)
    if change == "drift":
        return np.asarray(most * np.clip((at - 0.2) / 0.8, 0, 1))
    if change == "shift":
        return np.asarray(most * (at >= 0.5))
    return np.zeros(len(at))


def seen_of(texts: Texts, first: int, ends: list[int], now: int, counts: Floats) -> Seen:
    """Return the draws from number `first` up to the last of `ends`, with what is known at text `now`."""
    drawn = texts.drawn[first : ends[-1]]
    block = np.searchsorted(np.array(ends), np.arange(first, ends[-1]), side="right")
    edges = np.concatenate(
        [[texts.drawn[first - 1] + 1 if first else 0], texts.drawn[np.array(ends) - 1] + 1]
    )
    differs = texts.differs[drawn]
    known = texts.label_at[drawn] <= now
    kept = differs
    loss = texts.loss[drawn]
    return Seen(
        texts=np.diff(edges).astype(np.int64),
        block=block[kept].astype(np.int64),
        probability=texts.probability[drawn][kept],
        score=texts.score[drawn][kept],
        least=np.where(known, loss, -1.0)[kept],
        most=np.where(known, loss, 1.0)[kept],
        differs=differs[kept].astype(float),
        counts=counts[first : ends[-1]][kept],
    )


@dataclass(frozen=True)
class Watched:
    """What became of one life under `watch`.

    Attributes:
        missed: whether the live interval ever missed the mean drop so far.
        alarm_at, audits: text and audits at the alarm; None: none was raised.
        excess_at: text at which the true drop first exceeded the promise; None: never.
        since: audits between the two.
        audits_spent: of the whole life.
    """

    missed: bool
    alarm_at: int | None
    excess_at: int | None
    since: int | None
    audits_spent: int


def watch(world: World, texts: Texts, rule: LiveRule) -> Watched:
    """Watch one life to its end."""
    counts = (texts.score[texts.drawn] >= world.threshold).astype(float)
    true = drop_at(world, texts, world.threshold)
    over = np.flatnonzero(true > world.promised_drop + 1e-12)
    excess_at = int(over[0]) if len(over) else None
    sums = np.cumsum(true)
    ends: list[int] = []
    missed, alarm_at = False, None
    for end in range(BLOCK_DRAWS, len(texts.drawn) + 1, BLOCK_DRAWS):
        ends.append(end)
        now = int(texts.drawn[end - 1])
        seen = seen_of(texts, 0, ends, now, counts)
        if len(ends) % 5 == 0:
            low, high = bounds(seen, rule.floor, rule.delta)
            missed |= not low <= sums[now] / (now + 1) <= high
        if alarm_at is None and alarm(seen, rule, rule.delta)[0].fired is not None:
            alarm_at = now
    since = None
    if alarm_at is not None and excess_at is not None:
        between = (texts.drawn > excess_at) & (texts.drawn <= alarm_at)
        since = int(counts[between].sum())
    return Watched(missed, alarm_at, excess_at, since, int(counts.sum()))


@dataclass(frozen=True)
class Steered:
    """What became of one life under `steer`.

    Attributes:
        wrong: moves to a cheaper rung whose mean drop over the epoch was beyond the promise.
        false_alarms: moves to a safer rung while the rung in force had kept it since the move before.
        moves: both together; drop: mean over the life; late: mean over its last fifth.
        beyond: share of texts answered on a rung that was then beyond the promise by a point or more.
        escalated: share; `audits` asked of the reference for accepted texts.
    """

    wrong: int
    false_alarms: int
    moves: int
    drop: float
    late: float
    beyond: float
    escalated: float
    audits: int


def steer_through(world: World, texts: Texts, rule: LiveRule, max_escalation: float | None = None) -> Steered:
    """Steer one life to its end."""
    ladder, rung = make_ladder(world.threshold, max_escalation=max_escalation)
    true = np.array([drop_at(world, texts, threshold) for threshold in ladder.thresholds])
    sums = np.concatenate([np.zeros((len(true), 1)), np.cumsum(true, axis=1)], axis=1)
    scores = texts.score[texts.drawn]
    counts = np.zeros(len(texts.drawn))
    used = np.zeros(len(texts.score), dtype=np.int64)
    epoch, first, epoch_at, moved_at, begun = 1, 0, 0, 0, 0
    wrong = false = moves = 0
    ends: list[int] = []
    for end in range(BLOCK_DRAWS, len(texts.drawn) + 1, BLOCK_DRAWS):
        now = int(texts.drawn[end - 1])
        counts[end - BLOCK_DRAWS : end] = scores[end - BLOCK_DRAWS : end] >= ladder.thresholds[rung]
        used[begun : now + 1] = rung
        begun = now + 1
        ends.append(end)
        seen = seen_of(texts, first, ends, now, counts)
        escalated = _escalated(ladder, texts, first, end)
        step = steer(ladder, rung, seen, rule, epoch, escalated)
        if step.why == "alarm":
            false += bool((true[rung, moved_at : now + 1] <= world.promised_drop + 1e-12).all())
            epoch, first, ends, epoch_at = epoch + 1, end, [], now + 1
        elif step.why == "proven":
            over = sums[rung + 1 : step.rung + 1, now + 1] - sums[rung + 1 : step.rung + 1, epoch_at]
            wrong += bool((over / (now + 1 - epoch_at) > world.promised_drop).any())
        if step.rung != rung:
            moves, moved_at = moves + 1, now + 1
        rung = step.rung
    used[begun:] = rung
    drop = true[used, np.arange(len(used))]
    taken = texts.score >= np.array(ladder.thresholds)[used]
    return Steered(
        wrong=wrong,
        false_alarms=false,
        moves=moves,
        drop=float(drop.mean()),
        late=float(drop[-len(drop) // 5 :].mean()),
        beyond=float((drop >= world.promised_drop + 0.01).mean()),
        escalated=1 - float(taken.mean()),
        audits=int((scores >= np.array(ladder.thresholds)[used[texts.drawn]]).sum()),
    )


def _escalated(ladder: Ladder, texts: Texts, first: int, end: int) -> list[float]:
    drawn = texts.drawn[first:end]
    weight = 1 / texts.probability[drawn]
    below = [float(weight[texts.score[drawn] < threshold].sum()) for threshold in ladder.thresholds]
    return [one / float(weight.sum()) for one in below]


def rules_of(world: World) -> dict[str, LiveRule]:
    """Return the rules that lives are watched by: with labels, without any, and by both."""
    return {
        "labels": LiveRule(promised_drop=world.promised_drop, delta=DELTA, floor=FLOOR),
        "no labels": LiveRule(max_disagreement=world.max_disagreement, delta=DELTA, floor=FLOOR),
        "both": LiveRule(
            promised_drop=world.promised_drop,
            max_disagreement=world.max_disagreement,
            delta=DELTA,
            floor=FLOOR,
        ),
    }


def lives(data: Path, number: int = LIVES) -> str:
    """Return the section on simulated lives."""
    world = world_of(data)
    accepted = world.score >= world.threshold
    stated = (
        f"{number} lives of {LENGTH:,} texts each, ResNet18 before ResNet152 (threshold "
        f"{world.threshold:.3f}: {1 - accepted.mean():.1%} escalate, the drop is "
        f"{(world.loss * accepted).mean() * 100:.2f} points), "
        f"{world.promised_drop * 100:g} point promised and at most {world.max_disagreement:.1%} answered "
        f"otherwise, delta = {DELTA:g}; {SHARE:.0%} of texts drawn on average, with probability as the root "
        f"of 1 - score and {FLOOR:.0%} at least; the label of a differing text comes {LABEL_AFTER:,} texts "
        "later on average, out of order."
    )
    watched = [line for name in ("labels", "no labels") for line in _watched(world, name, number)]
    return "\n\n".join(
        [
            "## Lives under watch and steer (simulated on the ImageNet table)",
            stated,
            markdown(
                [
                    "change", "alarm by", "interval ever wrong", "false alarms", "found",
                    "audits until found: median, 90%", "texts until found: median", "audits of a life",
                ],
                watched,
            ),
            "Steering, by both:",
            markdown(
                [
                    "change", "lives with a wrong move to a cheaper rung", "with a false alarm", "moves",
                    "drop of the life, points", "of its last fifth", "texts a point or more beyond",
                    "escalated", "audits",
                ],
                [_steered(world, change, number) for change in CHANGES],
            ),
        ]
    )  # fmt: skip


def _watched(world: World, by: str, number: int) -> list[list[str]]:
    lines = []
    for change, told in CHANGES.items():
        rng = [np.random.default_rng([seed, 7]) for seed in range(number)]
        found = [watch(world, live_through(world, change, one), rules_of(world)[by]) for one in rng]
        alarmed = [one for one in found if one.alarm_at is not None]
        false = [one for one in alarmed if one.excess_at is None or one.excess_at > (one.alarm_at or 0)]
        delays = [one.since for one in alarmed if one.since is not None and one not in false]
        texts = [one.alarm_at - (one.excess_at or 0) for one in alarmed if one.alarm_at and one not in false]
        lines.append(
            [
                told,
                by,
                _share(sum(one.missed for one in found), number),
                _share(len(false), number),
                "-" if all(one.excess_at is None for one in found) else f"{len(delays) / number:.0%}",
                f"{np.median(delays):,.0f}, {np.quantile(delays, 0.9):,.0f}" if delays else "-",
                f"{np.median(texts):,.0f}" if delays else "-",
                f"{np.mean([one.audits_spent for one in found]):,.0f}",
            ]
        )
    return lines


def _steered(world: World, change: Change, number: int) -> list[str]:
    rule = rules_of(world)["both"]
    rng = [np.random.default_rng([seed, 7]) for seed in range(number)]
    found = [steer_through(world, live_through(world, change, one), rule) for one in rng]

    def mean(name: str) -> float:
        return float(np.mean([getattr(one, name) for one in found]))

    return [
        CHANGES[change],
        _share(sum(one.wrong > 0 for one in found), number),
        _share(sum(one.false_alarms > 0 for one in found), number),
        f"{mean('moves'):.1f}",
        f"{mean('drop') * 100:.2f}",
        f"{mean('late') * 100:.2f}",
        f"{mean('beyond'):.1%}",
        f"{mean('escalated'):.1%}",
        f"{mean('audits'):,.0f}",
    ]


def _share(count: int, of: int) -> str:
    low, high = wilson_interval(count, of)
    return f"{count / of:.1%} ({low:.1%} to {high:.1%})"
