"""Parts of the in-process tests: a gateway on fakes behind plain uvicorn, and a recorder that remembers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from contract.family import Family
from contract.metrics import Outcome
from contract.policy import Limits, Policy, Stage
from router.decide.cascade import compile_policy
from runtime.fake_family import write_fake_family
from runtime.load import load_variant
from serve.control.plane import ControlPlane, ReplicaState
from serve.dataplane.plane import DataPlane
from serve.http.app import Gateway
from serve.http.connection import connections_to
from serve.settings.limits import RequestLimits
from serve.settings.stages import BatchRules
from serve.stages.inline import InlineStage
from serve.stages.loading import Assignment
from serve.stages.loop_turn import LoopTurn
from serve.types.recorder import BatchRecord, Incident, Recorder, RequestRecord
from serve.types.stage import Snapshot


@dataclass(frozen=True)
class FakeFolder:
    """A fake family on disk."""

    folder: Path
    family: Family


@pytest.fixture(scope="session")
def fake_folder(tmp_path_factory: pytest.TempPathFactory) -> FakeFolder:
    """The fake family without delays, written once."""
    folder = tmp_path_factory.mktemp("fakes")
    return FakeFolder(folder, write_fake_family(folder, delay_ms=0.0, rows=600))


def two_stage_policy(**limits: float) -> Policy:
    """The small fake answers at 0.9 and above, else the large one."""
    return Policy(
        status="uncertified",
        reference="fake-large",
        stages=(Stage(variant="fake-small", threshold=0.9), Stage(variant="fake-large")),
        limits=Limits(**limits),
    ).sealed()


def snapshot_of(fakes: FakeFolder, policy: Policy, recorder: Recorder) -> Snapshot:
    """Every fake inline: the first on the loop, the others in a thread."""
    stages = {
        name: InlineStage(
            load_variant(fakes.folder, fakes.family, name),
            BatchRules(run_in="loop" if name == "fake-small" else "thread"),
            recorder,
            turn=LoopTurn() if name == "fake-small" else None,
        )
        for name in fakes.family.names
    }
    return Snapshot(1, policy, compile_policy(policy, fakes.family.labels), fakes.family, stages)


class WillingReplicas:
    """Replicas that take everything, and of which none says where it is."""

    async def prepare(self, revision: dict[str, Any], *, stages: bool) -> list[str | None]:
        """Take it."""
        return [None]

    async def forget(self) -> None:
        """Nothing was kept."""

    async def catch_up(self) -> list[ReplicaState]:
        """Nobody says where."""
        return []


class Kept:
    """A recorder that keeps what it is told."""

    def __init__(self) -> None:
        self.answers: list[RequestRecord] = []
        self.spendings: list[RequestRecord] = []
        self.refusals: list[tuple[str, Outcome, int]] = []
        self.limits: list[tuple[str, str, int]] = []
        self.batches: list[BatchRecord] = []
        self.incidents: list[tuple[Incident, str, int]] = []

    def answered(self, record: RequestRecord) -> None:
        """Keep an answered request."""
        self.answers.append(record)

    def spent(self, record: RequestRecord) -> None:
        """Keep what a request without an answer cost."""
        self.spendings.append(record)

    def refused(self, model: str, outcome: Outcome, texts: int) -> None:
        """Keep a refusal."""
        self.refusals.append((model, outcome, texts))

    def limited(self, key: str, limit: str, texts: int) -> None:
        """Keep that a key was beyond a limit."""
        self.limits.append((key, limit, texts))

    def batch(self, record: BatchRecord) -> None:
        """Keep a batch."""
        self.batches.append(record)

    def incident(self, kind: Incident, stage: str, texts: int = 1) -> None:
        """Keep what happened."""
        self.incidents.append((kind, stage, texts))


@dataclass(frozen=True)
class Served:
    """A gateway on a real server."""

    url: str
    recorder: Kept


@contextmanager
def serving(app: Gateway | Callable[..., Any]) -> Iterator[str]:
    """Serve an application with uvicorn in a thread; the socket listens before the thread starts."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        how = connections_to(app.hot) if isinstance(app, Gateway) else "auto"
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", http=how)
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="session")
def served(fake_folder: FakeFolder) -> Iterator[Served]:
    """The gateway on the fake family, small caps, plain uvicorn."""
    recorder = Kept()
    limits = RequestLimits(max_body_bytes=4096, max_texts=8, max_characters=500)
    snapshot = snapshot_of(fake_folder, two_stage_policy(), recorder)
    dataplane = DataPlane(lambda: snapshot, limits, recorder)
    with serving(Gateway(dataplane, limits, recorder, lambda: b"sluice_up 1\n")) as url:
        yield Served(url, recorder)


def folder_of(given: Assignment) -> Path:
    """The folder of the only family that a run starts with."""
    [folder] = given.folders
    return folder


@dataclass(frozen=True)
class OnlyLine:
    """What the admin interface asks for the only family, as far as a test has it."""

    plane: ControlPlane
    trials: Any = None
    push: Any = None

    def __call__(self, name: str | None) -> OnlyLine:
        """Be asked by no name."""
        assert name is None
        return self

    def describe(self) -> dict[str, Any]:
        """Say nothing."""
        return {}
