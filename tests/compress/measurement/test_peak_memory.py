"""Peak memory of a variant."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compress.measurement import peak_memory
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


def test_the_longest_texts_are_answered_alone_and_as_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short texts at the head of a file hide no peak: the child gets the longest, in two ways."""
    family = write_fake_family(tmp_path, delay_ms=0.0, rows=30)
    answered: list[list[str]] = []

    def child(*_: Any, input: str, **__: Any) -> subprocess.CompletedProcess[str]:
        with monkeypatch.context() as patch:
            told = io.StringIO()
            patch.setattr(sys, "stdin", io.StringIO(input))
            patch.setattr(sys, "stdout", told)
            patch.setattr(
                peak_memory, "load_variant", lambda *_, **__: SimpleNamespace(logits=answered.append)
            )
            peak_memory.report_peak_memory()
        return subprocess.CompletedProcess([], 0, told.getvalue(), "")

    monkeypatch.setattr(subprocess, "run", child)
    texts = ["x" * length for length in range(1, 101)]
    assert measure_peak_memory(tmp_path, family, "fake-small", texts) > 0
    longest = ["x" * length for length in range(100, 80, -1)]
    assert answered == [*([text] for text in longest), longest[:8]]
    answered.clear()
    measure_peak_memory(tmp_path, family, "fake-small", texts[:2])
    assert answered == [["xx"], ["x"], ["xx", "x"]]
