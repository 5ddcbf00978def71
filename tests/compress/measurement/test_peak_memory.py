"""Peak memory of a variant."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.measurement.peak_memory import measure_peak_memory
from contract.errors import EnvironmentProblem
from runtime.fake_family import write_fake_family


def test_peak_memory_is_that_of_a_process_of_its_own(tmp_path: Path) -> None:
    """The child is an interpreter with numpy, not a copy of this process; its failure is told."""
    family = write_fake_family(tmp_path, delay_ms=0.0, rows=30)
    ballast = bytearray(400 * 2**20)
    peak = measure_peak_memory(tmp_path, family, "fake-small", ["sport: x"])
    assert 10 * 2**20 < peak < len(ballast)
    (tmp_path / "fake-small.json").write_text("{}")
    with pytest.raises(EnvironmentProblem, match="sha256"):
        measure_peak_memory(tmp_path, family, "fake-small", ["sport: x"])
