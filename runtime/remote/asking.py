"""Asks a model behind HTTP for a table of texts: resumable, never twice, within its rate and a price."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, deque
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
from runtime.remote.estimate import SetAside, most_usd_of
from runtime.remote.forms.said import Probabilities
from runtime.remote.kept import Kept, KeptAnswers

NONE = -1
"""Class of a text without an answer."""
BUSY_FOR_S = 600.0
"""A server that is busy for so long, and answers nothing meanwhile, is given up."""
_LEAST_IN_A_ROW = 10
_IN_VAIN = {401, 403, 404, 405}
_EXAMPLES = 3

Progress = Callable[[int, int, float], None]
"""Told of texts answered, texts in all, and USD spent on them so far."""


@dataclass(frozen=True)
class Asked:
    """What came of N texts.

    Attributes:
        labels: [N] class indices, NONE where there is no answer.
        probabilities: [N, C] rows that sum to 1, NaN where none were told; None where none were told at all.
        seconds: [N] of the reply, NaN where there is no answer.
        usd: what the answers cost, kept ones included, and replies to these texts that are no answer.
        usd_now: what was spent this time, on replies that are no answer too.
        tokens_in, tokens_out: of all answers.
        calls, failures: requests sent this time, and those that failed by kind.
        alone: [N] whether it was asked this time with no other request out.
        declined: answers without a label that was offered, by reason, kept ones included.
        errors: texts that got no reply this time, by what went wrong.
        may_come: how many of these another try may bring, since their failures pass.
        examples: a few names in place of a label this time; they may quote texts, so write them nowhere.
        stopped: why not all were asked; None where they were.
        capped: whether it was the price.
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
    declined: dict[str, int]
    errors: dict[str, int]
    may_come: int
    examples: tuple[str, ...]
    stopped: str | None
    capped: bool

    @property
    def unanswered(self) -> int:
        """Texts without an answer."""
        return int((self.labels == NONE).sum())


