"""Networks that are asked and learnt from, and never taken apart."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

import numpy as np

from compress.networks.models import Examples, Network, Segmented, Tokens, TokenShape
from runtime.api import Encoded
from runtime.wordpiece import TOKEN_TYPES


class WholeShape(TokenShape, Protocol):
    """What the shapes of networks that are never taken apart have in common; frozen dataclasses."""

    @property
    def alone(self) -> bool:
        """Whether padding or batchmates change answers."""
        ...

    @property
    def token_types(self) -> bool:
        """Whether the segment of each token is read."""
        ...


Whole = TypeVar("Whole", bound=WholeShape)


class WholeNetwork(Network, Generic[Whole]):
    """Base of the networks that are never taken apart: token ids, their mask, and segments where read."""

    shape: Whole

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.shape.classes

    @property
    def alone(self) -> bool:
        """Whether it must be asked text by text, because padding or batchmates change its answers."""
        return self.shape.alone

    def examples(self, encoded: Encoded) -> Examples:
        """Return the tokens of texts, with their segments where it reads them."""
        tokens = Tokens.of(encoded)
        if not self.shape.token_types:
            return tokens
        return Segmented(tokens.ids, tokens.lengths, encoded.arrays[TOKEN_TYPES].astype(np.int64, copy=False))
