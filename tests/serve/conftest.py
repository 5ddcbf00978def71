"""What the tests of the gateway share: one gateway on Ray, on the fake family, for all that need one."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve import launcher
from serve.settings import FakeSettings, Settings
from tests.serve.parts import fake_folder, served

__all__ = ["fake_folder", "served"]


@pytest.fixture
def anyio_backend() -> str:
    """Coroutine tests run on asyncio, as the gateway does."""
    return "asyncio"


def free_port() -> int:
    """Return a TCP port of loopback that is free now, below those that the system hands to Ray's servers."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def fake_settings(state: Path | None = None, *, delay_ms: float = 1.0) -> Settings:
    """Settings of a gateway on fakes: one variant inline, one in its own deployment, one on the shelf."""
    return Settings(
        fake=FakeSettings(delay_ms=delay_ms),
        port=free_port(),
        admin_port=free_port(),
        state=None if state is None else str(state),
    )


@pytest.fixture(scope="session")
def gateway() -> Iterator[launcher.Handle]:
    """A running gateway; tests that change its policy put the first one back."""
    with launcher.start(fake_settings()) as handle:
        yield handle
