"""The torch network behind every encoder variant: a BERT-shaped classifier, each layer of its own width."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from compress.networks.models import TokenNetwork, filling, read_shape, write_network

FAR_BELOW = -3e4

Pooling = Literal["mean", "first"]
Head = Literal["linear", "dense-tanh", "dense-relu"]


@dataclass(frozen=True)
class LayerShape:
    """The widths of one layer. Zero heads or zero neurons: the layer has no such half, not even its norm."""

    heads: int
    neurons: int


@dataclass(frozen=True)
class Architecture:
    """Everything that decides the shapes of a network, layer by layer; written beside its weights."""

    vocabulary: int
    hidden: int
    head_size: int
    positions: int
    layers: tuple[LayerShape, ...]
    classes: int
    pooling: Pooling = "mean"
    head: Head = "linear"
    activation: Literal["gelu", "relu"] = "gelu"
    norm_epsilon: float = 1e-12
    dropout: float = 0.1
    position_offset: int = 0
    pad_id: int = 0

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Architecture:
        """Return the architecture of its JSON form."""
        return cls(**{**raw, "layers": tuple(LayerShape(**layer) for layer in raw["layers"])})

    @property
    def longest(self) -> int:
        """Tokens that it takes at most."""
        return self.positions - self.position_offset


class Attention(nn.Module):
    """Self-attention with one fused projection for query, key and value."""

    def __init__(self, shape: Architecture, heads: int) -> None:
        super().__init__()
        self.heads, self.head_size = heads, shape.head_size
        width = heads * shape.head_size
        self.qkv = nn.Linear(shape.hidden, 3 * width)
        self.output = nn.Linear(width, shape.hidden)

    def forward(self, states: Tensor, mask: Tensor, gates: Tensor | None = None) -> Tensor:
        """Return [B, T, hidden].

        Args:
            states: [B, T, hidden].
            mask: [B, 1, 1, T], true where there is a token.
            gates: [B, heads], what each head is multiplied by.
        """
        return self.attend(states, mask, gates)[0]

    def attend(self, states: Tensor, mask: Tensor, gates: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return [B, T, hidden], and the attention [B, heads, T, T] of every place."""
        batch, length, _ = states.shape
        query, key, value = (
            part.view(batch, length, self.heads, self.head_size).transpose(1, 2)
            for part in self.qkv(states).chunk(3, dim=-1)
        )
        scores = query @ key.transpose(2, 3) * self.head_size**-0.5
        shares = scores.masked_fill(~mask, FAR_BELOW).softmax(dim=-1)
        mixed = shares.to(value.dtype) @ value
        if gates is not None:
            mixed = mixed * gates[:, :, None, None]
        merged: Tensor = self.output(
            mixed.transpose(1, 2).reshape(batch, length, self.heads * self.head_size)
        )
        return merged, shares


