"""Asks a model behind HTTP for a table of texts: resumable, never twice, within its rate and a price."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
from numpy.typing import NDArray

from contract.errors import FailureKind, RemoteFailure
from contract.remote import RemoteModel
from runtime.remote.answered import Answered
from runtime.remote.client import RemoteClient
from runtime.remote.forms import form_of
from runtime.remote.forms.said import Probabilities
from runtime.remote.kept import Kept, KeptAnswers

NONE = -1
"""Class of a text without an answer."""
BUSY_FOR_S = 600.0
"""A server that is busy for so long, and answers nothing meanwhile, is given up."""
_LEAST_IN_A_ROW = 10
_CHARACTERS_PER_TOKEN = 3.5
_TOKENS_OUT = 16.0
_IN_VAIN = {401, 403, 404, 405}

Progress = Callable[[int, int, float], None]
"""Told of texts answered, texts in all, and USD spent on them so far."""


@dataclass(frozen=True)
class Estimate:
    """What asking would cost.

    Attributes:
        texts: different ones.
        kept: those that are answered already.
        usd_spent: that these have cost.
        usd_left: that the others will cost, about.
        exact: whether that is the price, not a guess of how many tokens it takes.
    """

    texts: int
    kept: int
    usd_spent: float
    usd_left: float
    exact: bool

    @property
    def told(self) -> str:
        """The estimate in words."""
        left = self.texts - self.kept
        about = "" if self.exact else "about "
        kept = f"; {self.kept:,} are answered already, for {self.usd_spent:,.4g} USD" if self.kept else ""
        return f"{left:,} texts to ask, {about}{self.usd_left:,.4g} USD{kept}"


@dataclass(frozen=True)
class Asked:
    """What came of N texts.

    Attributes:
        labels: [N] class indices, NONE where there is no answer.
        probabilities: [N, C] rows that sum to 1, NaN where none were told; None where none were told at all.
        seconds: [N] of the reply, NaN where there is no answer.
        usd: what the answers cost, kept ones included.
        usd_now: what was spent this time, on replies that are no answer too.
        tokens_in, tokens_out: of all answers.
        calls, failures: requests sent this time, and those that failed by kind.
        alone: [N] whether it was asked this time with no other request out.
        stopped: why not all were asked; None where they were.
    """

    labels: NDArray[np.int64]
    probabilities: Probabilities | None
    seconds: NDArray[np.float64]
    usd: float
    usd_now: float
    tokens_in: int
    tokens_out: int
    calls: int
    failures: dict[FailureKind, int]
    alone: NDArray[np.bool_]
    stopped: str | None

    @property
    def unanswered(self) -> int:
        """Texts without an answer."""
        return int((self.labels == NONE).sum())


def estimate(model: RemoteModel, labels: tuple[str, ...], texts: Sequence[str], folder: Path) -> Estimate:
    """Return what `ask_texts` would cost; asks nothing. Raises InputError."""
    different = list(dict.fromkeys(texts))
    with KeptAnswers(folder, model, labels) as kept:
        found = [answer for text in different if (answer := kept.get(text)) is not None]
        left = [text for text in different if kept.get(text) is None]
    each = _price_of(model, labels, left, found)
    return Estimate(
        len(different), len(found), sum(one.usd for one in found), len(left) * each, model.priced_by_call
    )


def _price_of(
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
    return model.repeats * model.usd(1) + model.usd(0) + _tokens_usd(model, body)


def _tokens_usd(model: RemoteModel, characters: float) -> float:
    _, each_in, each_out = model.price or (0.0, 0.0, 0.0)
    tokens = characters / _CHARACTERS_PER_TOKEN
    return model.repeats * (tokens * each_in + _TOKENS_OUT * each_out) / 1000


def ask_texts(
    model: RemoteModel,
    labels: tuple[str, ...],
    texts: Sequence[str],
    folder: Path,
    *,
    max_usd: float | None = None,
    alone: int = 0,
    progress: Progress = lambda *_: None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Asked:
    """Return the answers to N texts, asking for those that are not kept; equal texts are asked once.

    What cannot be answered leaves a text without an answer; a server that is away, or will not have us, stops
    it all, and so does the price. What was answered until then is kept: the same call goes on from there.

    Args:
        model: whom to ask.
        labels: the label set.
        texts: [N].
        folder: where answers are kept, see KeptAnswers.
        max_usd: that the answers may cost in all, kept ones included; for tokens, to within what is out.
        alone: the first so many that are to be asked go one at a time, so that their time is a request's own.
        progress: told now and then.
        transport: in place of the network, in tests.

    Raises:
        InputError: the record does not fit the labels, or answers cannot be kept.
        EnvironmentProblem: its key is not to be found here.
    """
    with KeptAnswers(folder, model, labels) as kept:
        return asyncio.run(_ask(model, labels, list(texts), kept, max_usd, alone, progress, transport))


async def _ask(
    model: RemoteModel,
    labels: tuple[str, ...],
    texts: list[str],
    kept: KeptAnswers,
    max_usd: float | None,
    alone: int,
    progress: Progress,
    transport: httpx.AsyncBaseTransport | None,
) -> Asked:
    client = RemoteClient(model, labels, transport=transport)
    different = list(dict.fromkeys(texts))
    run = _Run(client, kept, different, math.inf if max_usd is None else max_usd, progress)
    try:
        await run.all(alone)
    finally:
        await client.close()
    return _result(run, texts, len(labels))


@dataclass
class _Run:
    """One call of `ask_texts` under way."""

    client: RemoteClient
    kept: KeptAnswers
    texts: list[str]
    max_usd: float
    progress: Progress
    stopped: str | None = None
    asked_alone: set[str] = field(default_factory=set)
    out: int = 0
    in_a_row: int = 0
    done: int = 0
    heard_at: float = field(default_factory=time.monotonic)
    waiting: deque[list[str]] = field(default_factory=deque)
    known: int = 0
    spent_before: float = 0.0
    each_usd: float = 0.0

    async def all(self, alone: int) -> None:
        """Ask for everything that is not kept."""
        model = self.client.model
        known = [answer for text in self.texts if (answer := self.kept.get(text)) is not None]
        left = [text for text in self.texts if self.kept.get(text) is None]
        self.done = self.known = len(known)
        self.spent_before = sum(one.usd for one in known)
        self.each_usd = _price_of(model, self.client.labels, left, known)
        self.waiting.extend([text] for text in left[:alone])
        await self._work(alone=True)
        size = self.client.batch
        rest = left[alone:]
        self.waiting.extend(rest[start : start + size] for start in range(0, len(rest), size))
        await asyncio.gather(*(self._work() for _ in range(min(model.max_concurrency, len(self.waiting)))))

    async def _work(self, *, alone: bool = False) -> None:
        while self.waiting and self.stopped is None:
            batch = self.waiting.popleft()
            if self._spent + (self.out + len(batch)) * self._each > self.max_usd * (1 + 1e-9):
                self.stopped = (
                    f"{self._spent:.4g} USD are spent, and {len(batch)} more would go beyond {self.max_usd:g}"
                )
                return
            self.out += len(batch)
            try:
                answered = await self.client.ask(batch)
            except RemoteFailure as failure:
                self._failed(batch, failure)
            else:
                self._keep(batch, answered, alone=alone)
            finally:
                self.out -= len(batch)

    @property
    def _spent(self) -> float:
        return self.spent_before + self.client.usd

    @property
    def _each(self) -> float:
        """USD of one text, by what was seen where there is no price of a call."""
        answered = self.done - self.known
        if self.client.model.priced_by_call or answered < 1:
            return self.each_usd
        return self.client.usd / answered

    def _keep(self, batch: list[str], answered: Answered, *, alone: bool) -> None:
        n = len(batch)
        for row, text in enumerate(batch):
            shares = None if answered.probabilities is None else answered.probabilities[row]
            self.kept.add(
                text,
                Kept(
                    int(answered.labels[row]),
                    None if shares is None else tuple(shares.tolist()),
                    answered.usd / n,
                    answered.seconds,
                    round(answered.tokens_in / n),
                    round(answered.tokens_out / n),
                ),
            )
        if alone:
            self.asked_alone.update(batch)
        self._heard(n)

    def _heard(self, texts: int) -> None:
        self.done += texts
        self.in_a_row = 0
        self.heard_at = time.monotonic()
        self.progress(self.done, len(self.texts), self._spent)

    def _failed(self, batch: list[str], failure: RemoteFailure) -> None:
        if failure.kind == "busy":
            self.waiting.appendleft(batch)
            if time.monotonic() - self.heard_at > BUSY_FOR_S:
                self.stopped = f"it has been busy for {BUSY_FOR_S / 60:.0f} minutes: {failure}"
            return
        if len(batch) > 1 and not failure.passes and failure.status not in _IN_VAIN:
            self.waiting.extend([text] for text in batch)  # one of them it is
            return
        if failure.kind == "declined":
            self.kept.add(batch[0], Kept(None, None, self.client.model.usd(self.client.model.repeats), 0.0))
            self._heard(1)
            return
        self.in_a_row += 1
        if failure.status in _IN_VAIN:
            self.stopped = str(failure)
        elif self.in_a_row >= max(_LEAST_IN_A_ROW, 2 * self.client.model.max_concurrency):
            self.stopped = f"{self.in_a_row} questions in a row failed, the last one: {failure}"


def _result(run: _Run, texts: Sequence[str], classes: int) -> Asked:
    """Return what each text has, however often it occurs."""
    found = [run.kept.get(text) for text in texts]
    told = any(one is not None and one.probabilities is not None for one in found)
    probabilities = np.full((len(texts), classes), np.nan) if told else None
    if probabilities is not None:
        for row, one in enumerate(found):
            if one is not None and one.probabilities is not None:
                shares = np.array(one.probabilities)
                probabilities[row] = shares / shares.sum()
    answers = {text: one for text, one in zip(texts, found, strict=True) if one is not None}
    return Asked(
        labels=np.array([NONE if one is None or one.label is None else one.label for one in found]),
        probabilities=probabilities,
        seconds=np.array([math.nan if one is None or one.label is None else one.seconds for one in found]),
        usd=sum(one.usd for one in answers.values()),
        usd_now=run.client.usd,
        tokens_in=sum(one.tokens_in for one in answers.values()),
        tokens_out=sum(one.tokens_out for one in answers.values()),
        calls=run.client.sent,
        failures=dict(run.client.failures),
        alone=np.array([text in run.asked_alone for text in texts], dtype=bool),
        stopped=run.stopped,
    )
