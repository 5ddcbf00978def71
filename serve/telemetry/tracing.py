"""OpenTelemetry traces: one per request, from the client's traceparent to the batch in the stage's worker.

    POST /v1/classify                    the request; its parent is the client's span, if it sent one
      stage linear                       asking a stage, as seen from the gateway replica
        queue, inference
      stage teacher                      the same for a stage behind a handle
        serve teacher                    as seen from the stage's replica
          queue, inference

A batch carries several requests: `batch V` lies in the trace of the first and is linked to all of them, and
each `inference` to it. Nothing here runs unless tracing is on and the request is sampled.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from contract.errors import EnvironmentProblem
from runtime.api import Logits
from serve.settings.traces import TraceSettings
from serve.types.current import SPAN
from serve.types.priority import DEFAULT_PRIORITY
from serve.types.recorder import BatchRecord
from serve.types.stage import Stage, StageAround

if TYPE_CHECKING:
    from opentelemetry.trace import Span

_TRACE_HEADERS = (b"traceparent", b"tracestate")


class Tracing:
    """Makes the spans of one process and sends them to the collector.

    Args:
        settings: with an endpoint.
        process: what this process is.

    Raises:
        EnvironmentProblem: the extra is not installed.
    """

    def __init__(self, settings: TraceSettings, process: str) -> None:
        check_can_trace(settings)
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

        resource = Resource.create(
            {
                "service.name": settings.service,
                "service.instance.id": f"{process}-{os.getpid()}",
                "process.pid": os.getpid(),
            }
        )
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(settings.ratio)), resource=resource, shutdown_on_exit=True
        )
        exporter = OTLPSpanExporter(endpoint=settings.endpoint)
        self._provider.add_span_processor(
            BatchSpanProcessor(exporter, schedule_delay_millis=settings.every_s * 1e3)
        )
        self._tracer = self._provider.get_tracer("sluicegate")

    def request(self, name: str, carried: Mapping[str, str]) -> Span:
        """Return the span of a request that came with these trace headers; recording only where sampled."""
        from opentelemetry.trace import SpanKind

        return self._tracer.start_span(name, _received(carried), kind=SpanKind.SERVER)

    def inner(self, name: str, parent: Span, texts: int, start_ns: int | None = None) -> Span:
        """Return a span within another."""
        from opentelemetry.trace import set_span_in_context

        return self._tracer.start_span(
            name,
            set_span_in_context(parent),
            attributes={"sluice.texts": texts},
            start_time=start_ns,
        )

    def batch(self, record: BatchRecord) -> None:
        """Make the spans of a batch in which traced requests were."""
        # Batches are on the monotonic clock, spans on the calendar's.
        began_ns = time.time_ns() - int((time.monotonic() - record.started_at) * 1e9)
        ended_ns = began_ns + int(record.inference_s * 1e9)
        members = [
            (span, waited_s)
            for span, waited_s in zip(record.spans, record.queue_s, strict=True)
            if span is not None
        ]
        whole = self.inner(f"batch {record.variant}", members[0][0], record.items, began_ns)
        for span, _ in members:
            whole.add_link(span.get_span_context())
        whole.end(ended_ns)
        for span, waited_s in members:
            waiting = self.inner("queue", span, record.items, began_ns - int(waited_s * 1e9))
            waiting.end(began_ns)
            inference = self.inner("inference", span, record.items, began_ns)
            inference.add_link(whole.get_span_context())
            inference.end(ended_ns)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def check_can_trace(settings: TraceSettings) -> None:
    """Raise EnvironmentProblem where traces are asked for and the extra is not installed."""
    if settings.endpoint is None:
        return
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace  # noqa: F401
    except ImportError as problem:
        raise EnvironmentProblem(
            f"traces need a package that is not installed: {problem.name}",
            hint="pip install 'sluicegate[otel]'",
        ) from problem


def carried_by(span: Span | None) -> dict[str, str] | None:
    """Return the W3C headers that carry a span to another process; None without one."""
    if span is None:
        return None
    from opentelemetry.trace import set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    headers: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(headers, set_span_in_context(span))
    return headers


def trace_headers(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return the W3C headers among ASGI's."""
    return {name.decode(): value.decode("latin-1") for name, value in pairs if name in _TRACE_HEADERS}


def fail(span: Span, problem: BaseException) -> None:
    """Mark a span as failed: by the kind of problem, since its words may quote a text."""
    from opentelemetry.trace import Status, StatusCode

    span.set_status(Status(StatusCode.ERROR, type(problem).__name__))


def _received(carried: Mapping[str, str]) -> Any:
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract(carried, Context())


class TracedStage(StageAround):
    """A stage whose asking is a span of the request's trace, where the request has one."""

    def __init__(self, stage: Stage, tracing: Tracing) -> None:
        super().__init__(stage)
        self._tracing = tracing
        self._name = f"stage {stage.variant}"

    async def logits(
        self,
        texts: Sequence[str],
        deadline_at: float | None,
        due_at: float | None = None,
        priority: int = DEFAULT_PRIORITY,
    ) -> Logits:
        """Return float32 logits [N, C]; see serve.types.stage.Stage."""
        parent = SPAN.get()
        if parent is None:
            return await self._stage.logits(texts, deadline_at, due_at, priority)
        span = self._tracing.inner(self._name, parent, len(texts))
        token = SPAN.set(span)
        try:
            return await self._stage.logits(texts, deadline_at, due_at, priority)
        except BaseException as problem:
            fail(span, problem)
            raise
        finally:
            SPAN.reset(token)
            span.end()

    def logits_now(self, texts: Sequence[str], deadline_at: float | None) -> Logits | None:
        """Return what the stage does; None for a traced request, which shows each part of its way."""
        return None if SPAN.get() is not None else self._stage.logits_now(texts, deadline_at)
