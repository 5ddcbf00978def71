"""Clients that hang up: what waits for them is not run, wherever it waits."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from runtime.api import Encoded, Logits, Runtime
from runtime.fake import TEXTS
from runtime.load import load_variant
from serve.control.bootstrap import assign
from serve.dataplane.plane import DataPlane
from serve.http.app import Gateway
from serve.ray.stage_worker import StageWorker
from serve.settings.gateway import Settings
from serve.settings.limits import RequestLimits
from serve.settings.slots import own_deployment
from serve.settings.stages import BatchRules, FakeSettings, StageSettings
from serve.stages.call import Ask, Reply
from serve.stages.inline import InlineStage
from serve.stages.remote import RemoteStage
from serve.types.recorder import NoRecorder
from serve.types.stage import Snapshot
from tests.serve.http.test_connection import Client, request
from tests.serve.parts import FakeFolder, Kept, serving, snapshot_of, two_stage_policy

LARGE = "fake-large"


class Gated:
    """A runtime that waits at a gate and keeps what it was given."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.seen: list[str] = []
        self.entered = threading.Event()
        self.gate = threading.Event()

    def logits(self, encoded: Encoded) -> Logits:
        """Answer once the gate is open."""
        self.seen += [str(text) for text in encoded.arrays[TEXTS]]
        self.entered.set()
        assert self.gate.wait(20)
        return self._runtime.logits(encoded)

    def close(self) -> None:
        """Nothing to free."""


@dataclass(frozen=True)
class World:
    """A gateway whose large variant waits at a gate: `waiting` counts what is inside at the stage itself."""

    url: str
    runtime: Gated
    kept: Kept
    waiting: Callable[[], int]


def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds, looking again every millisecond."""
    ends_at, pause = time.monotonic() + 20, threading.Event()
    while not condition():
        assert time.monotonic() < ends_at
        pause.wait(0.001)


class WorkerOf(StageWorker):
    """A worker that holds one stage, loaded elsewhere."""

    def __init__(self, inline: InlineStage, folder: Path) -> None:
        given = assign(Settings(fake=FakeSettings()), folder)
        super().__init__(given, own_deployment(LARGE), lambda _: NoRecorder())
        self._inline = inline

    async def _stage(self, variant: str, build: str) -> InlineStage:
        assert (variant, build) == (LARGE, self._inline.artifact_sha256)
        return self._inline


def in_a_worker(inline: InlineStage, folder: Path) -> tuple[RemoteStage, Callable[[], int]]:
    """Put a stage behind a stage worker, joined without Ray; return it and what counts the worker's asks."""
    worker = WorkerOf(inline, folder)

    async def call(asks: list[Ask]) -> list[Reply]:
        return await worker.infer(LARGE, inline.artifact_sha256, asks)

    async def ping() -> bool:
        return True

    async def call_off(numbers: list[int]) -> None:
        worker.call_off(numbers)

    return RemoteStage(LARGE, call, ping, StageSettings(), call_off=call_off), lambda: len(worker._asked)


@contextmanager
def running(fakes: FakeFolder, tmp_path: Path, where: str) -> Iterator[World]:
    """Run the gateway on a real server."""
    kept = Kept()
    loaded = load_variant(fakes.folder, fakes.family, LARGE)
    runtime = Gated(loaded.runtime)
    inline = InlineStage(replace(loaded, runtime=runtime), BatchRules(run_in="thread"), kept)
    stage, waiting = (inline, lambda: inline.queued) if where == "inline" else in_a_worker(inline, tmp_path)
    first = snapshot_of(fakes, two_stage_policy(), kept)
    snapshot = Snapshot(1, first.policy, first.compiled, first.family, {**first.stages, LARGE: stage})
    limits = RequestLimits()
    dataplane = DataPlane(lambda: snapshot, limits, kept)
    with serving(Gateway(dataplane, limits, kept, lambda: b"")) as url:
        try:
            yield World(url, runtime, kept, waiting)
        finally:
            runtime.gate.set()


def body(text: str) -> bytes:
    """A request for the large variant."""
    return json.dumps({"inputs": text, "model": LARGE}).encode()


@pytest.mark.parametrize("way", ["short", "asgi"])
@pytest.mark.parametrize("where", ["inline", "worker"])
def test_a_client_that_left_costs_no_inference(
    fake_folder: FakeFolder, tmp_path: Path, where: str, way: str
) -> None:
    """Its text waits behind another; it hangs up, and its turn never comes. Both ways into a gateway."""
    more = () if way == "short" else (b"expect: 100-continue",)
    with running(fake_folder, tmp_path, where) as world:
        stays, leaves = Client(world.url), Client(world.url)
        stays.send(request(body("stays")))
        assert world.runtime.entered.wait(20)
        leaves.send(request(body("leaves"), *more))
        until(lambda: world.waiting() == 2)
        leaves.read.close()
        leaves.socket.close()
        until(lambda: ("client_left", "", 1) in world.kept.incidents)
        if where == "worker":
            until(lambda: world.waiting() == 1)
        world.runtime.gate.set()
        assert stays.reply()[0] == 200
        stays.send(request(body("next")))
        assert stays.reply()[0] == 200
        stays.read.close()
        stays.socket.close()
    assert world.runtime.seen == ["stays", "next"]
