"""What asking a model behind HTTP costs and takes, before it is asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Self

from contract.remote import RemoteModel
from runtime.remote.forms import form_of
from runtime.remote.kept import Kept, KeptAnswers

_CHARACTERS_PER_TOKEN = 3.5
_TOKENS_OUT = 16.0
_FRAME_TOKENS = 64
_LIMITS = ("max_completion_tokens", "max_tokens")
_MARGIN, _FIRST_MARGIN, _FEW = 1.25, 2.0, 10


@dataclass(frozen=True)
class Estimate:
    """What asking would cost.

    Attributes:
        texts: different ones.
        kept: those that are answered already.
        usd_spent: that these have cost.
        usd_left: that the others will cost, about.
        exact: whether that is the price, not a guess of how many tokens it takes.
        most_usd: that the others cost at most, see `most_usd_of` and `SetAside`.
        seconds: that they take at the model's rate and the pace of what is kept; None where nothing tells.
    """

    texts: int
    kept: int
    usd_spent: float
    usd_left: float
    exact: bool
    most_usd: float
    seconds: float | None

    @property
    def told(self) -> str:
        """The estimate in words."""
        left = self.texts - self.kept
        about = "" if self.exact else "about "
        kept = f"; {self.kept:,} are answered already, for {self.usd_spent:,.4g} USD" if self.kept else ""
        return f"{left:,} texts to ask, {about}{self.usd_left:,.4g} USD{kept}"


def estimate(model: RemoteModel, labels: tuple[str, ...], texts: Sequence[str], folder: Path) -> Estimate:
    """Return what `ask_texts` would cost; asks and writes nothing. Raises InputError."""
    different = list(dict.fromkeys(texts))
    with KeptAnswers(folder, model, labels) as kept:
        known = {text: answer for text in different if (answer := kept.get(text)) is not None}
        left = [text for text in different if text not in known]
        spent = sum(map(kept.spent, different))
    found, most = [*known.values()], most_usd_of(model, labels)
    return Estimate(
        texts=len(different),
        kept=len(found),
        usd_spent=sum(one.usd for one in found) + spent,
        usd_left=len(left) * price_of(model, labels, left, found),
        exact=model.priced_by_call,
        most_usd=sum(map(most, left)) * SetAside.by(model, most, known).share,
        seconds=_seconds(model, len(left), [one.seconds for one in found if one.seconds > 0]),
    )


def price_of(
    model: RemoteModel, labels: tuple[str, ...], left: Sequence[str], known: Sequence[Kept]
) -> float:
    """Return the USD of one text: by the price of a call, by tokens seen before, or by a guess at them."""
    if model.priced_by_call:
        return model.usd(model.repeats)
    if known:
        return sum(one.usd for one in known) / len(known)
    if not left:
        return 0.0
    form = form_of(model, labels)
    some = left[:: max(1, len(left) // 100)]
    body = sum(len(json.dumps(form.body([text]), ensure_ascii=False)) for text in some) / len(some)
    _, each_in, each_out = model.price or (0.0, 0.0, 0.0)
    tokens = body / _CHARACTERS_PER_TOKEN
    return model.usd(model.repeats) + model.repeats * (tokens * each_in + _TOKENS_OUT * each_out) / 1000


def most_usd_of(model: RemoteModel, labels: tuple[str, ...]) -> Callable[[str], float]:
    """Return what tells the most that the answer to a text costs, in USD; further tries are left out.

    Where tokens are paid for: a token is one byte of the request at least, so there are no more than it has
    bytes; and a reply is as long as its longest label and a frame, or as the request itself allows
    (`chat.extra.max_completion_tokens`), which models that think before they answer need.

    Raises:
        InputError: the model cannot be asked for these labels.
    """
    form = form_of(model, labels)
    if model.priced_by_call:
        each = model.usd(model.repeats)
        return lambda _: each
    told = [model.chat.extra[name] for name in _LIMITS if isinstance(model.chat.extra.get(name), int)]
    longest = max(len(name.encode("utf-8", "replace")) for name in model.names(labels))
    tokens_out = max(told) if told else longest + _FRAME_TOKENS

    def most(text: str) -> float:
        body = json.dumps(form.body([text]), ensure_ascii=False).encode("utf-8", "replace")
        return model.repeats * model.usd(1, len(body) + _FRAME_TOKENS, tokens_out)

    return most


class SetAside:
    """How much of the most that an answer may cost is set aside for it, by what earlier ones took of theirs.

    At first all of it; then what the dearest took for its length, and a margin. That may be more than all:
    models that think write tokens that nobody can foresee.
    """

    def __init__(self, *, fixed: bool) -> None:
        self._fixed = fixed
        self._dearest = 0.0
        self._told = 0
        self._untold = False

    @classmethod
    def by(cls, model: RemoteModel, most: Callable[[str], float], known: Mapping[str, Kept]) -> Self:
        """Return it as earlier answers have it, at the price of today. It is fixed where calls are priced."""
        found = cls(fixed=model.priced_by_call)
        if not model.priced_by_call:
            for text, answer in known.items():
                if answer.label is not None:
                    usd = model.usd(model.repeats, answer.tokens_in, answer.tokens_out)
                    found.saw(usd, most(text), told=answer.tokens_in > 0)
        return found

    def saw(self, usd: float, most: float, *, told: bool) -> None:
        """An answer came of which so much had been the most; `told`: it says what it took."""
        if not told:
            self._untold = True
        elif most > 0:
            self._dearest = max(self._dearest, usd / most)
            self._told += 1

    @property
    def known(self) -> bool:
        """Whether there is anything to go by."""
        return self._fixed or self._told > 0 or self._untold

    @property
    def share(self) -> float:
        """What is set aside is so many times the most."""
        if self._fixed or not self._told:
            return 1.0
        found = (_MARGIN if self._told >= _FEW else _FIRST_MARGIN) * self._dearest
        return max(found, 1.0) if self._untold else found


def _seconds(model: RemoteModel, count: int, known: Sequence[float]) -> float | None:
    by_rate = [] if model.max_per_s is None else [count * model.repeats / model.max_per_s]
    by_pace = [count * median(known) / model.max_concurrency] if known else []
    return max([*by_rate, *by_pace], default=None)
