"""How likely each label is by the log-probabilities of the tokens that a chat model wrote.

The answer is written token by token, and at each place the server tells the likeliest alternatives. Those
that begin another label carry its probability; what begins no label is left out, as a constrained decoder
leaves it out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime.remote.forms.said import Probabilities, finite


@dataclass(frozen=True)
class Token:
    """A token that was written, and the probabilities of what could have stood there, itself included."""

    text: str
    alternatives: Mapping[str, float]


def tokens_told(logprobs: Any) -> list[Token] | None:
    """Return the tokens of a choice's `logprobs`; None where there are none that can be read."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(content, list) or not content:
        return None
    found = []
    for one in content:
        own = _read(one)
        if own is None:
            return None
        others = one.get("top_logprobs") or []
        if not isinstance(others, list):
            return None
        read = [_read(other) for other in others]
        alternatives = dict(pair for pair in read if pair is not None)
        alternatives[own[0]] = own[1]
        found.append(Token(own[0], alternatives))
    return found


def _read(one: Any) -> tuple[str, float] | None:
    if not isinstance(one, dict) or not isinstance(one.get("token"), str):
        return None
    value = finite(one.get("logprob"))
    if value is None or value > 1e-3:
        return None
    return one["token"], math.exp(min(value, 0.0))


def label_probabilities(
    tokens: Sequence[Token], start: int, written: Sequence[str], answer: int
) -> Probabilities | None:
    """Return probabilities [C] that sum to 1, of labels as they are `written`; None where tokens do not fit.

    At each token the probability of what has been written so far is divided among the alternatives that go
    on with some label: what the model wrote keeps its share, each other gives its own to the labels that it
    may become. Where the text ends with the answer and longer labels begin with that, nothing tells how sure
    the end was: what is left is divided evenly among them.

    Args:
        tokens: all that was written.
        start: characters of the text before the label begins.
        written: [C] what stands there for each label, its end included (a quotation mark, say).
        answer: class that was written.
    """
    found = np.zeros(len(written), dtype=np.float64)
    open_, so_far, offset, left = list(range(len(written))), "", 0, 1.0
    for token in tokens:
        before = max(0, start - offset)
        offset += len(token.text)
        if offset <= start:
            continue
        head = token.text[:before]
        shares = {
            text: (value, fitting)
            for text, value in token.alternatives.items()
            if text.startswith(head)
            and (fitting := _fitting(written, open_, so_far + text[before:]))
            and len(text) > before
        }
        total = sum(value for value, _ in shares.values())
        if token.text not in shares or total <= 0:
            return None
        for text, (value, fitting) in shares.items():
            if text != token.text:
                found[fitting] += left * value / total / len(fitting)
        value, open_ = shares[token.text]
        left *= value / total
        so_far += token.text[before:]
        if answer not in open_:
            return None
        if len(open_) == 1:
            break
    if not so_far:
        return None
    rest = [i for i in open_ if written[i].startswith(so_far)] or [answer]
    found[rest] += left / len(rest)
    return found


def _fitting(written: Sequence[str], open_: Sequence[int], text: str) -> list[int]:
    """Return which open labels `text` may be the beginning of, else the longest that it begins with."""
    begun = [i for i in open_ if written[i].startswith(text)]
    if begun:
        return begun
    spelt = [i for i in open_ if text.startswith(written[i])]
    longest = max((len(written[i]) for i in spelt), default=0)
    return [i for i in spelt if len(written[i]) == longest]
