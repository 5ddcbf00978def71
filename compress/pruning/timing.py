"""Times networks of many widths side by side, and makes the latency table from them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from compress.learning.training import Report
from compress.networks.network import Architecture, Classifier, LayerShape
from compress.pruning.halves import Halves
from compress.pruning.latency_table import (
    QUANTILES,
    Checked,
    LatencyTable,
    Widths,
    lay_out,
    middle,
    solve_table,
    width_grid,
)
from contract.machine import Provider
from runtime.api import Encoded, Encoder
from runtime.onnx_model import OnnxRuntime
from runtime.wordpiece import INPUT_IDS

Write = Callable[[Classifier, Path], None]

NETWORKS = 48
CHECKED = 8
ROUNDS = 25
LEAST_ROUNDS = 5
WARM_UP = 2
SECONDS = 40.0
LOW_QUANTILE = 0.25
MENU_VOCABULARY = 4096


@dataclass(frozen=True)
class TablePlan:
    """How a latency table is measured.

    Attributes:
        threads, provider: as served.
        networks: how many have a part in the table; CHECKED more check it.
        seconds: of processor time for timing, at most, beyond the first LEAST_ROUNDS rounds.
        seed: of widths and texts.
    """

    threads: int = 1
    provider: Provider = "cpu"
    networks: int = NETWORKS
    seconds: float = SECONDS
    seed: int = 0

    def clock(self) -> float:
        """Return seconds: of one thread its processor time, its latency but for other processes."""
        return time.thread_time() if self.threads == 1 and self.provider == "cpu" else time.perf_counter()


def measure_table(
    shape: Architecture,
    write: Write,
    precision: str,
    encoder: Encoder,
    texts: Sequence[str],
    plan: TablePlan,
    report: Report,
) -> LatencyTable:
    """Time networks of many widths side by side and return the table that explains them.

    Args:
        shape: of the network to be pruned; its widest layer bounds the widths.
        write: makes the graph of a network, in the precision that will be served.
        precision: what `write` makes, for the record.
        encoder: of the texts.
        texts: a sample of real traffic; its lengths are the mix.
        plan: how much is timed, and where.
        report: told the share done.
    """
    heads = tuple(range(max(layer.heads for layer in shape.layers) + 1))
    neurons = width_grid(max(layer.neurons for layer in shape.layers))
    depth = len(shape.layers)
    laid = lay_out(heads, neurons, depth, plan.networks, seed=plan.seed)
    laid += lay_out(heads, neurons, depth, CHECKED + 2, seed=plan.seed + 1)[2:]
    lengths, samples = _samples(encoder, texts)
    with tempfile.TemporaryDirectory() as scratch:
        report(0.0, "tracing a graph of every width")
        menu = Path(scratch) / "menu.onnx"
        halves = _menu(shape, write, heads, neurons, menu)
        sessions = [
            _joined(halves, heads, neurons, layers, menu.with_name("joined.onnx"), encoder.sha256, plan)
            for layers in laid
        ]
        vocabulary = min(shape.vocabulary, MENU_VOCABULARY)
        times = _time_side_by_side(sessions, encoder, samples, vocabulary, plan, report)
    timed = plan.networks
    fixed, attention, feed = solve_table(laid[:timed], times[:timed], heads, neurons)
    table = LatencyTable(
        precision=precision,
        threads=plan.threads,
        layers=depth,
        lengths=lengths,
        fixed_ms=tuple(fixed.tolist()),
        attention_ms={width: tuple(column.tolist()) for width, column in attention.items()},
        feed_ms={width: tuple(column.tolist()) for width, column in feed.items()},
    )
    checked = tuple(
        Checked(
            widths=tuple((layer.heads, layer.neurons) for layer in widths),
            predicted_ms=table.p50_ms(widths),
            measured_ms=middle(row),
        )
        for widths, row in zip(laid[timed:], times[timed:], strict=True)
    )
    return replace(table, checked=checked)


def _samples(encoder: Encoder, texts: Sequence[str]) -> tuple[tuple[int, ...], list[list[str]]]:
    """Return the middle length of each tenth of the length mix, and all texts of each of these lengths."""
    lengths = encoder.encode(texts).lengths
    wanted = np.quantile(lengths, (np.arange(QUANTILES) + 0.5) / QUANTILES, method="inverted_cdf")
    samples = [[texts[row] for row in np.flatnonzero(lengths == length).tolist()] for length in wanted]
    return tuple(int(length) for length in wanted), samples


def _folded(encoded: Encoded, vocabulary: int) -> Encoded:
    arrays = {**encoded.arrays, INPUT_IDS: encoded.arrays[INPUT_IDS] % vocabulary}
    return Encoded(arrays, encoded.lengths, encoded.encoder)


def _menu(
    shape: Architecture, write: Write, heads: Sequence[int], neurons: Sequence[int], path: Path
) -> Halves:
    """Return the halves of one graph of random weights that has every width, written to `path`."""
    # The joined graphs leave a half of width 0 out, but every layer of the menu has both.
    some_heads, some_neurons = heads[1:] or (1,), neurons[1:] or (1,)
    layers = tuple(
        LayerShape(some_heads[min(i, len(some_heads) - 1)], some_neurons[min(i, len(some_neurons) - 1)])
        for i in range(max(len(some_heads), len(some_neurons)))
    )
    small = min(shape.vocabulary, MENU_VOCABULARY)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Classifier(replace(shape, vocabulary=small, layers=layers))
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
    write(network.eval(), path)
    return Halves(path, layers=len(layers))


def _joined(
    halves: Halves,
    heads: Sequence[int],
    neurons: Sequence[int],
    layers: Widths,
    path: Path,
    encoder: str,
    plan: TablePlan,
) -> OnnxRuntime:
    """Return the runtime of a network of these widths, joined from the menu's halves."""
    halves.join(
        [heads.index(layer.heads) - 1 if layer.heads else None for layer in layers],
        [neurons.index(layer.neurons) - 1 if layer.neurons else None for layer in layers],
        path,
    )
    return OnnxRuntime(path, encoder=encoder, provider=plan.provider, threads=plan.threads, batching="single")


