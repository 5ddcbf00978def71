"""Labels as a language model writes them: piece by piece, each with its probability given those before."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

_PIECE = re.compile(r"[^\W_]{1,4}|.", re.DOTALL)
END = '"}'
NEVER = -9999.0
"""What stands for the logarithm of nothing, as other servers write it."""


def pieces_of(label: str) -> tuple[str, ...]:
    """Return the pieces of a label as it stands inside a JSON string, and the end after it."""
    return (*_PIECE.findall(json.dumps(label, ensure_ascii=False)[1:-1]), END)


def written(
    name: str, labels: Sequence[str], probabilities: Sequence[float], chosen: int, top: int
) -> tuple[str, list[dict[str, Any]]]:
    """Return the JSON object {name: label} as text, and its tokens with their log-probabilities.

    The probability of a piece is that of all labels that go on with it, over that of all that begin as what
    is already written: so the product over the pieces of a label is the label's own.

    Args:
        name: of the property.
        labels, probabilities: [C].
        chosen: index of the label that is written.
        top: alternatives told at each token.
    """
    spelled = [pieces_of(label) for label in labels]
    tokens = [_token(piece, 1.0, {piece: 1.0}, top) for piece in ('{"', json.dumps(name)[1:-1], '":"')]
    alive = list(range(len(labels)))
    for place, piece in enumerate(spelled[chosen]):
        shares: dict[str, float] = {}
        for label in alive:
            shares[spelled[label][place]] = shares.get(spelled[label][place], 0.0) + probabilities[label]
        whole = math.fsum(shares.values())
        shares = {said: share / whole if whole else 1 / len(shares) for said, share in shares.items()}
        tokens.append(_token(piece, shares[piece], shares, top))
        alive = [label for label in alive if spelled[label][place] == piece]
    return "".join(token["token"] for token in tokens), tokens


def _token(piece: str, probability: float, shares: dict[str, float], top: int) -> dict[str, Any]:
    best = sorted(shares.items(), key=lambda pair: -pair[1])[:top]
    return {**_said(piece, probability), "top_logprobs": [_said(*pair) for pair in best]}


def _said(piece: str, probability: float) -> dict[str, Any]:
    return {
        "token": piece,
        "logprob": math.log(probability) if probability > 0 else NEVER,
        "bytes": list(piece.encode()),
    }
