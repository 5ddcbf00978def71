"""A small collector of OpenTelemetry traces: a real HTTP server that reads OTLP's protobuf."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class SpanSeen:
    """One span as it was exported."""

    name: str
    trace: str
    id: str
    parent: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    links: tuple[str, ...]
    process: int
    failed: bool


@dataclass
class Collector:
    """What has arrived so far."""

    url: str = ""
    spans: list[SpanSeen] = field(default_factory=list)
    arrived: threading.Condition = field(default_factory=threading.Condition)

    def of(self, trace: str, count: int, within_s: float = 20.0) -> dict[str, SpanSeen]:
        """Return a trace's spans by name, once there are so many of them."""
        until = time.monotonic() + within_s
        with self.arrived:
            while len(found := [span for span in self.spans if span.trace == trace]) < count:
                left = until - time.monotonic()
                assert left > 0, f"only {[span.name for span in found]} of {count} spans"
                self.arrived.wait(left)
        return {span.name: span for span in found}

    def take(self, body: bytes) -> None:
        """Read one export."""
        request = ExportTraceServiceRequest.FromString(body)
        with self.arrived:
            for resource in request.resource_spans:
                about = {entry.key: entry.value for entry in resource.resource.attributes}
                for scope in resource.scope_spans:
                    self.spans += [_read(span, about["process.pid"].int_value) for span in scope.spans]
            self.arrived.notify_all()


def _read(span: Any, process: int) -> SpanSeen:
    return SpanSeen(
        name=span.name,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes={
            entry.key: entry.value.string_value or entry.value.int_value for entry in span.attributes
        },
        links=tuple(link.span_id.hex() for link in span.links),
        process=process,
        failed=span.status.code == 2,
    )


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector on a free port of loopback."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.take(gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        collector.url = f"http://127.0.0.1:{server.server_port}/v1/traces"
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()
