"""gRPC through HAProxy and Ray Serve's ingress to a gateway replica, and on over the hop."""

from __future__ import annotations

import secrets
import socket
from contextlib import suppress
from typing import Any

import grpc
import httpx
import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton

from serve.local.launcher import Handle
from serve.local.run_folder import processes_of
from tests.serve.telemetry.collector import Collector

pytestmark = pytest.mark.ray


def tensor(texts: list[str]) -> Any:
    """The input of those texts."""
    given = triton.InferInput("text", [len(texts)], "BYTES")
    given.set_data_from_numpy(np.array([text.encode() for text in texts], dtype=np.object_))
    return given


def test_tritonclient_gets_the_answers_of_http(gateway: Handle, collector: Collector) -> None:
    """Through the front end: health, the same answers row by row, one trace, and the status of a refusal."""
    assert gateway.grpc_address is not None
    texts = [f"sport: story {n}" for n in range(40)]
    body = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [40], "data": texts}]}
    with httpx.Client(base_url=gateway.url, timeout=20) as http:
        reply = http.post("/v2/models/cascade/infer", json=body).json()
    trace = secrets.token_hex(16)
    headers = {"traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"}
    with triton.InferenceServerClient(gateway.grpc_address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.get_model_metadata("cascade").name == "cascade"
        told = client.infer("cascade", [tensor(texts)], headers=headers, client_timeout=20)
        with pytest.raises(triton.InferenceServerException) as refused:
            client.infer("nobody", [tensor(["a"])])
    assert refused.value.status() == "StatusCode.NOT_FOUND"
    for output in reply["outputs"]:
        values = told.as_numpy(output["name"]).ravel().tolist()
        values = [value.decode() if isinstance(value, bytes) else value for value in values]
        expected = output["data"]
        assert values == (pytest.approx(expected, abs=1e-6) if output["datatype"] == "FP32" else expected)
    spans = collector.of(trace, 5)
    assert spans["stage fake-small"].parent == spans["ModelInfer"].id


def test_the_servers_of_replicas_answer_to_this_machine_alone(gateway: Handle) -> None:
    """Ray binds them to all interfaces: asked at another address of this machine, they refuse."""
    others = [
        entry.address
        for card in psutil.net_if_addrs().values()
        for entry in card
        if entry.family == socket.AF_INET and not entry.address.startswith("127.")
    ]
    if not others:
        pytest.skip("this machine has no address but loopback")
    ports: set[int] = set()
    for process in processes_of(gateway.folder):
        with suppress(psutil.Error):  # a process may end meanwhile
            ports |= {
                connection.laddr.port
                for connection in psutil.Process(process.pid).net_connections("tcp")
                if connection.status == psutil.CONN_LISTEN and 40_000 <= connection.laddr.port <= 41_000
            }
    codes = []
    for port in ports:
        with grpc.insecure_channel(f"{others[0]}:{port}") as channel:
            method = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
            codes.append(method.future(b"", timeout=10).code())
    # Ours deny; other servers of Ray's in that range know no such method, or are on loopback.
    assert codes
    assert grpc.StatusCode.OK not in codes
