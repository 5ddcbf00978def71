"""Traces: one per request, from the client's span to the batch, and nothing of what is not sampled."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace

import httpx
import pytest

from contract.errors import EnvironmentProblem
from serve.dataplane.plane import DataPlane
from serve.http.app import Gateway
from serve.settings.gateway import Settings
from serve.settings.limits import RequestLimits
from serve.settings.logs import LogSettings
from serve.settings.stages import FakeSettings
from serve.settings.traces import TraceSettings
from serve.telemetry.observer import Observer, make_observer, note_caller
from serve.telemetry.request_log import RequestLog
from serve.telemetry.tracing import Tracing, carried_by
from serve.types.current import OBSERVED, SPAN
from serve.types.recorder import NoRecorder
from tests.serve.parts import FakeFolder, serving, snapshot_of, two_stage_policy
from tests.serve.telemetry.collector import Collector, SpanSeen, collecting


@dataclass(frozen=True)
class Traced:
    """A gateway whose traces go to a collector."""

    url: str
    collector: Collector


@pytest.fixture(scope="module")
def traced(fake_folder: FakeFolder) -> Iterator[Traced]:
    """The gateway on the fake family, all stages inside, traced where the client says so."""
    with collecting() as collector:
        settings = Settings(
            fake=FakeSettings(),
            log=LogSettings(requests="all"),
            traces=TraceSettings(endpoint=collector.url, ratio=0.0, every_s=0.05),
        )
        observer = make_observer(settings, "test")
        assert observer is not None
        recorder = observer.recorder(NoRecorder())
        inner = snapshot_of(fake_folder, two_stage_policy(), recorder)
        snapshot = replace(inner, stages=observer.stages(inner.stages))
        plane = DataPlane(lambda: snapshot, RequestLimits(), recorder)
        with serving(Gateway(plane, RequestLimits(), recorder, lambda: b"", observer=observer)) as url:
            yield Traced(url, collector)
        observer.close()


def parent_of(trace: str, *, sampled: bool = True) -> tuple[str, dict[str, str]]:
    """A client's span and the headers that tell of it."""
    span = secrets.token_hex(8)
    return span, {"traceparent": f"00-{trace}-{span}-{sampled:02x}", "tracestate": "shop=7"}


def ask(traced: Traced, text: str, headers: dict[str, str], model: str = "cascade") -> httpx.Response:
    """One request."""
    return httpx.post(f"{traced.url}/v1/classify", json={"inputs": text, "model": model}, headers=headers)


def test_a_sampled_request_is_one_trace_with_the_right_parents(traced: Traced) -> None:
    """The client's span is the parent of the request, which is the parent of the stage, and so on."""
    trace = secrets.token_hex(16)
    client, headers = parent_of(trace)
    reply = ask(traced, "sport: story 1", headers | {"x-request-id": "order-7"}, model="fake-large")
    assert reply.status_code == 200
    spans = traced.collector.of(trace, 5)
    request, stage = spans["POST /v1/classify"], spans["stage fake-large"]
    assert request.parent == client
    assert stage.parent == request.id
    assert spans["queue"].parent == spans["inference"].parent == stage.id
    assert spans["batch fake-large"].links == (stage.id,)
    assert spans["inference"].links == (spans["batch fake-large"].id,)
    assert request.attributes["sluice.request_id"] == "order-7"
    assert request.attributes["sluice.variants"] == "fake-large"
    assert request.attributes["http.response.status_code"] == 200


def test_times_of_parts_lie_within_those_of_the_whole(traced: Traced) -> None:
    """Queueing ends where inference begins, and both lie within the request."""
    trace = secrets.token_hex(16)
    ask(traced, "sport: story 2", parent_of(trace)[1], model="fake-large")
    spans = traced.collector.of(trace, 5)
    whole, queue, inference = spans["POST /v1/classify"], spans["queue"], spans["inference"]
    slack_ns = 5_000_000  # batches are timed by another clock than spans
    assert whole.start_ns - slack_ns <= queue.start_ns <= queue.end_ns == inference.start_ns
    assert inference.start_ns <= inference.end_ns <= whole.end_ns + slack_ns


def test_what_the_client_does_not_sample_is_not_exported(traced: Traced) -> None:
    """The flag in traceparent decides, and without one the ratio, which is 0 here."""
    silent, sampled = secrets.token_hex(16), secrets.token_hex(16)
    ask(traced, "sport: story 3", parent_of(silent, sampled=False)[1])
    ask(traced, "sport: story 4", {})
    ask(traced, "sport: story 5", {"traceparent": "00-nonsense"})
    ask(traced, "sport: story 6", parent_of(sampled)[1], model="fake-large")
    traced.collector.of(sampled, 5)
    assert silent not in {span.trace for span in traced.collector.spans}
    assert all(span.parent for span in traced.collector.spans), "no trace begins here"
    assert "story" not in str(traced.collector.spans)


