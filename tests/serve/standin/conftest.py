"""What the tests of the stand-in share: a family of fakes, and a stand-in that is paid for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.fake_family import write_fake_family
from serve.standin.server import Running, serving
from serve.standin.settings import StandInSettings


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a family of fakes."""
    folder = tmp_path_factory.mktemp("family")
    write_fake_family(folder, delay_ms=0.0, rows=60)
    return folder


@pytest.fixture(scope="module")
def standin(family: Path) -> Iterator[Running]:
    """Return a stand-in without delay that takes 0.03 USD for 1,000 questions."""
    with serving(family, StandInSettings(port=0, usd_per_1k=0.03)) as running:
        yield running
