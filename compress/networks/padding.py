"""Padding, as models of transformers take it: those that see it, and those that name no token for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from compress.networks.foreign import ForeignNetwork

NO_TOKEN = -1
NOTICED = 1e-3
PADDED = 5
PROBED = 8


def settle_padding(model: nn.Module, config: Any) -> None:
    """Let a classifier that names no padding token read whole texts, by naming one that no text holds.

    Generative models answer from the last token that is no padding, and refuse batches where they cannot
    tell. With this one every token counts, and such a model is asked text by text.
    """
    if getattr(config, "pad_token_id", None) is not None:
        return
    ids = torch.ones(2, 2, dtype=torch.long)
    try:
        with torch.inference_mode():
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
    except ValueError:
        for told in (config, model.config):
            told.pad_token_id = NO_TOKEN


def padding_changes(network: ForeignNetwork) -> bool:
    """Return whether texts get other answers padded than alone: convolutions and recurrences look beyond."""
    generator = torch.Generator().manual_seed(0)
    length = max(1, min(9, network.shape.longest - PADDED))
    if length + PADDED > network.shape.longest:
        return True
    ids = torch.randint(1, network.shape.vocabulary, (PROBED, length), generator=generator)
    mask = torch.ones_like(ids)
    types = (torch.zeros_like(ids),) if network.shape.token_types else ()
    with torch.inference_mode():
        alone = network(ids, mask, *types)
        spread = float(alone.std(dim=0).max())
        for pad in {0, network.shape.pad_id}:
            wide = nn.functional.pad(ids, (0, PADDED), value=pad)
            more = tuple(nn.functional.pad(part, (0, PADDED)) for part in types)
            padded = network(wide, nn.functional.pad(mask, (0, PADDED)), *more)
            if float((padded - alone).abs().max()) > NOTICED * spread:
                return True
    return False
