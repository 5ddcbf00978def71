"""Classifiers of any architecture that transformers loads: trained, exported and asked, never taken apart."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from compress.networks.models import GraphInputs, token_inputs, write_network
from compress.networks.whole import WholeNetwork
from runtime.wordpiece import TOKEN_TYPES

# Settings of layers that drop without a module of their own.
DROPPING = ("attention_dropout", "dropout", "activation_dropout", "hidden_dropout", "dropout_p", "drop_prob")


Pooled = Literal["own", "mean", "first"]


@dataclass(frozen=True)
class ForeignShape:
    """How a model of transformers is used; written beside its weights.

    Attributes:
        config: its configuration, as transformers writes it.
        vocabulary: rows of its word embeddings.
        longest: tokens that it takes at most.
        classes: C.
        pooled: `own`: its trained head answers; else a linear head reads the mean or the first state.
        order: for each class the row of its own head; empty for the order that it has.
        alone: whether padding changes its answers, so that it is asked text by text.
        token_types: whether it is given the segment of each token.
        dropout: share dropped in training.
        pad_id: that padding consists of.
    """

    config: dict[str, Any]
    vocabulary: int
    longest: int
    classes: int
    pooled: Pooled
    order: tuple[int, ...] = ()
    alone: bool = False
    token_types: bool = False
    dropout: float = 0.0
    pad_id: int = 0


class ForeignNetwork(WholeNetwork[ForeignShape]):
    """A model of transformers: token ids, their mask and, where it reads them, segments in; logits out."""

    def __init__(self, shape: ForeignShape, model: nn.Module) -> None:
        super().__init__()
        self.shape = shape
        self.model = model
        self.classify: nn.Linear | None = None
        if shape.pooled != "own":
            if getattr(model, "pooler", None) is not None:
                model.pooler = nn.Identity()  # not None: some call it without asking
            self.classify = nn.Linear(_hidden(model), shape.classes)
            self.drop = nn.Dropout(shape.dropout)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Return logits [B, C] of ids [B, T], their mask [B, T] and their segments [B, T]."""
        if not self.shape.alone or torch.compiler.is_exporting() or bool(attention_mask.all()):
            return self._answers(input_ids, attention_mask, token_type_ids)
        rows = []
        for row, length in enumerate(attention_mask.sum(1).tolist()):
            parts = (input_ids, attention_mask, token_type_ids)
            rows.append(
                self._answers(*(None if part is None else part[row : row + 1, :length] for part in parts))
            )
        return torch.cat(rows)

    def _answers(self, ids: Tensor | None, mask: Tensor | None, types: Tensor | None) -> Tensor:
        more = {"token_type_ids": types} if types is not None else {}
        found = self.model(input_ids=ids, attention_mask=mask, **more)
        if self.classify is None:
            logits: Tensor = found.logits
            return logits[:, list(self.shape.order)] if self.shape.order else logits
        states = found.last_hidden_state
        if self.shape.pooled == "first":
            pooled = states[:, 0]
        else:
            assert mask is not None
            weights = mask.to(states.dtype)[:, :, None]
            pooled = (states * weights).sum(1) / weights.sum(1)
        answered: Tensor = self.classify(self.drop(pooled))
        return answered

    @property
    def word_table(self) -> Tensor:
        """The table of word embeddings [V, H]."""
        table: Tensor = self.model.get_input_embeddings().weight
        return table

    def graph_inputs(self) -> GraphInputs:
        """Return inputs of any batch and length, unpadded where padding changes answers."""
        plain = token_inputs(self.shape.vocabulary, self.shape.longest)

        def complete(batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            ids, mask = batch
            mask = torch.ones_like(mask) if self.shape.alone else mask
            # Some read padding off the ids.
            ids = torch.where(mask.bool(), ids, self.shape.pad_id)
            return (ids, mask, torch.zeros_like(ids)) if self.shape.token_types else (ids, mask)

        axes = dict(plain.axes)
        if self.shape.token_types:
            axes[TOKEN_TYPES] = next(iter(axes.values()))
        return GraphInputs(complete(plain.example), axes, tuple(complete(probe) for probe in plain.probes))

    def flops(self, length: float) -> float:
        """Return the floating-point operations of the matrix products for one text of so many tokens."""
        from torch.utils.flop_counter import FlopCounterMode

        tokens = torch.ones(1, max(1, round(min(length, self.shape.longest))), dtype=torch.long)
        types = (torch.zeros_like(tokens),) if self.shape.token_types else ()
        with torch.enable_grad(), FlopCounterMode(display=False) as counter:
            self(tokens, torch.ones_like(tokens), *types)
        return float(counter.get_total_flops())

    def save(self, folder: Path) -> None:
        """Write weights and shape into a folder, each file atomically."""
        write_network(folder, "transformers", self.shape, self.state_dict())

    def set_dropout(self, share: float) -> None:
        """Drop that share of activations in training, wherever the model drops any."""
        super().set_dropout(share)
        for module in self.modules():
            for name in DROPPING:
                if isinstance(vars(module).get(name), float):
                    setattr(module, name, share)
        self.shape = replace(self.shape, dropout=share)

    def summary(self) -> dict[str, Any]:
        """Return its size and its architecture."""
        return {**super().summary(), "architecture": str(self.shape.config.get("model_type"))}


def _hidden(model: nn.Module) -> int:
    config: Any = model.config
    return int(config.hidden_size)
