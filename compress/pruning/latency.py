"""Latency-aware structured pruning: the step that prunes to a speed-up by a table."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from compress.datasets.data import DATA, read_dataset
from compress.learning.teacher import finish_network, parent_classifier, parent_encoder
from compress.learning.training import Report, predict
from compress.learning.transfer_set import learn_from
from compress.networks.models import Examples, Tokens, load_network
from compress.networks.network import Classifier, LayerShape
from compress.pruning.budget import Allocation, Found, Options, search
from compress.pruning.latency_table import TABLE, LatencyTable, width_grid
from compress.pruning.stitch import Half, halves_of, put_together
from compress.recipes.parts import LatencyPart
from compress.steps import Context, Result
from contract.errors import RecipeError
from contract.files import read_json
from runtime.api import Encoder

SCORED_TEXTS = 256
SEARCH_SHARE = 0.3
LEAST_LOSS = 1e-6
LEAST_ERROR = 1e-6


def prune_to_latency(context: Context) -> Result:
    """Prune the parent until the table says that it is `speed_up` times as fast as the origin, and train it.

    Raises:
        RecipeError: when no network of this depth is as fast, or the parent is not a transformer.
    """
    speed_up = float(context.step.config["speed_up"])
    part = LatencyPart.model_validate({**context.step.config["variant"], "speed_ups": [speed_up]})
    table = LatencyTable.from_json(read_json(context.inputs["table"].file(TABLE)))
    parent = parent_classifier(context)
    encoder, spec = parent_encoder(context)
    wanted_ms = table.p50_ms(_origin_layers(context)) / speed_up
    measured_from, scored = _samples(context, part, encoder)
    context.update(0.0, "removing heads and neurons layer by layer")
    grid = width_grid(max(layer.neurons for layer in parent.shape.layers))
    halves = halves_of(parent, measured_from, grid)
    loss_of = divergence(parent, halves, scored, precision=part.training.precision)
    found = best_within(
        halves,
        table,
        wanted_ms,
        loss_of,
        trials=part.trials,
        seed=context.recipe.seed,
        report=lambda share, words: context.update(SEARCH_SHARE * share, words),
    )
    smaller = copy.deepcopy(put_together(parent, halves, found.allocation))
    learn_from(context, smaller, encoder, part)
    return {
        **finish_network(context, smaller, spec),
        "speed_up": speed_up,
        "latency_ms": table.p50_ms(smaller.shape.layers),
        "untrained_divergence": found.score,
        "allocations": found.tried,
    }


def _origin_layers(context: Context) -> tuple[LayerShape, ...]:
    origin = load_network(context.inputs["origin"].folder)
    if not isinstance(origin, Classifier):
        raise RecipeError(f"variant {context.step.name!r}: its parent is not a transformer")
    return origin.shape.layers


def _samples(context: Context, part: LatencyPart, encoder: Encoder) -> tuple[Tokens, Tokens]:
    """Return training texts to make Hessians from, and others to score allocations on."""
    data = read_dataset(context.inputs["data"].file(DATA)).of("train")
    rows = np.random.default_rng(context.recipe.seed).permutation(len(data))
    first = rows[: min(part.texts, len(rows) // 2)]
    second = rows[len(first) :][:SCORED_TEXTS]
    a, b = (Tokens.of(encoder.encode(data.take(np.sort(some)).texts)) for some in (first, second))
    return a, b


def divergence(
    network: Classifier, halves: Sequence[Half], examples: Examples, *, precision: str = "fp32"
) -> Callable[[Allocation], float]:
    """Return the real loss of an allocation: the mean KL(network || what is put together) on examples."""
    wanted = torch.from_numpy(predict(network, examples, precision=precision)).log_softmax(dim=-1)

    def loss(allocation: Allocation) -> float:
        smaller = put_together(network, halves, allocation)
        said = torch.from_numpy(predict(smaller, examples, precision=precision)).log_softmax(dim=-1)
        return float(functional.kl_div(said, wanted, reduction="batchmean", log_target=True))

    return loss


def best_within(
    halves: Sequence[Half],
    table: LatencyTable,
    wanted_ms: float,
    loss_of: Callable[[Allocation], float],
    *,
    trials: int,
    seed: int,
    report: Report,
) -> Found:
    """Return the allocation of least loss whose predicted p50 is at most `wanted_ms`.

    What a half costs the network is asked of the network: each is narrowed by itself to a few widths, and
    between them the loss follows the half's own error. The search mutates from there.

    Raises:
        RecipeError: when no network of these halves is as fast.
    """
    whole = tuple(len(half.removal.widths) - 1 for half in halves)
    nothing, options = loss_of(whole), []
    for index, half in enumerate(halves):
        probed = probed_widths(len(half.removal.widths))
        losses = [loss_of((*whole[:index], k, *whole[index + 1 :])) - nothing for k in probed]
        times = [table.half_ms(half.side, width) for width in half.removal.widths]
        options.append(Options(np.array(times), losses_between(half.removal.errors, probed, losses)))
        report(0.5 * (index + 1) / len(halves), "asking what each half layer is worth")
    return search(
        options,
        np.ones(len(options)),
        wanted_ms - table.p50_ms(()),
        loss_of,
        trials=trials,
        seed=seed,
        report=lambda share, words: report(0.5 + 0.5 * share, words),
    )


def probed_widths(count: int) -> tuple[int, ...]:
    """Return which of `count` widths, ascending, are tried on the network: nothing, least, quarter, half."""
    return tuple(sorted({0, 1, max(2, count // 4), count // 2} & set(range(count - 1))))


def losses_between(
    errors: NDArray[np.float64], probed: Sequence[int], losses: Sequence[float]
) -> NDArray[np.float64]:
    """Return the loss at every width [K] from that at a few.

    A straight line of logarithms over the half's own squared error, of which loss is about a power; at
    errors below the probed ones loss goes with the squared error. It never falls as the error grows.

    Args:
        errors: [K] ||dW X|| / ||W X|| by ascending width, the last 0.
        probed: places among them where the loss is known.
        losses: there, beyond that of the whole.
    """
    if not probed:
        return np.zeros(len(errors))
    squared = np.log(np.maximum(errors, LEAST_ERROR) ** 2)
    order = np.argsort(squared[list(probed)])
    known = squared[list(probed)][order]
    found = np.maximum.accumulate(np.log(np.maximum(losses, LEAST_LOSS))[order])
    between = np.interp(squared, known, found) + np.minimum(squared - known[0], 0)
    return np.where(errors > 0, np.exp(between), 0.0)