def _time_side_by_side(
    sessions: Sequence[OnnxRuntime],
    encoder: Encoder,
    samples: Sequence[Sequence[str]],
    vocabulary: int,
    plan: TablePlan,
    report: Report,
) -> NDArray[np.float64]:
    """Return the latency [networks, lengths] in ms: the lower quartile of rounds, each of which times all.

    A text is encoded right before it is answered, and texts of all lengths take turns, as in service: an
    encoder or a network that has the caches to itself is faster by more than a narrow layer costs.
    Whatever else the machine does falls on all networks alike, and mostly above the quartile.
    """
    rounds: list[NDArray[np.float64]] = []
    clock, rng = plan.clock, np.random.default_rng(plan.seed)
    end = time.process_time() + plan.seconds
    while len(rounds) < ROUNDS and (len(rounds) < LEAST_ROUNDS or time.process_time() < end):
        taken = np.empty((len(sessions), len(samples)))
        for row, session in zip(taken, sessions, strict=True):
            order = rng.permutation(len(samples)).tolist()
            for at in (*order[:WARM_UP], *order):
                text = samples[at][int(rng.integers(len(samples[at])))]
                start = clock()
                encoded = encoder.encode([text])
                between = clock()
                encoded = _folded(encoded, vocabulary)
                again = clock()
                session.logits(encoded)
                row[at] = (clock() - again + between - start) * 1000
        rounds.append(taken)
        report(len(rounds) / ROUNDS, f"{len(sessions)} networks timed {len(rounds)} times")
    low: NDArray[np.float64] = np.quantile(np.stack(rounds), LOW_QUANTILE, axis=0)
    return low
