"""Magnitude pruning: single weights become zero, round by round, until accuracy falls to a floor.

The weights that are left are scattered, so a graph with them is as large and as fast as one without zeros in
ONNX Runtime, which multiplies zeros like any number. What is gained is bytes to store or send, and the step
records these: how large the weights are once the zeros are left out and the rest is compressed.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compress.datasets.data import DATA, read_dataset
from compress.learning.teacher import finish_network, parent_encoder
from compress.learning.training import predict
from compress.learning.transfer_set import learn_from
from compress.networks.models import Network, load_network
from compress.pruning.rounds import round_of
from compress.recipes.parts import MagnitudePart
from compress.steps import Context, Result

PRUNED = (nn.Linear, nn.Conv1d, nn.Conv2d)
COMPRESSION_LEVEL = 6
ROUNDING = 1e-9


@dataclass(frozen=True)
class Round:
    """One round: share of the linear weights that are zero, and accuracy on validation after training."""

    sparsity: float
    accuracy: float


@dataclass(frozen=True)
class Outcome:
    """What the rounds came to.

    Attributes:
        rounds: all that were run; the last one is below the floor if one is.
        kept: how many of them hold; 0 when the first is below the floor.
        stopped: why there was no further round, for people.
    """

    rounds: tuple[Round, ...]
    kept: int
    stopped: str

    @property
    def sparsity(self) -> float:
        """Share of the linear weights that are zero in the network that was kept."""
        return self.rounds[self.kept - 1].sparsity if self.kept else 0.0


def prune_weights(context: Context) -> Result:
    """Remove weights of the parent by magnitude and train between rounds; keep the last above the floor.

    Accuracy is measured on validation, the parent's beside it. When the first round already falls below the
    floor nothing is removed, and the result's `stopped` says so. The result's `sparsity` is of all
    parameters, embeddings included; `linear_sparsity` is of the linear (and convolution) weights, which alone
    are pruned.
    """
    part = MagnitudePart.model_validate(context.step.config["variant"])
    network = load_network(context.inputs["parent"].folder)
    encoder, spec = parent_encoder(context)
    validation = read_dataset(context.inputs["data"].file(DATA)).of("validation")
    examples = network.read(encoder, validation.texts)
    plan = sparsities(part.step, part.most)

    def accuracy() -> float:
        found = predict(network, examples, precision=part.training.precision).argmax(1)
        return float((found == validation.targets).mean())

    def train(number: int) -> None:
        learn_from(round_of(context, number, len(plan)), network, encoder, part)

    context.update(0.0, "asking the parent")
    parent_accuracy, parent_bytes = accuracy(), compressed_bytes(network)
    outcome = prune_to_floor(network, plan, parent_accuracy - part.floor, train=train, accuracy=accuracy)
    context.update(1.0, outcome.stopped)
    result = finish_network(context, network, spec)
    nonzero = sum(int(p.count_nonzero()) for p in network.parameters())
    return {
        **result,
        "sparsity": 1 - nonzero / int(result["parameters"]),
        "linear_sparsity": outcome.sparsity,
        "nonzero_parameters": nonzero,
        "compressed_bytes": compressed_bytes(network),
        "parent_compressed_bytes": parent_bytes,
        "parent_accuracy": parent_accuracy,
        "rounds": [asdict(found) for found in outcome.rounds],
        "rounds_kept": outcome.kept,
        "stopped": outcome.stopped,
        "summary": outcome.stopped,
    }


def sparsities(step: float, most: float) -> tuple[float, ...]:
    """Return the share of weights removed after every round.

    Each removes `step` of what is left; the last ends at `most`.
    """
    found: list[float] = []
    left = 1.0
    while not found or found[-1] < most:
        left *= 1 - step
        found.append(min(1 - left, most))
    return tuple(found)


def prune_to_floor(
    network: Network,
    plan: Sequence[float],
    floor: float,
    *,
    train: Callable[[int], None],
    accuracy: Callable[[], float],
) -> Outcome:
    """Prune a network in place, round by round; it is left as it was after the last round above the floor.

    Args:
        network: also where `train` and `accuracy` find it.
        plan: sparsity after each round, ascending.
        floor: accuracy that a round must reach.
        train: trains the masked network in the round of that number.
        accuracy: of the network as it is.
    """
    rounds: list[Round] = []
    before = _copy(network)
    for number, sparsity in enumerate(plan):
        with masked(network, magnitude_masks(network, sparsity)):
            train(number)
        found = Round(sparsity, accuracy())
        rounds.append(found)
        if found.accuracy < floor - ROUNDING:
            network.load_state_dict(before)
            words = f"{sparsity:.1%} of weights removed: accuracy {found.accuracy:.4f}, floor {floor:.4f}"
            if number == 0:
                words = f"nothing was removed, the first round is too much: {words}"
            return Outcome(tuple(rounds), number, words)
        before = _copy(network)
    return Outcome(tuple(rounds), len(rounds), f"{plan[-1]:.1%} of weights removed, the most asked for")


def _copy(network: Network) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def magnitude_masks(network: Network, sparsity: float) -> dict[str, Tensor]:
    """Return a mask (1: stays, 0: goes) per prunable module, by name.

    The weights of least magnitude in all modules together go; those that are zero already are among them.
    """
    weights = {name: module.weight.detach() for name, module in _prunable(network)}
    everything = torch.cat([weight.abs().flatten() for weight in weights.values()])
    flat, count = torch.ones_like(everything), round(sparsity * everything.numel())
    if 0 < count < everything.numel():
        flat[np.argpartition(everything.numpy(), count)[:count]] = 0
    elif count:
        flat.zero_()
    parts = flat.split([weight.numel() for weight in weights.values()])
    return {name: part.view_as(weight) for (name, weight), part in zip(weights.items(), parts, strict=True)}


def _prunable(network: Network) -> Iterator[tuple[str, nn.Linear | nn.Conv1d | nn.Conv2d]]:
    for name, module in network.named_modules():
        if isinstance(module, PRUNED):
            yield name, module


class _Masked(nn.Module):
    """A weight times a mask: what is removed gets no gradient either."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.mask = mask

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


@contextmanager
def masked(network: Network, masks: Mapping[str, Tensor]) -> Iterator[None]:
    """Hold weights at zero while the network is trained, and leave them as plain weights with zeros."""
    for name, mask in masks.items():
        parametrize.register_parametrization(network.get_submodule(name), "weight", _Masked(mask))
    try:
        yield
    finally:
        for name in masks:
            parametrize.remove_parametrizations(
                network.get_submodule(name), "weight", leave_parametrized=True
            )


def compressed_bytes(network: Network) -> int:
    """Return how many bytes the weights take with their zeros left out.

    Each tensor is a bitmap of where it is not zero, and the values that are not; all of it is compressed
    (DEFLATE).
    """
    packer, size = zlib.compressobj(COMPRESSION_LEVEL), 0
    for _, tensor in sorted(network.state_dict().items()):
        values = tensor.detach().cpu().numpy().reshape(-1)
        there = values != 0
        size += len(packer.compress(np.packbits(there).tobytes()))
        size += len(packer.compress(values[there].tobytes()))
    return size + len(packer.flush())
