"""Magnitude pruning removes the least weights, keeps them removed, and stops at the floor by itself."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compress.learning.training import fit, hard_loss, predict
from compress.networks.models import load_network
from compress.networks.network import Classifier
from compress.pruning.magnitude import (
    PRUNED,
    Outcome,
    compressed_bytes,
    magnitude_masks,
    masked,
    prune_to_floor,
    prune_weights,
    sparsities,
)
from compress.recipes.learning_parts import Training
from tests.compress.conftest import random_network, toy_shape
from tests.compress.learning.test_training import quiet, toy_tokens
from tests.compress.networks.test_network import batch
from tests.compress.toy_steps import finished_network, toy_context, toy_dataset


def zeros_of(network: Classifier) -> float:
    """Return the share of prunable weights that are zero."""
    weights = [module.weight for module in network.modules() if isinstance(module, PRUNED)]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return zeros / int(sum(weight.numel() for weight in weights))


@given(step=st.floats(0.05, 0.95), most=st.floats(0.01, 0.99))
def test_every_round_removes_its_share_of_the_rest(step: float, most: float) -> None:
    """Sparsities ascend by the same ratio of what is left, and the last is the most asked for."""
    found = sparsities(step, most)
    assert found[-1] == pytest.approx(most)
    left = [1.0, *(1 - s for s in found)]
    ratios = [after / before for before, after in pairwise(left)]
    assert all(ratio == pytest.approx(1 - step, rel=1e-6) for ratio in ratios[:-1])
    assert 1 - step - 1e-9 <= ratios[-1] <= 1


@settings(max_examples=25, deadline=None)
@given(first=st.floats(0, 1), second=st.floats(0, 1))
def test_masks_are_global_and_nested(first: float, second: float) -> None:
    """What goes is smaller than what stays, wherever it is; more sparsity removes the same and more."""
    network = random_network()
    lower, higher = sorted((first, second))
    few, many = magnitude_masks(network, lower), magnitude_masks(network, higher)
    gone, stay = [], []
    for name, mask in few.items():
        magnitude = network.get_submodule(name).weight.detach().abs()
        gone.append(magnitude[mask == 0])
        stay.append(magnitude[mask == 1])
        assert (many[name] <= mask).all()
    removed, left = torch.cat(gone), torch.cat(stay)
    assert len(removed) == round(lower * (len(removed) + len(left)))
    if len(removed) and len(left):
        assert removed.max() <= left.min()


def test_removed_weights_stay_removed_in_training(network: Classifier) -> None:
    """Training changes the weights that are left and no other; afterwards the network is an ordinary one."""
    tokens, targets = toy_tokens(60)
    names = set(network.state_dict())
    masks = magnitude_masks(network, 0.6)
    before = network.layers[0].widen.weight.detach().clone()
    with masked(network, masks):
        run = Training(epochs=1, learning_rate=1e-3, precision="fp32")
        fit(network, tokens, hard_loss(targets, 0.0), run, seed=0, report=quiet)
    after, mask = network.layers[0].widen.weight.detach(), masks["layers.0.widen"]
    assert set(network.state_dict()) == names
    assert type(network.layers[0].widen) is nn.Linear
    assert (after[mask == 0] == 0).all()
    assert (after[mask == 1] != before[mask == 1]).any()
    assert zeros_of(network) == pytest.approx(0.6, abs=1e-4)


def test_the_mask_is_undone_when_training_is_interrupted(network: Classifier) -> None:
    """Ctrl-C inside a round leaves no masked module behind."""
    with pytest.raises(KeyboardInterrupt), masked(network, magnitude_masks(network, 0.5)):
        raise KeyboardInterrupt
    assert type(network.classify) is nn.Linear


def play(network: Classifier, accuracies: list[float], floor: float) -> tuple[Outcome, list[int]]:
    """Run rounds of 20%, 40%, ... whose accuracies are given; each adds 1 to the classes' bias."""
    trained: list[int] = []

    def train(number: int) -> None:
        trained.append(number)
        with torch.no_grad():
            network.classify.bias += 1

    plan = [0.2 * (i + 1) for i in range(len(accuracies))]
    answers = iter(accuracies)
    outcome = prune_to_floor(network, plan, floor, train=train, accuracy=lambda: next(answers))
    return outcome, trained


def test_it_stops_at_the_floor_and_keeps_the_round_before(network: Classifier) -> None:
    """The round that falls below the floor is the last, and the network is the one of the round before."""
    bias = network.classify.bias.detach().clone()
    outcome, trained = play(network, [0.95, 0.92, 0.89, 0.99], 0.90)
    assert trained == [0, 1, 2]
    assert outcome.kept == 2
    assert outcome.sparsity == pytest.approx(0.4)
    assert [found.accuracy for found in outcome.rounds] == [0.95, 0.92, 0.89]
    assert zeros_of(network) == pytest.approx(0.4, abs=1e-3)
    torch.testing.assert_close(network.classify.bias.detach(), bias + 2)
    assert "floor 0.9000" in outcome.stopped


