"""Candidates: cascades with their thresholds, how they route a sample, and the search of a threshold grid."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from router.decide.scores import FloatArray, IntArray
from router.tune.sample import Sample

ACCEPT_ALL = 0.0
ESCALATE_ALL = 2.0
CELLS = 40_000
MOST_CHAINS = 400


@dataclass(frozen=True, eq=False)
class ClassRules:
    """Thresholds [C + 1] and places in the chain to escalate to [C + 1].

    The last entry serves every other answer.
    """

    thresholds: FloatArray
    nexts: IntArray


@dataclass(frozen=True, eq=False)
class Candidate:
    """A cascade: `chain` of variant indices, and one rule per stage but the last.

    A rule is a threshold, or rules per class.
    """

    chain: tuple[int, ...]
    rules: tuple[float | ClassRules, ...]


@dataclass(frozen=True, eq=False)
class Routed:
    """Who answered each row, and who ran.

    chosen [N]: the variant that answered; place [N]: its place in the chain; ran [N, stages]: which ran.
    """

    chosen: IntArray
    place: IntArray
    ran: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


def route(candidate: Candidate, sample: Sample, scores: Sequence[FloatArray]) -> Routed:
    """Send every row of the sample through the candidate; scores[j] is [N] for stage j."""
    n, last = len(sample), len(candidate.chain) - 1
    current = np.zeros(n, dtype=np.int64)
    place = np.full(n, last, dtype=np.int64)
    ran = np.zeros((n, last + 1), dtype=bool)
    for index, rule in enumerate(candidate.rules):
        here = current == index
        ran[:, index] = here
        if isinstance(rule, ClassRules):
            slot = sample.answers[candidate.chain[index]]
            accepted, following = scores[index] >= rule.thresholds[slot], rule.nexts[slot]
        else:
            accepted, following = scores[index] >= rule, np.full(n, index + 1)
        place[here & accepted] = index
        current = np.where(here, np.where(accepted, last + 1, following), current)
    ran[:, last] = current == last
    return Routed(np.array(candidate.chain)[place], place, ran)


def chains_of(count: int, max_stages: int | None = None) -> Iterator[tuple[int, ...]]:
    """Yield chains of variants 0..count-1 (cheapest first), shortest chains first.

    At most MOST_CHAINS, and the full one.
    """
    longest = min(count, max_stages or count)
    every = itertools.chain.from_iterable(
        itertools.combinations(range(count), k) for k in range(1, longest + 1)
    )
    given = list(itertools.islice(every, MOST_CHAINS))
    full = tuple(range(count))
    if len(full) <= longest and full not in given:
        given.append(full)
    yield from given


def chain_counts(count: int, max_stages: int | None = None) -> tuple[int, int]:
    """Return how many chains `chains_of` yields, and how many there are."""
    longest = min(count, max_stages or count)
    every = sum(math.comb(count, size) for size in range(1, longest + 1))
    return min(every, MOST_CHAINS + (longest == count)), every


def threshold_grid(scores: FloatArray, size: int) -> FloatArray:
    """Return at most `size` ascending thresholds, from accepting all to escalating all.

    Between them lie midpoints of neighbouring distinct scores. Each midpoint lies in the widest gap near its
    quantile, so that a score that moves by rounding stays on its side.
    """
    distinct, counts = np.unique(scores, return_counts=True)
    if len(distinct) < 2:
        return np.array([ACCEPT_ALL, ESCALATE_ALL])
    gaps = np.diff(distinct)
    middles = distinct[:-1] + gaps / 2
    wide = middles > distinct[:-1]
    middles, gaps = middles[wide], gaps[wide]
    below = np.cumsum(counts)[:-1][wide]
    inner = size - 2
    if len(middles) > inner:
        group = np.minimum((below - 1) * inner // len(scores), inner - 1)
        order = np.lexsort((-gaps, group))
        first = np.concatenate([[True], np.diff(group[order]) > 0])
        middles = np.sort(middles[order[first]])
    return np.concatenate([[ACCEPT_ALL], middles, [ESCALATE_ALL]])


@dataclass(frozen=True, eq=False)
class GridSums:
    """What a chain does at every cell of its threshold grid, each array of shape (G1, ..., Gk).

    reach[j]: share of rows that run stage j; means[c], squares[c]: mean and mean square of loss c over its
    rows.
    """

    grids: tuple[FloatArray, ...]
    reach: tuple[FloatArray, ...]
    means: tuple[FloatArray, ...]
    squares: tuple[FloatArray, ...]


def grid_size(stages: int) -> int:
    """Return how many thresholds per stage keep a grid of `stages` stages under CELLS cells."""
    return 512 if stages == 2 else max(3, int(CELLS ** (1.0 / max(1, stages - 1))))


def sweep_grid(
    chain: Sequence[int],
    scores: Sequence[FloatArray],
    grids: Sequence[FloatArray],
    losses: Sequence[FloatArray],
    sizes: Sequence[int],
    n: int,
) -> GridSums:
    """Evaluate every combination of thresholds at once, from one histogram per stage.

    losses[c] is [V, n] (zero on rows that constraint c does not concern) and sizes[c] the rows it does
    concern. Row i stops
    at stage j when its bin there is above the threshold's index and its earlier bins are not, so cumulative
    sums of the histogram over the bins of stages 0..j give the sums for all cells: O(rows + cells) per
    stage.
    """
    shape = tuple(len(grid) for grid in grids)
    last = len(chain) - 1
    flat = np.zeros(n, dtype=np.int64)
    reach: list[FloatArray] = []
    totals = [np.zeros(shape) for _ in losses]
    squares = [np.zeros(shape) for _ in losses]
    for place, variant in enumerate(chain):
        prefix = shape[:place]
        if place < last:
            # every score is at least the lowest threshold, so the bins are 1..G
            slot = np.searchsorted(grids[place], scores[place], side="right") - 1
            flat = flat * shape[place] + np.maximum(slot, 0)
            cells = (*prefix, shape[place])
        else:
            cells = prefix
        padded = cells + (1,) * (len(shape) - len(cells))

        arrived = _summed(flat, None, cells, place)
        arrived = arrived.sum(axis=place) if place < last else arrived
        reach.append(
            np.broadcast_to(arrived.reshape(prefix + (1,) * (len(shape) - place)), shape) / max(1, n)
        )
        for index, loss in enumerate(losses):
            totals[index] += _accepted(_summed(flat, loss[variant], cells, place), place, last).reshape(
                padded
            )
            squares[index] += _accepted(_summed(flat, loss[variant] ** 2, cells, place), place, last).reshape(
                padded
            )
    return GridSums(
        grids=tuple(grids),
        reach=tuple(reach),
        means=tuple(total / max(1, size) for total, size in zip(totals, sizes, strict=True)),
        squares=tuple(square / max(1, size) for square, size in zip(squares, sizes, strict=True)),
    )


def _summed(flat: IntArray, weights: FloatArray | None, cells: tuple[int, ...], places: int) -> FloatArray:
    """Return the histogram of shape `cells`, summed over the bins below each index.

    The sums run over the first `places` axes.
    """
    size = int(np.prod(cells, dtype=np.int64))
    table = np.bincount(flat, weights, size).astype(np.float64).reshape(cells)
    for axis in range(places):
        table = np.roll(np.cumsum(table, axis=axis), 1, axis=axis)
        table[(slice(None),) * axis + (0,)] = 0.0
    return table


def _accepted(table: FloatArray, place: int, last: int) -> FloatArray:
    """Return the sums over the bins at or above each index on axis `place`.

    The last stage accepts everything.
    """
    if place == last:
        return table
    return np.asarray(np.flip(np.cumsum(np.flip(table, axis=place), axis=place), axis=place))
