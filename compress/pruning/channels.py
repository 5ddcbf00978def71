"""Channel pruning of image classifiers: whole channels go, with all that depends on them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from compress.datasets.data import DATA, read_dataset
from compress.learning.teacher import finish_network, parent_encoder
from compress.learning.transfer_set import learn_from
from compress.networks.image_models import (
    ImageNetwork,
    Pixels,
    changed_widths,
    channels_of,
    widths_of,
)
from compress.networks.models import load_network
from compress.pruning.rounds import epochs_per_round, round_of
from compress.recipes.parts import ChannelsPart
from compress.steps import Context, Result
from contract.errors import EnvironmentProblem, RecipeError, SluiceError
from runtime.api import Encoder

PRUNED = (nn.Conv2d, nn.Linear)
SEARCH_STEPS = 8
SCORE_BATCH = 64

# From a network to the share of its parent that is left, by the measure that the recipe names.
Share = Callable[[ImageNetwork], float]


def prune_channels(context: Context) -> Result:
    """Remove the channels that matter least, in rounds with training after each.

    After round r of R the share g^(r/R) is left of the channels (`keep`) or multiply-adds (`speed_up`), g
    being the goal. Epochs: see `epochs_per_round`.

    Raises:
        RecipeError: when the parent is no image classifier, or the goal cannot be reached.
        EnvironmentProblem: when torch-pruning is missing.
    """
    part = ChannelsPart.model_validate(context.step.config["variant"])
    network = load_network(context.inputs["parent"].folder)
    if not isinstance(network, ImageNetwork):
        raise RecipeError(f"variant {part.name!r}: its parent is no image classifier")
    encoder, spec = parent_encoder(context)
    goal, share_of = _goal(part, network)
    rounds = []
    for number, epochs in enumerate(epochs_per_round(part.training.epochs, part.rounds)):
        turn = round_of(context, number, part.rounds)
        turn.update(0.0, "scoring channels")
        images, targets = _scored(turn, network, encoder, part.images)
        network = prune_to(network, goal ** ((number + 1) / part.rounds), share_of, part, images, targets)
        if epochs:
            training = part.training.model_copy(update={"epochs": epochs})
            learn_from(turn, network, encoder, part.model_copy(update={"training": training}))
        rounds.append({"channels": channels_of(network.module), "left": share_of(network), "epochs": epochs})
    return {**finish_network(context, network, spec), "rounds": rounds}


def _goal(part: ChannelsPart, parent: ImageNetwork) -> tuple[float, Share]:
    if part.keep is not None:
        channels = channels_of(parent.module)
        return part.keep, lambda network: channels_of(network.module) / channels
    flops = parent.flops(1)
    return 1 / (part.speed_up or 1.0), lambda network: network.flops(1) / flops


def _scored(context: Context, network: ImageNetwork, encoder: Encoder, count: int) -> tuple[Pixels, Tensor]:
    data = read_dataset(context.inputs["data"].file(DATA)).of("train")
    rng = np.random.default_rng(context.recipe.seed)
    some = data.take(np.sort(rng.permutation(len(data))[:count]))
    return network.examples(encoder.encode(some.texts)), torch.from_numpy(some.targets)


def prune_to(
    network: ImageNetwork,
    goal: float,
    share_of: Share,
    part: ChannelsPart,
    images: Pixels,
    targets: Tensor,
) -> ImageNetwork:
    """Return a copy with as few channels removed as reach a goal, found by bisection.

    Args:
        network: stays as it is.
        goal: of `share_of`; the copy is at or below it.
        share_of: how much of the first parent is left.
        part: how channels are ranked and rounded.
        images, targets: what `taylor` scores on.

    Raises:
        RecipeError: when the goal is not reached even by the narrowest network.
    """
    if part.importance == "taylor":
        _accumulate_gradients(network, images, targets)
    low, high = 0.0, 1.0
    best = remove_channels(network, high, part)
    if share_of(best) > goal:
        raise RecipeError(
            f"variant {part.name!r}: the share {goal:.3g} cannot be reached: of the narrowest network "
            f"{share_of(best):.3g} is left",
            hint="a higher `keep` or a lower `speed_up`, or a lower `round_to`",
        )
    for _ in range(SEARCH_STEPS):
        middle = (low + high) / 2
        found = remove_channels(network, middle, part)
        if share_of(found) <= goal:
            best, high = found, middle
        else:
            low = middle
    network.zero_grad(set_to_none=True)
    return best


def remove_channels(network: ImageNetwork, removed: float, part: ChannelsPart) -> ImageNetwork:
    """Return a copy without a share of the prunable channels; layers that give the logits stay whole.

    With `taylor` the parameters of the network must hold gradients (Molchanov et al. 2019, equation 8: a
    weight matters as much as the loss would change without it); with `magnitude` the norms of all weights
    of a group of channels count (Fang et al. 2023, "DepGraph").

    Raises:
        SluiceError: when the network does not work any more.
        EnvironmentProblem: when torch-pruning is missing.
    """
    pruning = _torch_pruning()
    smaller = copy.deepcopy(network)
    for old, new in zip(network.parameters(), smaller.parameters(), strict=True):
        new.grad = None if old.grad is None else old.grad.clone()
        new.requires_grad_(True)
    before = widths_of(smaller.module)
    example = smaller.images(2)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _remove(smaller.module, example, _last_layers(smaller, example), removed, part, pruning)
        with torch.no_grad():
            given = tuple(smaller.eval()(example).shape)
    except Exception as problem:
        raise SluiceError(
            f"variant {part.name!r}: torch-pruning cannot prune this network: {problem}"
        ) from problem
    if given != (2, smaller.classes):
        raise SluiceError(f"variant {part.name!r}: pruning changed the logits' shape to {given}")
    smaller.zero_grad(set_to_none=True)
    changed = changed_widths(before, widths_of(smaller.module))
    widths = {
        name: {**network.shape.widths.get(name, {}), **changed.get(name, {})}
        for name in {*network.shape.widths, *changed}
    }
    smaller.shape = replace(smaller.shape, widths=dict(sorted(widths.items())))
    return smaller


def _remove(
    module: nn.Module,
    example: Tensor,
    whole_layers: list[nn.Module],
    removed: float,
    part: ChannelsPart,
    pruning: Any,
) -> None:
    """Remove a share of the channels of a module in place.

    torch-pruning finds which channels belong together, scores and removes them. The choice is made here: its
    own leaves a layer whole where rounding down would remove all of it.
    """
    rank = (
        pruning.importance.GroupTaylorImportance()
        if part.importance == "taylor"
        else pruning.importance.GroupMagnitudeImportance(p=2)
    )
    graph = pruning.DependencyGraph().build_dependency(module, example_inputs=example)
    scores, members = [], []
    for group in graph.get_all_groups(ignored_layers=whole_layers, root_module_types=PRUNED):
        found = rank(group)
        if found is not None:
            repeats = _repeats(group)
            scores.append(found.view(repeats, -1).mean(0).double().numpy())
            members.append((group[0].dep.target.module, group[0].dep.handler, repeats))
    for (layer, handler, repeats), score, kept in zip(
        members, scores, kept_counts(scores, removed, part.round_to, whole=part.whole), strict=True
    ):
        gone = np.sort(np.argsort(score, kind="stable")[: score.size - kept])
        if gone.size:
            rows = np.concatenate([gone + number * score.size for number in range(repeats)])
            graph.get_pruning_group(layer, handler, rows.tolist()).prune()


def kept_counts(
    scores: Sequence[NDArray[np.float64]], removed: float, round_to: int, *, whole: bool
) -> list[int]:
    """Return how many channels of each layer stay when a share of all is to go.

    Counts are rounded to the nearest multiple of `round_to` and never below it, nor above what there is.

    Args:
        scores: per layer [C] of its channels.
        removed: share of all channels (of each layer, if not `whole`) that goes before rounding.
        round_to: channels that kernels compute together.
        whole: rank the channels of all layers together.
    """
    everything = np.sort(np.concatenate(scores))
    place = round(removed * everything.size)
    border = everything[place] if place < everything.size else np.inf
    found = []
    for score in scores:
        wanted = int((score >= border).sum()) if whole else (1 - removed) * score.size
        found.append(min(max(round(wanted / round_to), 1) * round_to, score.size))
    return found


def _repeats(group: Any) -> int:
    """Return into how many equal parts the channels of a group fall, of which each must keep the same."""
    found = 1
    for member in group:
        layer = member.dep.target.module
        if isinstance(layer, nn.GroupNorm):
            found = max(found, layer.num_groups)
        elif isinstance(layer, nn.Conv2d) and 1 < layer.groups < layer.out_channels:
            found = max(found, layer.groups)
    return found


def _accumulate_gradients(network: ImageNetwork, images: Pixels, targets: Tensor) -> None:
    """Leave in every parameter the gradient of the mean loss over some images."""
    network.eval()
    network.zero_grad(set_to_none=True)
    for start in range(0, len(images), SCORE_BATCH):
        rows = np.arange(start, min(start + SCORE_BATCH, len(images)))
        logits = network(*images.batch(rows))
        loss = functional.cross_entropy(logits, targets[torch.from_numpy(rows)], reduction="sum")
        (loss / len(images)).backward()


def _last_layers(network: ImageNetwork, example: Tensor) -> list[nn.Module]:
    """Return the layer that gives the logits: the last one to run that has an output per class."""
    ran: list[nn.Module] = []

    def note(layer: nn.Module, *_: Any) -> None:
        ran.append(layer)

    layers = [part for part in network.modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        with torch.no_grad():
            network(example)
    finally:
        for handle in handles:
            handle.remove()
    found = [layer for layer in ran if _outputs(layer) == network.classes]
    return found[-1:]


def _outputs(layer: nn.Module) -> int:
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)


def _torch_pruning() -> Any:
    try:
        import torch_pruning
    except ImportError as problem:
        raise EnvironmentProblem(
            f"channel pruning needs torch-pruning: {problem}", hint="pip install 'sluicegate[compress]'"
        ) from None
    return torch_pruning
