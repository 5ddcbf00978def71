"""The collector of one process: takes what was answered, and writes it in a thread of its own.

The path of a request only puts two byte strings into a queue. Reading them, redaction and writing follow
later; a process that is killed loses what its part does not hold yet: at most `part_rows` rows, of at most
`part_s` seconds, and the answers that still wait to be read.
"""

from __future__ import annotations

import logging
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from contract.collected import CollectedRow, Question, Source
from contract.errors import BadRequest, SluiceError
from serve.settings.collect import CollectSettings
from tables.collected.store import CollectedStore

log = logging.getLogger(__name__)

_TIDY_EVERY_S = 600.0
_MOST_QUESTIONS = 1000
"""Who puts each text into the instructions asks as many questions as texts; none could be learnt."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer to one question about one text, as read off the wire.

    Attributes:
        probabilities: by label of the question; None where none came.
    """

    question: Question
    text: str
    answer: str
    probabilities: tuple[float, ...] | None
    model: str = ""
    usd: float | None = None
    upstream: str = ""


Reading = Callable[[], Iterable[Answered]]
"""Reads what waits; called in the collector's thread. May raise SluiceError for what it cannot read."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    read: Reading
    at_s: float
    latency_ms: float
    source: Source
    size: int


class Collector:
    """Keeps answers. `offer` never waits and never raises; the rest is done elsewhere.

    Args:
        settings: where, by which rules, and how much may be lost.
        clock: Unix seconds.

    Attributes:
        kept: rows written.
        dropped: answers that were not kept: no room, or no way to read or write them.
    """

    def __init__(self, settings: CollectSettings, *, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._store = CollectedStore.create(Path(settings.folder), settings.rules)
        self._clock = clock
        self._queue: queue.SimpleQueue[_Waiting | threading.Event] = queue.SimpleQueue()
        self._writer = secrets.token_hex(6)
        self._parts = 0
        self._rows: list[CollectedRow] = []
        self._due_at = float("inf")
        self._known: dict[str, float] = {}
        self._closing = False
        self._told = False
        self._waiting_bytes = 0
        self._room = threading.Lock()
        self.kept = 0
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="collector", daemon=True)
        self._thread.start()

    def offer(self, read: Reading, latency_ms: float, source: Source = "passed", size: int = 0) -> None:
        """Have an answer kept, if there is room.

        Args:
            read: reads it.
            latency_ms: until it came.
            source: how it came.
            size: bytes that are held until it is read.
        """
        settings = self._settings
        if (
            self._queue.qsize() >= settings.max_waiting
            or self._waiting_bytes + size > settings.max_waiting_bytes
        ):
            self.dropped += 1
            return
        with self._room:
            self._waiting_bytes += size
        self._queue.put(_Waiting(read, self._clock(), latency_ms, source, size))

    def flush(self, timeout_s: float = 30.0) -> bool:
        """Return once all that was offered before has been written; False where that took too long."""
        written = threading.Event()
        self._queue.put(written)
        return written.wait(timeout_s)

    def close(self, timeout_s: float = 30.0) -> None:
        """Write what is there, and end."""
        self._closing = True
        self.flush(timeout_s)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        tidied_at = float("-inf")
        while True:
            waits_s = min(self._due_at - time.monotonic(), _TIDY_EVERY_S)
            try:
                found = self._queue.get(timeout=max(0.0, waits_s))
            except queue.Empty:
                found = None
            if isinstance(found, _Waiting):
                self._take(found)
            ends = isinstance(found, threading.Event)
            if ends or len(self._rows) >= self._settings.part_rows or time.monotonic() >= self._due_at:
                self._write()
            if isinstance(found, threading.Event):
                found.set()
                if self._closing:
                    return
            if time.monotonic() - tidied_at >= _TIDY_EVERY_S:
                tidied_at = time.monotonic()
                self._tidy()

    def _take(self, waiting: _Waiting) -> None:
        """Read an answer into rows."""
        try:
            for answered in waiting.read():
                self._rows.append(self._row(answered, waiting))
        except SluiceError as problem:
            self.dropped += 1
            log.debug("an answer cannot be kept: %s", problem)
        except Exception:
            self.dropped += 1
            log.exception("an answer could not be read in a way that none should")
        with self._room:
            self._waiting_bytes -= waiting.size
        if self._rows and self._due_at == float("inf"):
            self._due_at = time.monotonic() + self._settings.part_s

    def _row(self, answered: Answered, waiting: _Waiting) -> CollectedRow:
        rules = self._store.rules
        self._check_length(answered)
        question = answered.question.redacted(rules)
        if question.sha256 not in self._known and len(self._known) >= _MOST_QUESTIONS:
            raise BadRequest(f"more than {_MOST_QUESTIONS} questions were asked")
        if self._known.get(question.sha256, float("-inf")) < time.monotonic() - _TIDY_EVERY_S:
            self._store.remember(question)
            self._known[question.sha256] = time.monotonic()
        text = rules.redacted(answered.text)
        return CollectedRow(
            id=f"{self._writer}-{self._parts}-{len(self._rows)}",
            at_s=waiting.at_s,
            question=question.sha256,
            text_sha256=self._store.hash_of(text),
            text=text if rules.texts else None,
            answer=answered.answer,
            probabilities=answered.probabilities,
            model=answered.model,
            usd=answered.usd,
            latency_ms=waiting.latency_ms,
            source=waiting.source,
            upstream=answered.upstream,
        )

    def _check_length(self, answered: Answered) -> None:
        """Raise BadRequest for what is too long to look for patterns in, which would hold up requests."""
        question, most = answered.question, self._settings.max_redacted_characters
        words = (answered.text, question.instructions, question.name, *question.labels)
        if self._store.rules.redact and any(
            len(one) > most for one in (*words, *question.descriptions.values())
        ):
            raise BadRequest(f"more than {most} characters to look for patterns in")

    def _write(self) -> None:
        rows, self._rows, self._due_at = self._rows, [], float("inf")
        if not rows:
            return
        try:
            self._store.add(rows, f"w{self._writer}_{self._parts}")
        except OSError as problem:
            self.dropped += len(rows)
            if not self._told:
                log.warning(
                    "what was answered elsewhere cannot be kept in %s: %s", self._store.folder, problem
                )
            self._told = True
            return
        finally:
            self._parts += 1
        self.kept += len(rows)
        self._told = False

    def _tidy(self) -> None:
        try:
            self._store.tidy(self._clock())
        except (OSError, SluiceError) as problem:
            log.warning("%s was not tidied: %s", self._store.folder, problem)
