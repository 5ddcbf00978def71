"""What the tests of the gateway share: one gateway on Ray, on the fake family, for all that need one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.local import launcher
from serve.settings.gateway import Settings
from serve.settings.stages import FakeSettings
from tests.ports import free_port
from tests.serve.parts import fake_folder, served
from tests.serve.storage_places import bucket, place

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
    )


@pytest.fixture(scope="session")
def gateway() -> Iterator[launcher.Handle]:
    """A running gateway; tests that change its policy put the first one back."""
    with launcher.start(fake_settings()) as handle:
        yield handle