def test_a_refusal_is_traced_without_words(traced: Traced) -> None:
    """The status is there; what the client sent is not."""
    trace = secrets.token_hex(16)
    ask(traced, "sport: story 7", parent_of(trace)[1], model="my-secret-model")
    request = traced.collector.of(trace, 1)["POST /v1/classify"]
    assert request.attributes["http.response.status_code"] == 404
    assert "secret" not in str(request)


def test_requests_of_one_batch_share_its_span(traced: Traced) -> None:
    """A batch is linked to every traced request in it, and each inference to the batch."""
    traces = [secrets.token_hex(16) for _ in range(24)]

    async def burst() -> None:
        async with httpx.AsyncClient(base_url=traced.url) as client:
            await asyncio.gather(
                *(
                    client.post(
                        "/v1/classify",
                        json={"inputs": f"tech: {trace}", "model": "fake-large"},
                        headers=parent_of(trace)[1],
                    )
                    for trace in traces
                )
            )

    asyncio.run(burst())
    seen: list[SpanSeen] = []
    for trace in traces:
        traced.collector.of(trace, 4)
    seen = [span for span in traced.collector.spans if span.trace in traces]
    stages = {span.id for span in seen if span.name == "stage fake-large"}
    batches = {span.id: span for span in seen if span.name == "batch fake-large"}
    linked = [link for batch in batches.values() for link in batch.links]
    assert sorted(linked) == sorted(stages)
    assert all(span.links[0] in batches for span in seen if span.name == "inference")


def test_the_line_of_a_request_names_its_trace(traced: Traced, caplog: pytest.LogCaptureFixture) -> None:
    """Also where it is not sampled, so that lines of several services can be put side by side."""
    trace = secrets.token_hex(16)
    with caplog.at_level(logging.INFO, logger="serve.requests"):
        ask(traced, "sport: story 8", parent_of(trace, sampled=False)[1])
    [record] = [r for r in caplog.records if r.name == "serve.requests"]
    fields = record.fields  # type: ignore[attr-defined]
    assert (fields["trace_id"], fields["status"], fields["model"]) == (trace, 200, "cascade")
    assert "story" not in json.dumps(fields)


def test_what_is_carried_on_is_w3c_and_keeps_the_clients_state(traced: Traced) -> None:
    """The next process is told of our span as its parent, and of the client's tracestate as it came."""
    settings = TraceSettings(endpoint=traced.collector.url, ratio=0.0)
    tracing = Tracing(settings, "test")
    try:
        trace = secrets.token_hex(16)
        span = tracing.request("POST /v1/classify", parent_of(trace)[1])
        headers = carried_by(span)
    finally:
        tracing.close()
    assert headers is not None
    version, id_, parent, flags = headers["traceparent"].split("-")
    assert (version, id_, flags) == ("00", trace, "01")
    assert parent == f"{span.get_span_context().span_id:016x}"
    assert headers["tracestate"] == "shop=7"


def test_whose_key_was_refused_is_in_the_line(caplog: pytest.LogCaptureFixture) -> None:
    """A request beyond the limits of its key has no answer, and a name all the same."""
    observer = Observer(RequestLog(LogSettings(requests="errors")), None)
    with caplog.at_level(logging.WARNING, logger="serve.requests"):
        watch = observer.watch("POST /v1/classify", [])
        note_caller("shop")
        watch.end(429, b"order-7", failed=True)
    [record] = caplog.records
    fields = record.fields  # type: ignore[attr-defined]
    assert (fields["key"], fields["status"]) == ("shop", 429)
    OBSERVED.set(None)


def test_off_means_that_nothing_is_there() -> None:
    """By default no process has an observer, and no task a span."""
    assert make_observer(Settings(fake=FakeSettings()), "test") is None
    assert SPAN.get() is None
    assert OBSERVED.get() is None


def test_an_observer_of_lines_alone_leaves_stages_as_they_are(fake_folder: FakeFolder) -> None:
    """Only traces are in the way of a stage."""
    stages = snapshot_of(fake_folder, two_stage_policy(), NoRecorder()).stages
    assert Observer(None, None).stages(stages) is stages


def test_traces_without_the_extra_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything starts, by the name of what to install."""
    import sys

    from serve.telemetry.tracing import check_can_trace

    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(EnvironmentProblem, match=r"sluicegate\[otel\]"):
        check_can_trace(TraceSettings(endpoint="http://127.0.0.1:4318/v1/traces"))
