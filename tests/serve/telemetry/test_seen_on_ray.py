"""What can be seen of a gateway on Ray: one trace over the hop, one id everywhere, and no text anywhere."""

from __future__ import annotations

import json
import secrets
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.local.launcher import Handle
from tests.serve.telemetry.collector import Collector

pytestmark = pytest.mark.ray


def written(folder: Path) -> list[dict[str, Any]]:
    """Every line of every log so far."""
    return [json.loads(line) for file in folder.iterdir() for line in file.read_text().splitlines()]


def test_one_trace_leads_from_the_client_to_the_stage_worker(gateway: Handle, collector: Collector) -> None:
    """Over the hop too: the worker's batch lies in the trace that the client began."""
    trace, client = secrets.token_hex(16), secrets.token_hex(8)
    headers = {"traceparent": f"00-{trace}-{client}-01", "x-request-id": f"order-{trace}"}
    reply = httpx.post(
        f"{gateway.url}/v1/classify",
        json={"inputs": [f"sport: story {n}" for n in range(60)]},
        headers=headers,
    )
    assert {output["variant"] for output in reply.json()["outputs"]} == {"fake-small", "fake-large"}
    deadline = time.monotonic() + 20
    spans: dict[str, Any] = {}
    while "serve fake-large" not in spans or "POST /v1/classify" not in spans:
        assert time.monotonic() < deadline
        spans = collector.of(trace, len(spans) + 1)
    request, hop, served = spans["POST /v1/classify"], spans["stage fake-large"], spans["serve fake-large"]
    assert request.parent == client
    assert spans["stage fake-small"].parent == hop.parent == request.id
    assert served.parent == hop.id
    assert served.process != request.process
    assert request.attributes["sluice.request_id"] == f"order-{trace}"


def test_the_line_of_a_request_carries_its_id_and_trace(gateway: Handle, gateway_logs: Path) -> None:
    """The same id in the reply and in the log."""
    trace = secrets.token_hex(16)
    reply = httpx.post(
        f"{gateway.url}/v1/classify",
        json={"inputs": "sport: a", "model": "fake-small"},
        headers={"traceparent": f"00-{trace}-{secrets.token_hex(8)}-00"},
    )
    deadline = time.monotonic() + 10
    while not (lines := [line for line in written(gateway_logs) if line.get("trace_id") == trace]):
        assert time.monotonic() < deadline, "a line may come after the reply, but not so late"
    [line] = lines
    assert line["request_id"] == reply.headers["x-request-id"]
    assert (line["event"], line["status"], line["model"], line["variant"]) == (
        "request", 200, "fake-small", "fake-small",
    )  # fmt: skip
    assert line["latency_ms"] > 0


def test_no_text_of_any_request_is_in_any_file_of_the_run(gateway: Handle, gateway_logs: Path) -> None:
    """Answered, refused, broken, or with a mark in the wrong place: no log, of Ray's neither, repeats it."""
    mark = secrets.token_hex(12)
    with httpx.Client(base_url=gateway.url) as client:
        for body in (
            {"inputs": [f"sport: {mark}"] * 40},
            {"inputs": f"tech: {mark}", "model": "fake-large"},
            {"inputs": f"tech: {mark}", "model": "fake-other"},
            {"inputs": f"tech: {mark}", "model": mark},
            {"inputs": f"tech: {mark}", mark: 1},
            {"inputs": [mark, 7]},
            {"inputs": mark * 4000},
        ):
            client.post("/v1/classify", json=body)
        client.post("/v1/classify", content=f"{{{mark}".encode())
        client.post("/v2/models/cascade/infer", json={"inputs": [{"name": mark, "data": [mark]}]})
        end = client.post("/v1/classify", json={"inputs": "sport: the end", "model": "fake-small"})
    deadline = time.monotonic() + 10
    while end.headers["x-request-id"] not in {line.get("request_id") for line in written(gateway_logs)}:
        assert time.monotonic() < deadline
    files = [
        file
        for folder in (gateway.folder, gateway_logs)
        for file in folder.rglob("*")
        if file.is_file() and not file.is_symlink()
    ]
    assert len(files) > 20
    assert [str(file) for file in files if mark.encode() in file.read_bytes()] == []
