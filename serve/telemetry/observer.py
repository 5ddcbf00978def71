"""What watches single requests: their lines in the log and their traces. Absent where neither is on."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from contract.metrics import Outcome
from serve.settings.gateway import Settings
from serve.telemetry.request_log import RequestLog
from serve.telemetry.tracing import TracedStage, Tracing, fail, trace_headers
from serve.types.current import OBSERVED, REQUEST_ID, SPAN, Observed
from serve.types.recorder import BatchRecord, PassingOn, Recorder, RequestRecord
from serve.types.stage import Stage


@dataclass(frozen=True)
class Observer:
    """Either part may be missing."""

    requests: RequestLog | None
    tracing: Tracing | None

    def watch(self, name: str, headers: Iterable[tuple[bytes, bytes]]) -> Watch:
        """Begin to watch a request that came with these headers; its span is called `name`."""
        return Watch(self, name, headers)

    def recorder(self, inner: Recorder, family: str = "") -> Recorder:
        """Return a recorder that notes what it is told of a family for whoever watches the request."""
        return _ObservingRecorder(inner, self.tracing, family)

    def stages(self, stages: Mapping[str, Stage]) -> Mapping[str, Stage]:
        """Return the stages, traced where traces are on."""
        if self.tracing is None:
            return stages
        return {name: TracedStage(stage, self.tracing) for name, stage in stages.items()}

    def close(self) -> None:
        """Send what is left."""
        if self.tracing is not None:
            self.tracing.close()


class Watch:
    """One request that is watched, from where it came in until its reply is there.

    As a context manager it ends a request that failed without a reply.
    """

    def __init__(self, observer: Observer, name: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self._observer = observer
        self._began = time.monotonic()
        self._observed = Observed()
        OBSERVED.set(self._observed)
        self._span = None
        self._ended = False
        if observer.tracing is not None:
            self._span = observer.tracing.request(name, trace_headers(headers))
        SPAN.set(self._span if self._span is not None and self._span.is_recording() else None)

    def end(self, status: int | str, identity: bytes, *, failed: bool) -> None:
        """The reply is there: HTTP's number or gRPC's name, the request's id, and whether it is an error."""
        self._ended = True
        span, observed = self._span, self._observed
        if span is not None:
            if span.is_recording():
                span.set_attributes(_attributes(observed, status, identity))
            span.end()
        if self._observer.requests is not None:
            trace_id = None if span is None else span.get_span_context().trace_id
            seconds = time.monotonic() - self._began
            self._observer.requests.write(observed, status, seconds, failed=failed, trace_id=trace_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ended:
            return
        if value is not None and self._span is not None:
            fail(self._span, value)
        self.end("none", REQUEST_ID.get(), failed=True)


def note_caller(name: str) -> None:
    """Note whose key came with the request that is watched here, answered or not."""
    observed = OBSERVED.get()
    if observed is not None:
        observed.caller = name


def _attributes(observed: Observed, status: int | str, identity: bytes) -> dict[str, str | int]:
    found: dict[str, str | int] = {
        "sluice.request_id": identity.decode(),
        "sluice.model": observed.model,
        "sluice.outcome": observed.outcome,
        "sluice.texts": len(observed.variants),
        "sluice.variants": ",".join(sorted(set(observed.variants))),
    }
    if isinstance(status, int):
        found["http.request.method"], found["http.response.status_code"] = "POST", status
    else:
        found["rpc.grpc.status"] = status
    if observed.family:
        found["sluice.family"] = observed.family
    if observed.caller:
        found["sluice.key"] = observed.caller
    return found


def make_observer(settings: Settings, process: str) -> Observer | None:
    """Return what watches requests in this process; None where nothing does."""
    tracing = None if settings.traces.endpoint is None else Tracing(settings.traces, process)
    requests = None if settings.log.requests == "none" else RequestLog(settings.log)
    if tracing is None and requests is None:
        return None
    return Observer(requests, tracing)


class _ObservingRecorder(PassingOn):
    def __init__(self, inner: Recorder, tracing: Tracing | None, family: str) -> None:
        super().__init__(inner)
        self._family = family
        self._tracing = tracing

    def answered(self, record: RequestRecord) -> None:
        """Note who answered."""
        observed = OBSERVED.get()
        if observed is not None:
            observed.model, observed.variants, observed.outcome = record.model, record.variants, "ok"
            observed.family = self._family
        super().answered(record)

    def refused(self, model: str, outcome: Outcome, texts: int) -> None:
        """Note that nobody did."""
        observed = OBSERVED.get()
        if observed is not None:
            observed.model, observed.outcome = model, outcome
            observed.family = self._family
        super().refused(model, outcome, texts)

    def limited(self, key: str, limit: str, texts: int) -> None:
        """Note who asked beyond a limit."""
        observed = OBSERVED.get()
        if observed is not None:
            observed.caller = key
        super().limited(key, limit, texts)

    def batch(self, record: BatchRecord) -> None:
        """Make the spans of a batch with traced requests."""
        if record.spans and self._tracing is not None:
            self._tracing.batch(record)
        super().batch(record)
