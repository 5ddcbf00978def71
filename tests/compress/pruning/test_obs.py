"""Removal by curvature is the least-squares optimum, and its errors are those that the layer makes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compress.networks.network import Classifier
from compress.pruning.obs import Removal, remove_structures, second_moments
from tests.compress.learning.test_training import toy_tokens


def layer(columns: int, *, seed: int, rows: int = 400) -> tuple[Tensor, Tensor, Tensor]:
    """Return weight [6, columns], bias, and correlated inputs [rows, columns] with a mean of their own."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    mixing = torch.randn(columns, columns, generator=generator, dtype=torch.float64)
    inputs = hidden @ mixing + torch.randn(columns, generator=generator, dtype=torch.float64)
    return torch.randn(6, columns, generator=generator), torch.randn(6, generator=generator), inputs


def moments_of(inputs: Tensor) -> Tensor:
    """Return the second moments of inputs followed by a 1."""
    whole = torch.cat([inputs, torch.ones(len(inputs), 1, dtype=inputs.dtype)], dim=1)
    return whole.T @ whole / len(whole)


def columns_of(removal: Removal, number: int, size: int) -> np.ndarray:
    """Return the columns that stay at one width."""
    return (removal.kept[number][:, None] * size + np.arange(size)).reshape(-1)


@settings(max_examples=25, deadline=None)
@given(
    size=st.sampled_from([1, 3]), count=st.integers(2, 9), group=st.integers(1, 4), seed=st.integers(0, 99)
)
def test_what_is_left_is_the_least_squares_optimum(size: int, count: int, group: int, seed: int) -> None:
    """At every width the weights are those that best repeat the layer's outputs, and the error is theirs."""
    weight, bias, inputs = layer(size * count, seed=seed)
    removal = remove_structures(
        weight, bias, moments_of(inputs), range(count + 1), size=size, damping=1e-10, group=group
    )
    wanted = inputs @ weight.double().T + bias
    spread = (wanted - wanted.mean(0)).square().sum().sqrt()
    for number, width in enumerate(removal.widths):
        columns = columns_of(removal, number, size)
        assert removal.weights[number].shape == (6, width * size)
        design = torch.cat([inputs[:, columns], torch.ones(len(inputs), 1, dtype=inputs.dtype)], dim=1)
        optimum = design @ torch.linalg.lstsq(design, wanted).solution
        found = inputs[:, columns] @ removal.weights[number].double().T + removal.biases[number]
        best = float((wanted - optimum).square().sum().sqrt() / spread)
        made = float((wanted - found).square().sum().sqrt() / spread)
        assert made == pytest.approx(best, abs=1e-3)
        assert removal.errors[number] == pytest.approx(best, abs=1e-3)


def test_errors_fall_with_width_from_all_to_nothing() -> None:
    """Nothing left is an error of 1, everything left is the layer as it was."""
    weight, bias, inputs = layer(40, seed=1)
    removal = remove_structures(weight, bias, moments_of(inputs), [0, 10, 20, 30, 40])
    assert removal.widths == (0, 10, 20, 30, 40)
    assert removal.errors[0] == pytest.approx(1, abs=1e-3)
    assert removal.errors[-1] == 0
    assert (np.diff(removal.errors) < 0).all()
    assert torch.equal(removal.weights[-1], weight)
    assert torch.equal(removal.biases[-1], bias)


def test_copies_go_first_and_cost_nothing() -> None:
    """Of two neurons that always say the same one goes, and the other speaks for both."""
    weight, bias, inputs = layer(8, seed=2)
    inputs[:, 5] = inputs[:, 2]
    removal = remove_structures(weight, bias, moments_of(inputs), [7], damping=1e-9)
    gone = set(range(8)) - set(removal.kept[0].tolist())
    assert gone <= {2, 5}
    assert removal.errors[0] < 1e-3
    left = removal.kept[0].tolist().index(({2, 5} - gone).pop())
    torch.testing.assert_close(removal.weights[0][:, left], weight[:, 2] + weight[:, 5], atol=1e-3, rtol=1e-3)


def test_groups_choose_nearly_as_well_as_single_steps() -> None:
    """Sixteen at a time, chosen with what each choice does to the others, costs next to nothing."""
    weight, bias, inputs = layer(96, seed=3)
    single, grouped = (
        remove_structures(weight, bias, moments_of(inputs), [16, 48], group=group).errors for group in (1, 16)
    )
    assert (grouped <= single * 1.05).all()


def test_updating_the_rest_beats_leaving_it() -> None:
    """The same neurons left out without an update make a larger error."""
    weight, bias, inputs = layer(24, seed=4)
    removal = remove_structures(weight, bias, moments_of(inputs), [12])
    columns = columns_of(removal, 0, 1)
    wanted = inputs @ weight.double().T + bias
    updated = inputs[:, columns] @ removal.weights[0].double().T + removal.biases[0] - wanted
    left = inputs[:, columns] @ weight[:, columns].double().T + bias - wanted
    assert updated.square().sum() < 0.8 * left.square().sum()


def test_moments_are_those_of_real_tokens(network: Classifier) -> None:
    """Padding has no part in them, and every token counts the same."""
    tokens, _ = toy_tokens(30)
    seen: list[Tensor] = []
    handle = network.layers[1].narrow.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0]))
    with torch.inference_mode():
        for row in range(30):
            network(*tokens.batch(np.array([row])))
    handle.remove()
    moments = second_moments(network, tokens)
    assert len(moments) == 3
    found = moments[1][1]
    assert found is not None
    torch.testing.assert_close(found, moments_of(torch.cat(seen).double()), atol=1e-4, rtol=1e-4)
