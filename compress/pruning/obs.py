"""Removal of heads and neurons by the curvature of each layer's own output, the rest of its weights updated.

The optimal brain surgeon for structures (Kurtic, Frantar and Alistarh 2023, "ZipLM: Inference-aware
structured pruning of language models", section 3.1): for a linear layer W with inputs X, the squared error of
its output has the Hessian H = 2 X X^T, the same for every row of W. What the removal of columns S costs, and
how the other columns best make up for it, then follow in closed form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.networks.models import Tokens
from compress.networks.network import Attention, Classifier

DAMPING = 1e-3
GROUP = 8
CANDIDATES = 4
BATCH = 32
FULL_SHARE = 0.8


@dataclass(frozen=True)
class Removal:
    """One linear layer at several widths.

    Attributes:
        widths: structures left, ascending.
        kept: per width, the structures that stay, ascending.
        weights: per width, [out, width x size], of the columns that stay.
        biases: per width, [out].
        errors: [widths] ||dW X|| / ||W X||, inputs and outputs centred: 1 where nothing is left.
    """

    widths: tuple[int, ...]
    kept: tuple[NDArray[np.int64], ...]
    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    errors: NDArray[np.float64]


def second_moments(network: Classifier, tokens: Tokens) -> list[tuple[Tensor | None, Tensor | None]]:
    """Return per layer the mean of x x^T over all tokens, x the inputs of `attention.output` and `narrow`.

    Each x is followed by a 1, so that the last row and column hold the mean input; [width + 1, width + 1].
    A half that has no heads or neurons has None.
    """
    sums: dict[int, Tensor] = {}
    places: dict[int, nn.Module] = {}
    seen = torch.empty(0)
    total = 0

    def collect(key: int, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        places[key] = module

        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            rows = inputs[0][seen].float()
            rows = torch.cat([rows, torch.ones(len(rows), 1)], dim=1)
            product = (rows.T @ rows).double()
            sums[key] = product if key not in sums else sums[key] + product

        return module.register_forward_pre_hook(hook)

    handles = []
    for index, layer in enumerate(network.layers):
        if isinstance(layer.attention, Attention):
            handles.append(collect(2 * index, layer.attention.output))
        if layer.widen is not None:
            handles.append(collect(2 * index + 1, layer.narrow))
    network.eval()
    try:
        with torch.inference_mode():
            order = np.argsort(tokens.lengths, kind="stable")
            for start in range(0, len(order), BATCH):
                ids, mask = tokens.batch(order[start : start + BATCH])
                seen = mask.bool()
                total += int(mask.sum())
                network(ids, mask)
    finally:
        for handle in handles:
            handle.remove()
    found = {key: matrix / total for key, matrix in sums.items()}
    return [(found.get(2 * i), found.get(2 * i + 1)) for i in range(len(network.layers))]


def remove_structures(
    weight: Tensor,
    bias: Tensor,
    moments: Tensor,
    widths: Sequence[int],
    *,
    size: int = 1,
    damping: float = DAMPING,
    group: int = GROUP,
) -> Removal:
    """Remove structures of a linear layer one after another, and return it at the widths asked for.

    The structure with the least sum over rows of W_S (H^-1_SS)^-1 W_S^T goes first (for single columns:
    sum of W_j^2 / H^-1_jj); the other columns and the bias take its part. Structures go in groups: the next
    `group` are chosen one after another among the CANDIDATES times as many that are cheapest, with what
    each choice changes for the other candidates, and the whole layer is updated once for all of them.

    Args:
        weight: [out, structures x size].
        bias: [out].
        moments: [in + 1, in + 1] of the inputs, as `second_moments` gives them.
        widths: how many structures to leave, any order.
        size: columns of one structure.
        damping: added to the diagonal, as a share of its mean.
        group: structures removed per update.
    """
    wanted = sorted(set(widths), reverse=True)
    state = _State.of(weight.detach(), bias.detach(), moments, size, damping)
    total = _energy(weight.detach().double(), moments)
    kept, weights, biases, errors = [], [], [], []
    for width in wanted:
        while len(state.left) > width:
            state.remove(min(group, len(state.left) - width))
        whole = width * size == weight.shape[1]
        kept.append(state.left)
        weights.append(weight.detach() if whole else state.columns().float())
        biases.append(bias.detach() if whole else state.weight[:, -1].float())
        errors.append((state.error / max(total, 1e-30)) ** 0.5)
    return Removal(
        widths=tuple(wanted[::-1]),
        kept=tuple(kept[::-1]),
        weights=tuple(weights[::-1]),
        biases=tuple(biases[::-1]),
        errors=np.array(errors[::-1]),
    )


def _energy(weight: Tensor, moments: Tensor) -> float:
    """Return the mean squared length of W x about its mean."""
    mean = moments[:-1, -1:]
    return float(((weight @ (moments[:-1, :-1] - mean @ mean.T)) * weight).sum())


class _State:
    """A layer on its way down.

    Attributes:
        weight: [out, in + 1], the bias last; columns that went are zero until they are dropped.
        inverse: [in + 1, in + 1] of the Hessian, likewise.
        left: structures that are left, ascending.
        error: squared error so far, in the units of the moments.
    """

    def __init__(self, weight: Tensor, inverse: Tensor, left: NDArray[np.int64], size: int) -> None:
        self.weight, self.inverse, self.left, self.error = weight, inverse, left, 0.0
        self._size = size
        self._places = np.arange(len(left))

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor, moments: Tensor, size: int, damping: float) -> _State:
        """Return a layer with all of its structures."""
        hessian = moments.clone()
        inner = torch.arange(len(hessian) - 1)
        hessian[inner, inner] += damping * max(float(hessian[inner, inner].mean()), 1e-12)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
        whole = torch.cat([weight, bias[:, None]], dim=1).double()
        return cls(whole, inverse, np.arange(weight.shape[1] // size), size)

    def columns(self) -> Tensor:
        """Return the weights that are left, [out, left x size]."""
        return self.weight[:, self._columns(self._places)]

    def remove(self, count: int) -> None:
        """Remove `count` structures and update what is left."""
        chosen = self._choose(count)
        columns = self._columns(self._places[chosen])
        removed, rows = self.weight[:, columns], self.inverse[columns]
        corner = torch.linalg.inv(rows[:, columns])
        self.error += float(((removed @ corner) * removed).sum())
        carried = corner @ rows
        self.weight.addmm_(removed, carried, alpha=-1)
        self.inverse.addmm_(rows.T, carried, alpha=-1)
        self.left, self._places = np.delete(self.left, chosen), np.delete(self._places, chosen)
        if len(self._places) * self._size < FULL_SHARE * (self.weight.shape[1] - 1):
            self._compact()

    def _compact(self) -> None:
        stays = torch.cat([self._columns(self._places), torch.tensor([self.weight.shape[1] - 1])])
        self.weight = self.weight[:, stays]
        self.inverse = self.inverse[stays][:, stays].contiguous()
        self._places = np.arange(len(self.left))

    def _choose(self, count: int) -> NDArray[np.int64]:
        """Return which of those left go next: greedily, among the candidates that are cheapest now."""
        cheapest = np.argsort(self._scores(), kind="stable")
        if count == 1:
            return cheapest[:1]
        candidates = cheapest[: count * CANDIDATES]
        columns = self._columns(self._places[candidates])
        columns = torch.cat([columns, torch.tensor([self.weight.shape[1] - 1])])
        part = _State(self.weight[:, columns], self.inverse[columns][:, columns], candidates, self._size)
        for _ in range(count):
            part.remove(1)
        return np.setdiff1d(candidates, part.left)

    def _scores(self) -> NDArray[np.float64]:
        """Return what the removal of each structure that is left would cost, alone."""
        columns = self._columns(self._places).view(-1, self._size)
        if self._size == 1:
            squares = self.weight.square().sum(0) / self.inverse.diagonal()
            alone: NDArray[np.float64] = squares[columns[:, 0]].numpy()
            return alone
        corners = torch.linalg.inv(self.inverse[columns[:, :, None], columns[:, None, :]])
        blocks = self.weight[:, columns.reshape(-1)].view(-1, *columns.shape)
        found: NDArray[np.float64] = torch.einsum("ocs,cst,oct->c", blocks, corners, blocks).numpy()
        return found

    def _columns(self, places: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy((places[:, None] * self._size + np.arange(self._size)).reshape(-1))
