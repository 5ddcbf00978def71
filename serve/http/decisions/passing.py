"""Passing questions on to the upstream: what is sent, what comes back, and how it is counted."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import orjson

from contract.errors import RequestError
from contract.metrics import Outcome
from serve.access.charging import Charging
from serve.access.gate import Gate
from serve.http.decisions.call import Call
from serve.http.decisions.replies import told_in_headers
from serve.settings.limits import RequestLimits
from serve.types.clock import Clock
from serve.types.prices import Prices
from serve.types.recorder import Recorder, RequestRecord
from serve.upstream.client import UPSTREAM, Sent, Upstream
from serve.wire.common import Reply
from serve.wire.decisions.errors import NoUsableAnswer
from serve.wire.decisions.forms import Found
from serve.wire.errors import outcome_of

log = logging.getLogger(__name__)


class Passing:
    """Asks the upstream what nobody here answers.

    Args:
        upstream: that is asked.
        limits: how long a request may take.
        recorder: told of what was answered and what was not, as of a model named `upstream`.
        gate: whose keys are charged, and which says whether there are any.
        clock: the data plane's.
    """

    def __init__(
        self, upstream: Upstream, limits: RequestLimits, recorder: Recorder, gate: Gate, clock: Clock
    ) -> None:
        self._upstream = upstream
        self._limits = limits
        self._recorder = recorder
        self._gate = gate
        self._clock = clock
        self._charging = recorder if gate.accounts is None else Charging(gate.accounts, recorder)
        price = upstream.usd_per_question
        self.usd_per_question = 0.0 if price is None else price
        self._prices = None if price is None else Prices({UPSTREAM: price}, UPSTREAM)
        self._told = False

    async def ask(self, call: Call) -> Reply | Found:
        """Return the upstream's reply where it is the client's as it is, else the answers that are in it.

        A request of which nothing is answered here goes on as it came, and so does its reply; a refusal
        always does. Raises RequestError.
        """
        form, asked = call.form, call.asked
        whole = not call.requests
        try:
            body = call.body if whole and not asked.own else form.part(asked, call.left)
            reply = await self._sent(call, body)
            if reply.status != 200:
                outcome: Outcome = "client_error" if reply.status < 500 else "server_error"
                self._recorder.refused(UPSTREAM, outcome, len(call.left))
                return _marked(reply)
            found = form.answers_in(reply.body, [asked.questions[position] for position in call.left])
            if not whole and not _is_usable(found):
                log.error("the upstream's reply does not answer the questions that it was asked")
                self._charging.spent(self._record(call, None))
                raise NoUsableAnswer("the upstream gave no usable answer")
        except RequestError as problem:
            self._recorder.refused(UPSTREAM, outcome_of(problem), len(call.left))
            raise
        self._charging.answered(self._record(call, found))
        return _marked(reply) if found is None or whole else found

    def check_price(self) -> None:
        """Say once that a key's limit in USD does not count what is asked here, where that is so."""
        if self._prices is None and not self._told:
            self._told = True
            log.warning("a key is limited in USD, and upstream.usd_per_1k does not say what it spends there")

    async def _sent(self, call: Call, body: bytes) -> Reply:
        """Return the upstream's reply; what may be paid for is the key's, with an answer or without."""
        sent = Sent(
            call.form.upstream, body, call.pairs, call.identity, self._left_s(call), self._gate.keyed,
            call.caller,
        )  # fmt: skip
        try:
            reply = await self._upstream.ask(sent)
        except (RequestError, asyncio.CancelledError):
            call.paid = sent.paid
            if sent.paid:
                self._charging.spent(self._record(call, None))
            raise
        call.paid = sent.paid
        return reply

    def _left_s(self, call: Call) -> float:
        """Return how many seconds are left to answer a request."""
        most, asked_s = self._limits.max_seconds, call.asked.timeout_s
        within_s = most if asked_s is None else min(asked_s, most)
        return max(0.0, within_s - (self._clock() - call.arrived_at))

    def _record(self, call: Call, found: Found | None) -> RequestRecord:
        confidences = [0.0] * len(call.left) if found is None else [_confidence(one) for one in found[0]]
        return RequestRecord(
            UPSTREAM,
            [UPSTREAM] * len(call.left),
            confidences,
            self._clock() - call.arrived_at,
            caller=call.caller,
            first=UPSTREAM,
            prices=self._prices,
        )


def _marked(reply: Reply) -> Reply:
    """Return a reply of the upstream with the headers that say whose it is."""
    reply.headers = (*told_in_headers([UPSTREAM], [], [], escalated=False), *reply.headers)
    return reply


def _is_usable(found: Found | None) -> bool:
    """Return whether answers are there, and can be written: JSON may be read that is nested too deeply."""
    try:
        orjson.dumps(found)
    except orjson.JSONEncodeError:
        return False
    return found is not None


def _confidence(answer: Any) -> float:
    """Return how sure an upstream is of an answer in either form; 0 where it does not say."""
    for name in ("confidence", "probability", "noul"):
        found = answer.get(name)
        if type(found) in {int, float} and 0 <= found <= 1:
            return float(found if name == "confidence" else max(found, 1 - found))
    return 0.0
