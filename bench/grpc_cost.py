"""What a request costs a gateway replica over gRPC and over HTTP: its CPU time, the model's own left out.

python -m bench.grpc_cost [--requests N]

The replica is a process of its own on fakes that take no time, without Ray and HAProxy around it; requests
hold one short text, raw over gRPC and JSON over HTTP, on kept connections, eight at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import socket
import tempfile
from functools import partial
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import grpc
import httptools  # noqa: F401 - what uvicorn reads with
import psutil
import uvicorn

from contract.policy import single_variant_policy
from router.decide.cascade import compile_policy
from runtime.fake_family import write_fake_family
from runtime.load import load_variant
from serve.dataplane.plane import DataPlane
from serve.grpc.messages import SERVICE, message
from serve.grpc.service import InferenceService, handlers
from serve.http.app import Gateway
from serve.http.connection import connections_to
from serve.settings.limits import RequestLimits
from serve.settings.stages import BatchRules
from serve.stages.inline import InlineStage
from serve.types.recorder import NoRecorder
from serve.types.stage import Snapshot

MODEL = "fake-small"
AT_A_TIME = 8


def replica(pipe: Pipe) -> None:
    """Serve both protocols from one event loop until killed; send the two ports."""
    folder = Path(tempfile.mkdtemp())
    family = write_fake_family(folder, delay_ms=0.0, rows=60)
    policy = single_variant_policy(MODEL)
    recorder, limits = NoRecorder(), RequestLimits()
    stage = InlineStage(load_variant(folder, family, MODEL), BatchRules(run_in="loop"), recorder)
    snapshot = Snapshot(1, policy, compile_policy(policy, family.labels), family, {MODEL: stage})
    plane = DataPlane(lambda: snapshot, limits, recorder)
    gateway = Gateway(plane, limits, recorder, lambda: b"")

    async def serve() -> None:
        server = grpc.aio.server()
        service = InferenceService(plane, limits, recorder, lambda: b"")
        server.add_generic_rpc_handlers((handlers(lambda: service),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(
            gateway, log_level="warning", lifespan="off", http=connections_to(gateway.hot)
        )
        pipe.send((listener.getsockname()[1], port))
        await uvicorn.Server(config)._serve([listener])

    asyncio.run(serve())


async def over_grpc(port: int, requests: int, name: str = "ModelInfer") -> None:
    """Send so many requests to that method."""
    text = b"sport: a late goal wins the cup"
    sent = message("ModelInferRequest")(
        model_name=MODEL,
        inputs=[{"name": "text", "datatype": "BYTES", "shape": [1]}],
        raw_input_contents=[len(text).to_bytes(4, "little") + text],
    ).SerializeToString()
    if name != "ModelInfer":
        sent = b""

    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        method = channel.unary_unary(f"/{SERVICE}/{name}")

        async def some() -> None:
            for _ in range(requests // AT_A_TIME):
                await method(sent)

        await asyncio.gather(*(some() for _ in range(AT_A_TIME)))


async def over_http(port: int, requests: int) -> None:
    """Send so many requests."""
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["sport: a late goal wins the cup"]}
    body = json.dumps({"inputs": [tensor]}).encode()
    head = b"POST /v2/models/%b/infer HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
    sent = head % (MODEL.encode(), len(body)) + body

    async def some() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(requests // AT_A_TIME):
            writer.write(sent)
            lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
            length = next(line for line in lines if line.startswith(b"content-length"))
            await reader.readexactly(int(length.partition(b":")[2]))
        writer.close()

    await asyncio.gather(*(some() for _ in range(AT_A_TIME)))


def main() -> None:
    """Print the CPU time of a request over each protocol."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=8000)
    requests = parser.parse_args().requests
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=replica, args=(theirs,), daemon=True)
    process.start()
    http_port, grpc_port = ours.recv()
    watched = psutil.Process(process.pid)
    empty = partial(over_grpc, name="ServerLive")
    for name, send, port in (
        ("HTTP", over_http, http_port),
        ("gRPC", over_grpc, grpc_port),
        ("gRPC, a call that asks nothing (ServerLive)", empty, grpc_port),
    ):
        asyncio.run(send(port, 800))
        before = sum(watched.cpu_times()[:2])
        asyncio.run(send(port, requests))
        spent = sum(watched.cpu_times()[:2]) - before
        print(f"{name}: {spent / requests * 1e6:.0f} us of CPU per request")
    process.kill()


if __name__ == "__main__":
    main()
