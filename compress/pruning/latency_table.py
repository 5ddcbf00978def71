"""The latency table: what every width of a half layer costs in a target's runtime, precision and lengths.

Times of single kernels do not add up to the latency of a network, so no kernel is timed. Whole networks of
random uneven widths are, and the table is the additive model that explains them best: a fixed part plus one
term per half layer. Networks that had no part in it then tell how far off the table is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from compress.networks.network import LayerShape

Widths = tuple[LayerShape, ...]

TABLE = "table.json"
QUANTILES = 10
RATIO = 0.8
FINEST = 32
SCATTER = 0.3
SMOOTHNESS = 0.03


@dataclass(frozen=True)
class Checked:
    """A network that was timed and predicted: (heads, neurons) per layer, and its p50 both ways."""

    widths: tuple[tuple[int, int], ...]
    predicted_ms: float
    measured_ms: float


@dataclass(frozen=True)
class LatencyTable:
    """Latency of one text at batch 1 by widths, at ten lengths: the middles of the tenths of a length mix.

    Attributes:
        precision: of the graphs: fp32, int8-dynamic or int8-static.
        threads: of one call.
        layers: depth of the networks; a half of width 0 is not there and costs nothing.
        lengths: [10] tokens, ascending.
        fixed_ms: [10] of encoding, embeddings, pooling, head and the call itself.
        attention_ms: heads to [10], for every count from 0.
        feed_ms: neurons to [10]; between two, a straight line.
        checked: networks that had no part in the table.
    """

    precision: str
    threads: int
    layers: int
    lengths: tuple[int, ...]
    fixed_ms: tuple[float, ...]
    attention_ms: dict[int, tuple[float, ...]]
    feed_ms: dict[int, tuple[float, ...]]
    checked: tuple[Checked, ...] = ()

    @property
    def worst_relative_error(self) -> float:
        """The largest error of the p50 among the networks checked, as a fraction of the p50."""
        return max((abs(item.predicted_ms / item.measured_ms - 1) for item in self.checked), default=0.0)

    def half_ms(self, kind: str, width: int) -> float:
        """Return what one half adds to the p50: `kind` is "attention" or "feed"."""
        table = self.attention_ms if kind == "attention" else self.feed_ms
        known = sorted(table)
        middles = [middle(np.array(table[k])) for k in known]
        return float(np.interp(width, known, middles))

    def p50_ms(self, layers: Sequence[LayerShape]) -> float:
        """Return the predicted median latency over the length mix.

        Latency grows with length, so it is the latency at the median length, here the mean of the two tenths
        around it.
        """
        return middle(np.array(self.fixed_ms)) + sum(
            self.half_ms("attention", layer.heads) + self.half_ms("feed", layer.neurons) for layer in layers
        )

    def to_json(self) -> dict[str, Any]:
        """Return its JSON form."""
        return {**asdict(self), "worst_relative_error": self.worst_relative_error}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> LatencyTable:
        """Return the table of its JSON form."""
        tables = {
            name: {int(width): tuple(times) for width, times in raw[name].items()}
            for name in ("attention_ms", "feed_ms")
        }
        checked = tuple(
            Checked(tuple((h, n) for h, n in item["widths"]), item["predicted_ms"], item["measured_ms"])
            for item in raw["checked"]
        )
        return cls(
            precision=raw["precision"],
            threads=raw["threads"],
            layers=raw["layers"],
            lengths=tuple(raw["lengths"]),
            fixed_ms=tuple(raw["fixed_ms"]),
            checked=checked,
            **tables,
        )


def middle(by_length: NDArray[np.float64]) -> float:
    """Return the median over ten lengths in ascending order."""
    return float(by_length[QUANTILES // 2 - 1 : QUANTILES // 2 + 1].mean())


def width_grid(most: int, *, ratio: float = RATIO, finest: int = FINEST) -> tuple[int, ...]:
    """Return the widths of a feed-forward half that are worth a choice, ascending from 0 to `most`.

    Each is about `ratio` of the next and a multiple of `finest`, which matrix kernels take whole.
    """
    found, wanted = {0, most}, float(most)
    while wanted > finest:
        wanted *= ratio
        found.add(max(finest, round(wanted / finest) * finest))
    return tuple(sorted(width for width in found if width <= most))


def lay_out(
    heads: Sequence[int], neurons: Sequence[int], depth: int, count: int, *, seed: int
) -> tuple[Widths, ...]:
    """Return the widths of `count` uneven networks, the first with all widths largest, the second with none.

    The others spread from narrow to wide, since small errors of wide networks are large ones of narrow
    networks; every second one has attention and feed-forward halves of unlike size.
    """
    rng = np.random.default_rng(seed)
    found: list[Widths] = [
        (LayerShape(heads[-1], neurons[-1]),) * depth,
        (LayerShape(heads[0], neurons[0]),) * depth,
    ]
    sizes = rng.permutation(count)
    for number in range(2, count):
        size = (number - 1.5) / (count - 2)
        other = size if number % 2 else (sizes[number] + 0.5) / count
        places = np.array([[size], [other]]) + rng.uniform(-SCATTER, SCATTER, (2, depth))
        places = np.clip(places, 0, 1)
        picked = [
            [options[round(p * (len(options) - 1))] for p in row]
            for options, row in zip((heads, neurons), places, strict=True)
        ]
        found.append(tuple(LayerShape(h, n) for h, n in zip(*picked, strict=True)))
    return tuple(found[:count])


def solve_table(
    networks: Sequence[Widths],
    times_ms: NDArray[np.float64],
    heads: Sequence[int],
    neurons: Sequence[int],
) -> tuple[NDArray[np.float64], dict[int, NDArray[np.float64]], dict[int, NDArray[np.float64]]]:
    """Return fixed part [K] and the term of every head count and width [K], from the times of networks.

    Least squares of the relative error (Lawson and Hanson's NNLS over the steps from each width to the
    next), under the rules that a wider half never costs less and that what one more head or neuron costs
    changes little from width to width, the first step apart; without the second, noise makes stairs.

    Args:
        networks: [N] layer widths, all of one depth.
        times_ms: [N, K] latency at K lengths.
        heads, neurons: the widths there are, ascending from 0.
    """
    rows = np.zeros((len(networks), 1 + len(heads) - 1 + len(neurons) - 1))
    rows[:, 0] = 1
    for row, layers in zip(rows, networks, strict=True):
        for layer in layers:
            row[1 : 1 + heads.index(layer.heads)] += 1
            row[len(heads) : len(heads) + neurons.index(layer.neurons)] += 1
    bends = np.zeros((len(heads) + len(neurons), rows.shape[1]))
    bends[: len(heads), 1 : len(heads)] = _bends(heads)
    bends[len(heads) :, len(heads) :] = _bends(neurons)
    solved = [
        nnls(
            np.concatenate([rows / column[:, None], bends * (SMOOTHNESS / np.median(column))]),
            np.concatenate([np.ones(len(rows)), np.zeros(len(bends))]),
        )[0]
        for column in times_ms.T.astype(np.float64)
    ]
    steps = np.stack(solved, axis=1)
    zero = np.zeros((1, steps.shape[1]))
    of_heads = np.concatenate([zero, np.cumsum(steps[1 : len(heads)], axis=0)])
    of_neurons = np.concatenate([zero, np.cumsum(steps[len(heads) :], axis=0)])
    return (
        steps[0],
        dict(zip(heads, of_heads, strict=True)),
        dict(zip(neurons, of_neurons, strict=True)),
    )


def _bends(widths: Sequence[int]) -> NDArray[np.float64]:
    """Return [W, W - 1]: from steps, how the cost per unit changes from one (but the first) to the next.

    In units of the whole: what the widest would cost more if it all cost as the later step.
    """
    found = np.zeros((len(widths), len(widths) - 1))
    apart = np.diff(widths)
    for at in range(1, len(apart) - 1):
        found[at, at], found[at, at + 1] = -widths[-1] / apart[at], widths[-1] / apart[at + 1]
    return found
