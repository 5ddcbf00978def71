"""What the tests of the gateway share: one gateway on Ray, on the fake family, for all that need one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.local import launcher
from serve.settings.gateway import Settings
from serve.settings.logs import LogSettings
from serve.settings.stages import FakeSettings
from serve.settings.traces import TraceSettings
from serve.settings.traffic import TrafficSettings
from tests.ports import free_port
from tests.serve.parts import fake_folder, served
from tests.serve.storage_places import bucket, place
from tests.serve.telemetry.collector import Collector, collecting

__all__ = ["bucket", "fake_folder", "place", "served"]


@pytest.fixture
def anyio_backend() -> str:
    """Coroutine tests run on asyncio, as the gateway does."""
    return "asyncio"


def fake_settings(state: Path | None = None, *, delay_ms: float = 1.0) -> Settings:
    """Settings of a gateway on fakes: one variant inline, one in its own deployment, one on the shelf."""
    return Settings(
        fake=FakeSettings(delay_ms=delay_ms),
        port=free_port(),
        admin_port=free_port(),
        state=None if state is None else str(state),
        traffic=TrafficSettings(busy_cpu_share=None, gather_s=0.2),
    )


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """Where the shared gateway's traces go."""
    with collecting() as running:
        yield running


@pytest.fixture(scope="session")
def gateway_logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the shared gateway's processes log."""
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="session")
def gateway(collector: Collector, gateway_logs: Path) -> Iterator[launcher.Handle]:
    """A running gateway that is watched; tests that change its policy put the first one back."""
    watched = {
        "log": LogSettings(format="json", folder=str(gateway_logs), requests="all"),
        "grpc_port": free_port(),
        "traces": TraceSettings(endpoint=collector.url, ratio=0.0, every_s=0.2),
    }
    with launcher.start(fake_settings().model_copy(update=watched)) as handle:
        yield handle
