"""Asks a model behind HTTP: one pool of connections, bounded in time, in number and in what is sent again."""

from __future__ import annotations

import asyncio
import json
import math
import os
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import httpx

from contract.errors import FailureKind, RemoteFailure
from contract.remote import RemoteModel
from runtime.remote.answered import Answered, agreed, joined
from runtime.remote.cookies import no_cookies
from runtime.remote.estimate import most_usd_of
from runtime.remote.forms import form_of
from runtime.remote.forms.said import Said, tokens_of
from runtime.remote.keys import headers_of
from runtime.remote.rate import Rate
from runtime.remote.retrying import Retries, retry_after_s

MOST_BYTES = 8 << 20
CONNECT_S = 5.0
_KEPT_S = 60.0
_TOLD = 200

T = TypeVar("T")


@dataclass
class _Call:
    """One call of `ask`: until when, further tries, whether time ends a request, and what replies cost."""

    until: float
    retries: int
    ends: bool
    usd: float = 0.0


class RemoteClient:
    """Asks one model for one label set; for one event loop.

    Args:
        model: how it is asked.
        labels: the family's; class indices point into it.
        max_concurrency: requests out at a time, in place of the record's.
        transport: in place of the network, in tests.
        clock: seconds.

    Attributes:
        sent: requests sent so far.
        failures: those that failed, by kind.
        usd: what all replies cost, those too that are no answer.

    Raises:
        InputError: the record does not fit the labels.
        EnvironmentProblem: its key is not to be found here.
    """

    def __init__(
        self,
        model: RemoteModel,
        labels: tuple[str, ...],
        *,
        max_concurrency: int | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model = model
        self.labels = labels
        self.sent = 0
        self.failures: Counter[FailureKind] = Counter()
        self.usd = 0.0
        self._form = form_of(model, labels)
        self._key = headers_of(model.credentials)
        self._clock = clock
        self._retries = Retries()
        self._rate = Rate(model.max_per_s, clock)
        most = max_concurrency or model.max_concurrency
        self.max_concurrency = most
        self._places = asyncio.Semaphore(most)
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(None, connect=min(CONNECT_S, model.timeout_s)),
            limits=httpx.Limits(
                max_connections=most, max_keepalive_connections=most, keepalive_expiry=_KEPT_S
            ),
            headers={"content-type": "application/json", "accept": "application/json"},
            transport=transport,
            proxy=model.proxy,
            verify=_trusted(),
            trust_env=False,
            cookies=no_cookies(),
        )

    @property
    def batch(self) -> int:
        """Texts that one request may carry."""
        return self._form.batch

    async def ask(
        self,
        texts: Sequence[str],
        *,
        patience_s: float | None = None,
        retries: int | None = None,
        ends: bool = True,
    ) -> Answered:
        """Return the answers to N >= 1 texts.

        Args:
            texts: what is classified; more than one request where the form takes fewer.
            patience_s: seconds after which nobody wants them; waits for a busy server are within it.
            retries: further tries of each request, in place of the record's.
            ends: whether a request that is out ends with the patience; else the record's `timeout_s` alone
                bounds it, and none is begun without patience.

        Raises:
            RemoteFailure: a request failed for good. Other replies are lost; its `usd` has what all cost.
        """
        until = math.inf if patience_s is None else self._clock() + patience_s
        call = _Call(until, self.model.retries if retries is None else retries, ends)
        size, repeats = self._form.batch, self.model.repeats
        parts = [texts[start : start + size] for start in range(0, len(texts), size)]
        asked = [self._question(part, call) for part in parts for _ in range(repeats)]
        try:
            found = [await asked[0]] if len(asked) == 1 else await _all(asked)
        except RemoteFailure as failure:
            failure.usd = call.usd
            raise
        replies, classes = [said for said, _ in found], len(self.labels)
        said = joined(
            [agreed(replies[i : i + repeats], classes) for i in range(0, len(replies), repeats)], classes
        )
        return Answered(
            said.labels,
            said.probabilities,
            call.usd,
            max(seconds for _, seconds in found),
            said.tokens_in,
            said.tokens_out,
        )

    async def problem(self) -> str | None:
        """Return why the server cannot be reached; None where anything at all answers. Costs nothing."""
        path = "/v2/health/live" if self.model.form == "oip" else ""
        try:
            async with asyncio.timeout(CONNECT_S):
                await self._http.get(f"{self.model.url}{path}", headers=self._key)
        except TimeoutError:
            return "no reply in time"
        except httpx.HTTPError as problem:
            return _words(problem)
        return None

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _question(self, texts: Sequence[str], call: _Call) -> tuple[Said, float]:
        self._retries.begun()
        attempt = 0
        while True:
            attempt += 1
            await self._pause(call.until)
            async with self._places:
                await self._rate.turn(call.until)
                try:
                    found = await self._once(texts, call)
                except RemoteFailure as failure:
                    wait_s = self._wait_s(failure, attempt, call)
                    if wait_s is None:
                        raise
                else:
                    self._retries.answered()
                    return found
            await asyncio.sleep(wait_s)

    def _wait_s(self, failure: RemoteFailure, attempt: int, call: _Call) -> float | None:
        """Note a failure; return how long to wait before the next try, None where there is none."""
        now = self._clock()
        self.failures[failure.kind] += 1
        self._retries.failed(failure, now)
        wait_s = self._retries.again_s(failure, attempt) if attempt <= call.retries else None
        return None if wait_s is None or now + wait_s >= call.until else wait_s

    async def _pause(self, until: float) -> None:
        """Wait until the server may be asked again, after a pause that it wants."""
        while (wait_s := self._retries.resumes_at - self._clock()) > 0:
            if self._retries.resumes_at >= until:
                raise RemoteFailure(
                    "busy", f"{self.model.model} is busy for {wait_s:.1f} s more", retry_after_s=wait_s
                )
            await asyncio.sleep(wait_s)

    async def _once(self, texts: Sequence[str], call: _Call) -> tuple[Said, float]:
        began = self._clock()
        left_s = call.until - began
        if left_s <= 0:
            raise RemoteFailure("late", "no time is left to ask")
        limit_s = min(self.model.timeout_s, left_s) if call.ends else self.model.timeout_s
        content = json.dumps(self._form.body(texts), ensure_ascii=False).encode("utf-8", "replace")
        self.sent += 1
        try:
            async with asyncio.timeout(limit_s):
                status, headers, body = await self._post(content)
                if status == 401 and self._renewed():
                    status, headers, body = await self._post(content)
        except TimeoutError:
            raise RemoteFailure("late", f"no reply within {limit_s:.3g} s") from None
        except httpx.TimeoutException as problem:
            raise RemoteFailure("unreachable", _words(problem)) from None
        except httpx.HTTPError as problem:
            raise RemoteFailure("unreachable", _words(problem)) from None
        if status != 200:
            raise failure_of(status, headers, body)
        try:
            reply = json.loads(body)
        except (ValueError, RecursionError):
            raise RemoteFailure("unreadable", "the reply is no JSON", status=status) from None
        tokens = self._tokens(reply) if isinstance(reply, dict) else (0, 0)
        if isinstance(reply, dict):
            usd = self._most_usd(texts) if tokens is None else self.model.usd(len(texts), *tokens)
            self.usd += usd
            call.usd += usd
        told_in, told_out = tokens or (0, 0)
        said = replace(self._form.read(reply, len(texts)), tokens_in=told_in, tokens_out=told_out)
        return said, self._clock() - began

    def _tokens(self, reply: dict[str, Any]) -> tuple[int, int] | None:
        """Return the tokens in and out that a reply tells; None where one that has a price is not told."""
        tokens_in, tokens_out = tokens_of(reply)
        _, each_in, each_out = self.model.price or (0.0, 0.0, 0.0)
        if (each_in and tokens_in is None) or (each_out and tokens_out is None):
            return None
        return tokens_in or 0, tokens_out or 0

    def _most_usd(self, texts: Sequence[str]) -> float:
        """Return what a reply to one request may cost at most, for one that does not tell."""
        return sum(map(self._most, texts)) / self.model.repeats

    @cached_property
    def _most(self) -> Callable[[str], float]:
        return most_usd_of(self.model, self.labels)

    async def _post(self, content: bytes) -> tuple[int, httpx.Headers, bytes]:
        url = f"{self.model.url}{self._form.path}"
        async with self._http.stream("POST", url, content=content, headers=self._key) as reply:
            parts, size = [], 0
            async for part in reply.aiter_bytes():
                size += len(part)
                if size > MOST_BYTES:
                    raise RemoteFailure("unreadable", f"the reply is larger than {MOST_BYTES >> 20} MiB")
                parts.append(part)
            return reply.status_code, reply.headers, b"".join(parts)

    def _renewed(self) -> bool:
        """Read the key again, which may have been replaced; return whether it was."""
        before, self._key = self._key, headers_of(self.model.credentials)
        return before != self._key