def ask_texts(
    model: RemoteModel,
    labels: tuple[str, ...],
    texts: Sequence[str],
    folder: Path,
    *,
    max_usd: float | None = None,
    most_errors: int | None = None,
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
        max_usd: that the answers may cost in all, kept ones included. What an answer may cost is set aside
            before it is asked for: by tokens, at first as `most_usd_of` says, then by what was seen
            (SetAside). Until there is an answer to go by they are asked for one at a time.
        most_errors: texts that may stay without a reply; one more stops it all. None: any number.
        alone: the first so many that are to be asked go one at a time, so that their time is a request's own.
        progress: told now and then.
        transport: in place of the network, in tests.

    Raises:
        InputError: the record does not fit the labels, or answers cannot be kept.
        EnvironmentProblem: its key is not to be found here, or another process asks for the same.
    """
    client = RemoteClient(model, labels, transport=transport)
    with KeptAnswers(folder, model, labels) as kept:
        run = _Run(
            client,
            kept,
            list(dict.fromkeys(texts)),
            max_usd=math.inf if max_usd is None else max_usd,
            most_errors=math.inf if most_errors is None else most_errors,
            progress=progress,
        )
        asyncio.run(run.all(alone))
        return _result(run, texts, len(labels))


@dataclass
class _Run:
    """One call of `ask_texts` under way."""

    client: RemoteClient
    kept: KeptAnswers
    texts: list[str]
    max_usd: float
    most_errors: float
    progress: Progress
    stopped: str | None = None
    capped: bool = False
    asked_alone: set[str] = field(default_factory=set)
    errors: Counter[str] = field(default_factory=Counter)
    may_come: int = 0
    examples: list[str] = field(default_factory=list)
    out_usd: dict[int, float] = field(default_factory=dict)
    in_a_row: int = 0
    done: int = 0
    heard_at: float = field(default_factory=time.monotonic)
    waiting: deque[list[str]] = field(default_factory=deque)
    spent_before: float = 0.0

    def __post_init__(self) -> None:
        self._most = most_usd_of(self.client.model, self.client.labels)
        self._aside = SetAside(fixed=self.client.model.priced_by_call)
        self._settled = asyncio.Event()

    async def all(self, alone: int) -> None:
        """Ask for everything that is not kept."""
        try:
            left = [text for text in self.texts if self.kept.get(text) is None]
            if left:
                self.kept.open()
                left = [text for text in left if self.kept.get(text) is None]
            known = {text: found for text in self.texts if (found := self.kept.get(text)) is not None}
            self.done = len(known)
            self.spent_before = sum(one.usd for one in known.values()) + sum(map(self.kept.spent, self.texts))
            self._aside = SetAside.by(self.client.model, self._most, known)
            self.waiting.extend([text] for text in left[:alone])
            await self._work(alone=True)
            size, rest = self.client.batch, left[alone:]
            self.waiting.extend(rest[start : start + size] for start in range(0, len(rest), size))
            workers = min(self.client.model.max_concurrency, len(self.waiting))
            await asyncio.gather(*(self._work() for _ in range(workers)))
        finally:
            await self.client.close()

    async def _work(self, *, alone: bool = False) -> None:
        while self.stopped is None and self.waiting:
            batch = self.waiting.popleft()
            most = sum(map(self._most, batch))
            if not await self._affordable(most):
                self.waiting.appendleft(batch)
                return
            number = id(batch)
            self.out_usd[number] = most
            try:
                answered = await self.client.ask(batch)
            except RemoteFailure as failure:
                self._failed(batch, failure)
                if failure.usd:
                    self._aside.saw(failure.usd, most, told=True)
            else:
                self._keep(batch, answered, alone=alone)
                self._aside.saw(answered.usd, most, told=answered.tokens_in > 0)
            finally:
                del self.out_usd[number]
                self._settled.set()

    async def _affordable(self, most: float) -> bool:
        """Wait until what is out leaves room for an answer; False where there will be none."""
        while self.stopped is None:
            out = sum(self.out_usd.values()) + most
            first = math.isfinite(self.max_usd) and not self._aside.known
            if self._spent + out * self._aside.share <= self.max_usd * (1 + 1e-9):
                if not first or not self.out_usd:
                    return True
            elif not self.out_usd:
                self.capped = True
                spent = f"{self._spent:.4g} of {self.max_usd:.4g} USD are spent"
                self.stopped = f"{spent}, and one more answer could cross that"
                return False
            self._settled.clear()
            await self._settled.wait()
        return False

    @property
    def _spent(self) -> float:
        return self.spent_before + self.client.usd

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
        if failure.usd and (failure.kind != "declined" or len(batch) > 1):
            for text in batch:
                self.kept.spend(text, failure.usd / len(batch))
        if failure.kind == "busy":
            self.waiting.appendleft(batch)
            if time.monotonic() - self.heard_at > BUSY_FOR_S:
                self.stopped = f"it has been busy for {BUSY_FOR_S / 60:.0f} minutes: {failure}"
            return
        if len(batch) > 1 and not failure.passes and failure.status not in _IN_VAIN:
            self.waiting.extend([text] for text in batch)  # one of them it is
            return
        if failure.kind == "declined":
            usd = max(failure.usd, self.client.model.usd(self.client.model.repeats))
            self.kept.add(batch[0], Kept(None, None, usd, 0.0, reason=failure.message))
            if failure.said and len(self.examples) < _EXAMPLES:
                self.examples.append(failure.said)
            self._heard(1)
            return
        self.in_a_row += 1
        kind = failure.kind if failure.status is None else f"{failure.kind} (HTTP {failure.status})"
        self.errors[kind] += len(batch)
        self.may_come += len(batch) if failure.passes else 0
        if failure.status in _IN_VAIN:
            self.stopped = str(failure)
        elif self.in_a_row >= max(_LEAST_IN_A_ROW, 2 * self.client.model.max_concurrency):
            self.stopped = f"{self.in_a_row} questions in a row failed, the last one: {failure}"
        elif self.errors.total() > self.most_errors:
            self.stopped = f"{self.errors.total():,} texts got no reply, the last one: {failure}"


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
        usd=sum(one.usd for one in answers.values()) + sum(map(run.kept.spent, run.texts)),
        usd_now=run.client.usd,
        tokens_in=sum(one.tokens_in for one in answers.values()),
        tokens_out=sum(one.tokens_out for one in answers.values()),
        calls=run.client.sent,
        failures=dict(run.client.failures),
        alone=np.array([text in run.asked_alone for text in texts], dtype=bool),
        declined=dict(Counter(one.reason for one in answers.values() if one.label is None)),
        errors=dict(run.errors),
        may_come=run.may_come,
        examples=tuple(run.examples),
        stopped=run.stopped,
        capped=run.capped,
    )