class Layer(nn.Module):
    """One transformer layer, normalised after each half."""

    def __init__(self, shape: Architecture, widths: LayerShape) -> None:
        super().__init__()
        hidden, heads, neurons = shape.hidden, widths.heads, widths.neurons
        self.attention = Attention(shape, heads) if heads else None
        self.attention_norm = nn.LayerNorm(hidden, eps=shape.norm_epsilon) if heads else None
        self.widen = nn.Linear(hidden, neurons) if neurons else None
        self.narrow = nn.Linear(neurons, hidden) if neurons else None
        self.output_norm = nn.LayerNorm(hidden, eps=shape.norm_epsilon) if neurons else None
        self.activation = functional.gelu if shape.activation == "gelu" else functional.relu
        self.dropout = nn.Dropout(shape.dropout)

    def forward(
        self,
        states: Tensor,
        mask: Tensor,
        head_gates: Tensor | None = None,
        neuron_gates: Tensor | None = None,
    ) -> Tensor:
        """Return the next states [B, T, hidden]; gates, if given, scale heads and neurons."""
        if self.attention is not None:
            states = self._attended(states, self.attention(states, mask, head_gates))
        return self._fed(states, neuron_gates)

    def trace(self, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the next states [B, T, hidden], and the attention [B, T, T], its heads averaged.

        The attention is None in a layer without heads.
        """
        if self.attention is None:
            return self._fed(states, None), None
        attended, shares = self.attention.attend(states, mask)
        return self._fed(self._attended(states, attended), None), shares.mean(dim=1)

    def _attended(self, states: Tensor, attended: Tensor) -> Tensor:
        assert self.attention_norm is not None
        normed: Tensor = self.attention_norm(states + self.dropout(attended))
        return normed

    def _fed(self, states: Tensor, neuron_gates: Tensor | None) -> Tensor:
        if self.widen is None or self.narrow is None or self.output_norm is None:
            return states
        inner = self.activation(self.widen(states))
        fed = self.narrow(inner if neuron_gates is None else inner * neuron_gates[:, None])
        normed: Tensor = self.output_norm(states + self.dropout(fed))
        return normed


@dataclass(frozen=True)
class Gates:
    """Multipliers per text for every head [B, heads] and neuron [B, neurons] of each layer."""

    heads: tuple[Tensor, ...]
    neurons: tuple[Tensor, ...]


@dataclass(frozen=True)
class Trace:
    """What a network thought on the way to its answer, for a batch of B texts of T places.

    Attributes:
        logits: [B, C].
        states: [B, T, hidden] of the embeddings and after every layer: one more than there are layers.
        attentions: [B, T, T] per layer, heads averaged; None where a layer has no heads.
    """

    logits: Tensor
    states: tuple[Tensor, ...]
    attentions: tuple[Tensor | None, ...]


class Classifier(TokenNetwork[Architecture]):
    """Token ids and mask in, logits out."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.shape = shape
        self.words = nn.Embedding(shape.vocabulary, shape.hidden, padding_idx=shape.pad_id)
        self.places = nn.Embedding(shape.positions, shape.hidden)
        self.embedding_norm = nn.LayerNorm(shape.hidden, eps=shape.norm_epsilon)
        self.layers = nn.ModuleList(Layer(shape, widths) for widths in shape.layers)
        self.dense = nn.Linear(shape.hidden, shape.hidden) if shape.head != "linear" else None
        self.classify = nn.Linear(shape.hidden, shape.classes)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, gates: Gates | None = None) -> Tensor:
        """Return logits [B, C] of ids [B, T] and their mask [B, T] (1 where there is a token)."""
        states = self._embed(input_ids)
        seen = attention_mask.bool()[:, None, None, :]
        for index, layer in enumerate(self.layers):
            if gates is None:
                states = layer(states, seen)
            else:
                states = layer(states, seen, gates.heads[index], gates.neurons[index])
        logits: Tensor = self.classify(self.dropout(self._pool(states, attention_mask)))
        return logits

    def trace(self, input_ids: Tensor, attention_mask: Tensor) -> Trace:
        """Return what `forward` returns, with the states and attentions on the way there."""
        states, attentions = [self._embed(input_ids)], []
        seen = attention_mask.bool()[:, None, None, :]
        for layer in self.layers:
            following, attention = layer.trace(states[-1], seen)
            states.append(following)
            attentions.append(attention)
        logits = self.classify(self.dropout(self._pool(states[-1], attention_mask)))
        return Trace(logits, tuple(states), tuple(attentions))

    def _embed(self, input_ids: Tensor) -> Tensor:
        places = torch.arange(input_ids.shape[1], device=input_ids.device) + self.shape.position_offset
        states = self.embedding_norm(self.words(input_ids) + self.places(places)[None])
        embedded: Tensor = self.dropout(states)
        return embedded

    def flops(self, length: float) -> float:
        """Return multiply-adds times two of one text of so many tokens.

        Embeddings and normalisation are left out.
        """
        shape, total = self.shape, 0.0
        for layer in shape.layers:
            width = layer.heads * shape.head_size
            total += length * shape.hidden * width * 4 + 2 * length * length * width
            total += 2 * length * shape.hidden * layer.neurons
        total += shape.hidden * shape.classes + (shape.hidden**2 if shape.head != "linear" else 0)
        return 2.0 * total

    def save(self, folder: Path) -> None:
        """Write weights (safetensors) and architecture (JSON) into a folder, each file atomically."""
        write_network(folder, "bert", self.shape, self.state_dict())

    def summary(self) -> dict[str, Any]:
        """Return its size and the widths of every layer."""
        widths = [[layer.heads, layer.neurons] for layer in self.shape.layers]
        return {**super().summary(), "widths": widths}

    def _pool(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        if self.shape.pooling == "first":
            pooled = states[:, 0]
        else:
            weights = attention_mask.to(states.dtype)[:, :, None]
            pooled = (states * weights).sum(1) / weights.sum(1)
        if self.dense is None:
            return pooled
        inner = self.dense(pooled)
        return torch.tanh(inner) if self.shape.head == "dense-tanh" else functional.relu(inner)


def read_classifier(folder: Path) -> Classifier:
    """Return the network that `Classifier.save` wrote.

    Raises:
        FamilyError: when the weights do not fit the architecture.
    """
    network = Classifier(Architecture.from_json(read_shape(folder)))
    with filling(folder) as weights:
        network.load_state_dict(weights)
    return network


def keep_layers(network: Classifier, indices: tuple[int, ...]) -> Classifier:
    """Return a copy that has only the layers of those indices, all other weights shared by value."""
    shape = replace(network.shape, layers=tuple(network.shape.layers[i] for i in indices))
    smaller = Classifier(shape)
    state = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("layers.")}
    for place, index in enumerate(indices):
        for name, tensor in network.layers[index].state_dict().items():
            state[f"layers.{place}.{name}"] = tensor
    smaller.load_state_dict(state)
    return smaller