async def _all(asked: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Return the results of all; once one fails the others are cancelled, and its failure raised."""
    tasks = [asyncio.ensure_future(one) for one in asked]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def failure_of(status: int, headers: httpx.Headers, body: bytes) -> RemoteFailure:
    """Return the failure that a reply of another status than 200 is."""
    after = retry_after_s(headers.get("retry-after"))
    kind: FailureKind
    hint = None
    if status in {429, 529} or (status == 503 and after is not None):
        kind = "busy"
    elif status == 408:
        kind = "late"
    elif status >= 500:
        kind = "broken"
    else:
        kind = "rejected"
    told = ""
    if status in {401, 403}:
        hint = "`credentials` of the remote model: the variable or file that holds its key"
    elif status == 404:
        hint = "`url`, `form` and `model` of the remote model"
    else:
        told = f": {' '.join(body[:_TOLD].decode('utf-8', 'replace').split())}" if body else ""
    return RemoteFailure(kind, f"HTTP {status}{told}", status=status, retry_after_s=after, hint=hint)


def _trusted() -> ssl.SSLContext | bool:
    """Return the certificates to trust: those of SSL_CERT_FILE or SSL_CERT_DIR, else the usual ones."""
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    return ssl.create_default_context(cafile=file, capath=folder) if file or folder else True


def _words(problem: httpx.HTTPError) -> str:
    if isinstance(problem, httpx.RemoteProtocolError):  # its words quote what the server sent
        return type(problem).__name__
    return f"{type(problem).__name__}: {problem}" if str(problem) else type(problem).__name__


class SyncClient:
    """A client for callers without an event loop: it has one in a thread of its own. Safe for threads.

    Takes the arguments of RemoteClient, and raises as it does.
    """

    def __init__(self, model: RemoteModel, labels: tuple[str, ...], **options: Any) -> None:
        self._client = RemoteClient(model, labels, **options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="remote-model", daemon=True)
        self._thread.start()

    @property
    def model(self) -> RemoteModel:
        """How it is asked."""
        return self._client.model

    def ask(
        self, texts: Sequence[str], *, patience_s: float | None = None, retries: int | None = None
    ) -> Answered:
        """Return the answers to N >= 1 texts; see RemoteClient.ask."""
        return self._run(self._client.ask(texts, patience_s=patience_s, retries=retries))

    def problem(self) -> str | None:
        """Return why the server cannot be reached; see RemoteClient.problem."""
        return self._run(self._client.problem())

    def close(self) -> None:
        """Close the connections and end the thread."""
        if self._loop.is_closed():
            return
        self._run(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
