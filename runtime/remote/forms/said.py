"""What one reply says, whatever its form, and the helpers that the forms share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from contract.errors import RemoteFailure

Probabilities = NDArray[np.float64]

_TIE = 1e-5
_ROUNDING = 1e-3


@dataclass(frozen=True)
class Said:
    """What one reply says of N texts.

    Attributes:
        labels: [N] class indices.
        probabilities: [N, C], rows summing to 1 with `labels` the likeliest; None where it says none.
        tokens_in, tokens_out: that the server counted; 0 where it tells none.
    """

    labels: NDArray[np.int64]
    probabilities: Probabilities | None
    tokens_in: int = 0
    tokens_out: int = 0


class Form(Protocol):
    """One form of the wire for one model and one label set."""

    @property
    def path(self) -> str:
        """What follows the model's URL."""
        ...

    @property
    def batch(self) -> int:
        """Texts that one request may carry."""
        ...

    def body(self, texts: Sequence[str]) -> dict[str, Any]:
        """Return the JSON body that asks for 1 to `batch` texts."""
        ...

    def read(self, reply: Any, n: int) -> Said:
        """Return what the JSON reply to a request of n texts says.

        Raises:
            RemoteFailure: unreadable, or declined.
        """
        ...


def unreadable(what: str) -> RemoteFailure:
    """Return the failure of a reply that is not in the form; `what` says how."""
    return RemoteFailure("unreadable", f"the reply is not in the form: {what}")


def declined(what: str) -> RemoteFailure:
    """Return the failure of a model that answers with none of the labels."""
    return RemoteFailure("declined", what)


def not_offered(name: str) -> RemoteFailure:
    """Return the failure of a model that names another label; which one may quote the text it was asked."""
    return RemoteFailure("declined", "it names no label that was offered", said=name[:80])


def index_of(name: Any, names: Sequence[str]) -> int:
    """Return the class of a name that the model gave. Raises RemoteFailure where it was not offered."""
    if not isinstance(name, str):
        raise unreadable(f"a label is a string, not {type(name).__name__}")
    if name not in names:
        raise not_offered(name)
    return names.index(name)


def led_by(label: int, probabilities: Probabilities) -> Probabilities:
    """Return probabilities [C] that sum to 1 with `label` the likeliest.

    Where another is likelier the two change places, and of near equals it gets a little more, which float32
    keeps: what a model names is its answer.

    Raises:
        RemoteFailure: a value is negative or not finite, or all are 0.
    """
    total = float(probabilities.sum())
    if not math.isfinite(total) or total <= 0 or (probabilities < 0).any():
        raise unreadable("probabilities must be 0 or more, finite, and not all 0")
    found = probabilities / total
    likeliest = int(found.argmax())
    if found[likeliest] > found[label]:
        found[[label, likeliest]] = found[[likeliest, label]]
    least = (1 + _TIE) * np.delete(found, label).max(initial=0.0)
    if found[label] < least:
        found[label] = least
        found /= found.sum()
    return found


def finite(value: Any) -> float | None:
    """Return a JSON number as a float; None for what is none, or too large for one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def spread(label: int, confidence: Any, classes: int) -> Probabilities:
    """Return probabilities [C] of an answer that is so sure: the rest is shared evenly.

    Raises:
        RemoteFailure: it is no number between 0 and 1.
    """
    sure = finite(confidence)
    if sure is None or not 0 <= sure <= 1 + _ROUNDING:
        raise unreadable("a confidence is a number between 0 and 1")
    sure = min(sure, 1.0)
    found = np.full(classes, (1 - sure) / (classes - 1), dtype=np.float64)
    found[label] = sure
    return led_by(label, found)


def tokens_of(reply: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Return tokens in and out as `usage` tells them, under either of their names; None where it does not.

    A count of 0 tokens in tells nothing: no question is empty.
    """
    usage = reply.get("usage")
    if not isinstance(usage, dict):
        return None, None
    return (
        _count([usage.get("input_tokens"), usage.get("prompt_tokens")], least=1),
        _count([usage.get("output_tokens"), usage.get("completion_tokens")], least=0),
    )


def _count(values: Sequence[Any], *, least: int) -> int | None:
    for value in values:
        told = finite(value)
        if told is not None and told.is_integer() and told >= least:
            return int(told)
    return None


_MEDIA = (("/9j/", "jpeg"), ("iVBOR", "png"), ("R0lG", "gif"), ("UklG", "webp"), ("Qk", "bmp"))


def data_url(image: str) -> str:
    """Return the data URL of an image file in base64; its kind is told by its first bytes."""
    kind = next((name for start, name in _MEDIA if image.startswith(start)), "png")
    return f"data:image/{kind};base64,{image}"
