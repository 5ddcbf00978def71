"""What the tests of the gateway share."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """Coroutine tests run on asyncio, as the gateway does."""
    return "asyncio"