def test_a_first_round_below_the_floor_removes_nothing_and_says_so(network: Classifier) -> None:
    """When even the first round is too much the network is its parent, weight by weight."""
    wanted = network(*batch(network))
    outcome, _ = play(network, [0.5, 0.99], 0.90)
    assert outcome.kept == 0
    assert outcome.sparsity == 0.0
    assert outcome.stopped.startswith("nothing was removed, the first round is too much: 20.0%")
    assert torch.equal(network(*batch(network)), wanted)


def test_accuracy_at_the_floor_is_not_below_it(network: Classifier) -> None:
    """A drop of exactly the floor is allowed, whatever the rounding of fractions; the last round may hold."""
    outcome, _ = play(network, [0.97 - 0.01, 0.96], 0.97 - 0.01 + 1e-12)
    assert outcome.kept == 2
    assert outcome.stopped == "40.0% of weights removed, the most asked for"


def test_zeros_take_next_to_no_bytes(network: Classifier) -> None:
    """Half the prunable weights gone: at least a third fewer bytes, and a bitmap is all that they cost."""
    dense = compressed_bytes(network)
    with masked(network, magnitude_masks(network, 0.5)):
        pass
    sparse = compressed_bytes(network)
    values = sum(int(p.count_nonzero()) for p in network.parameters()) * 4
    bitmaps = sum(p.numel() for p in network.parameters()) / 8
    assert 0.85 * values < sparse < values + bitmaps
    assert sparse < 0.67 * dense


def test_predictions_with_a_mask_are_those_after_it(network: Classifier) -> None:
    """A masked network answers as the plain one that it becomes."""
    tokens, _ = toy_tokens(20)
    with masked(network, magnitude_masks(network, 0.3)):
        during = predict(network, tokens)
    np.testing.assert_allclose(predict(network, tokens), during, atol=1e-6)


@pytest.fixture(scope="module")
def taught() -> Classifier:
    """A small network that knows the toy task."""
    torch.manual_seed(1)
    network = Classifier(toy_shape())
    tokens, targets = toy_tokens(240)
    run = Training(epochs=5, learning_rate=1e-2, precision="fp32")
    fit(network, tokens, hard_loss(targets, 0.0), run, seed=5, report=quiet)
    return network


PART = {"kind": "magnitude", "name": "sparse", "parent": "teacher"}
RUN = {"epochs": 1, "learning_rate": 0.003, "precision": "fp32"}


def test_a_step_prunes_to_the_most_and_says_what_it_cost(taught: Classifier, tmp_path: Path) -> None:
    """Two rounds of training with masks: accuracy and sparsity of each, and bytes beside the parent's."""
    part = {**PART, "step": 0.5, "most": 0.7, "floor": 0.2}
    parent = finished_network(tmp_path / "teacher", taught)
    told: list[str] = []
    context = toy_context(
        tmp_path, {**part, "training": RUN}, toy_dataset(160, validation=60), told, parent=parent
    )
    result = prune_weights(context)
    assert [found["sparsity"] for found in result["rounds"]] == [0.5, 0.7]
    assert result["rounds_kept"] == 2
    assert result["linear_sparsity"] == 0.7
    made = load_network(context.folder)
    assert isinstance(made, Classifier)
    assert zeros_of(made) == pytest.approx(0.7, abs=1e-3)
    assert result["nonzero_parameters"] == sum(int(p.count_nonzero()) for p in made.parameters())
    assert result["sparsity"] == pytest.approx(1 - result["nonzero_parameters"] / result["parameters"])
    assert result["compressed_bytes"] == compressed_bytes(made) < 0.6 * result["parent_compressed_bytes"]
    assert result["parameters"] == parent.result["parameters"]
    assert min(found["accuracy"] for found in result["rounds"]) >= result["parent_accuracy"] - 0.2
    assert any(words.startswith("round 2 of 2, ") for words in told)
    assert told[-1] == result["summary"] == "70.0% of weights removed, the most asked for"


def test_a_step_that_may_lose_nothing_keeps_its_parent(taught: Classifier, tmp_path: Path) -> None:
    """Almost all weights gone and no training: the step ends with its parent's weights and the reason."""
    part = {**PART, "step": 0.98, "most": 0.99, "floor": 0}
    parent = finished_network(tmp_path / "teacher", taught)
    data = toy_dataset(160, validation=60)
    context = toy_context(tmp_path, {**part, "training": {"epochs": 0}}, data, parent=parent)
    result = prune_weights(context)
    assert result["rounds_kept"] == 0
    assert result["linear_sparsity"] == 0.0
    assert len(result["rounds"]) == 1
    assert result["stopped"].startswith("nothing was removed")
    wanted, made = taught.state_dict(), load_network(context.folder).state_dict()
    assert all(torch.equal(made[name], tensor) for name, tensor in wanted.items())
