"""Imitation of a teacher's inside: hidden states and attentions, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from compress.networks.models import Examples
from compress.networks.network import Classifier
from compress.recipes.learning_parts import Distillation

LEAST_SHARE = 1e-6


def spread_layers(student: int, teacher: int) -> tuple[int, ...]:
    """Return which teacher layer each student layer imitates: evenly spread, the last one the last.

    Student layer i of S (from 1) imitates layer round(i T / S) of T, as in patient distillation (Sun et al.
    2019) and TinyBERT (Jiao et al. 2020). Layers count from 0 in the answer.
    """
    return tuple(max(0, round((place + 1) * teacher / student) - 1) for place in range(student))


class Imitation:
    """What a student pays for thinking otherwise than its teacher.

    The loss of one batch is
        hidden_weight x mean over layers and tokens of |p(s) / rms(p(s)) - t / rms(t)|^2 per dimension
        + attention_weight x mean over layers and tokens of KL(teacher's attention || student's),
    where s and t are states of a student layer and of the teacher layer that it imitates, the embeddings
    among them; p is a learnt linear map where widths differ, dropped afterwards, and else the identity.
    Heads are averaged, so that their numbers may differ. Only real tokens count, and layers without heads
    have no attention to imitate.
    """

    def __init__(
        self,
        student: Classifier,
        teacher: Classifier,
        asked: Examples,
        settings: Distillation,
        layer_map: tuple[int, ...],
        *,
        seed: int,
    ) -> None:
        """Prepare.

        Args:
            student, teacher: networks; the teacher's weights stay as they are.
            asked: the training texts as the teacher reads them, token by token like the student's.
            settings: with the two weights.
            layer_map: the teacher layer, from 0, that each student layer imitates.
            seed: of the linear map.
        """
        self._student, self._teacher, self._asked, self._settings = student, teacher, asked, settings
        self._layer_map = layer_map
        wide, narrow = teacher.shape.hidden, student.shape.hidden
        self._maps: nn.ModuleList | None = None
        if settings.hidden_weight and wide != narrow:
            torch.manual_seed(seed)
            self._maps = nn.ModuleList(nn.Linear(narrow, wide) for _ in range(len(layer_map) + 1))

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield what learns beside the student."""
        return iter(()) if self._maps is None else self._maps.parameters()

    def __call__(self, rows: NDArray[np.int64], batch: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Return the student's logits [B, C] for a batch of those rows, and the loss of its inside."""
        said = self._student.trace(*batch)
        with torch.no_grad():
            wanted = self._teacher.trace(*self._asked.batch(rows))
        real = batch[1].bool()
        loss = said.logits.new_zeros((), dtype=torch.float32)
        if self._settings.hidden_weight:
            places = (0, *(layer + 1 for layer in self._layer_map))
            states = said.states
            if self._maps is not None:
                states = tuple(map_(state) for map_, state in zip(self._maps, states, strict=True))
            losses = [
                state_loss(state, wanted.states[place], real)
                for state, place in zip(states, places, strict=True)
            ]
            loss = loss + self._settings.hidden_weight * torch.stack(losses).mean()
        if self._settings.attention_weight:
            losses = [
                attention_loss(mine, theirs, real)
                for mine, layer in zip(said.attentions, self._layer_map, strict=True)
                if mine is not None and (theirs := wanted.attentions[layer]) is not None
            ]
            if losses:
                loss = loss + self._settings.attention_weight * torch.stack(losses).mean()
        return said.logits, loss


def state_loss(said: Tensor, wanted: Tensor, real: Tensor) -> Tensor:
    """Return the mean squared difference of states [B, T, H], each scaled to a mean square of 1.

    Args:
        said, wanted: the states.
        real: [B, T], true where there is a token; only those count.
    """
    mine, theirs = said.float()[real], wanted.float()[real]
    width = mine.shape[-1] ** 0.5
    return functional.mse_loss(
        functional.normalize(mine, dim=-1) * width, functional.normalize(theirs, dim=-1) * width
    )


def attention_loss(said: Tensor, wanted: Tensor, real: Tensor) -> Tensor:
    """Return the mean KL(wanted || said) over the real tokens of attentions [B, T, T] that sum to 1."""
    mine, theirs = said.float()[real], wanted.float()[real]
    return functional.kl_div(mine.clamp_min(LEAST_SHARE).log(), theirs, reduction="batchmean")
