"""The benchmark of models over n-grams."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench import linear
from runtime.ngrams.compiled import COMPILED


def test_prints_a_row_per_model_and_arrangement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Accuracy and microseconds of both models, in numpy and, where it was built, in compiled code."""
    rows = [
        f"{word} number {row},{label}" for row in range(20) for word, label in (("good", "a"), ("bad", "b"))
    ]
    (tmp_path / "data.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    data = str(tmp_path / "data.csv")
    monkeypatch.setattr(sys, "argv", ["linear", "--train", data, "--test", data, "--rounds", "1"])
    linear.main()
    printed = capsys.readouterr().out
    assert "| linear | 100.00% |" in printed
    for name in ("linear", "deep table"):
        assert f"| {name}, numpy | " in printed
        assert (f"| {name}, compiled | " in printed) == COMPILED
    assert "40 texts" in printed
