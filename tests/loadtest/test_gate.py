"""Two runs compared: only what chance does not explain is worse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from contract.errors import RunError
from contract.run import write_run
from loadtest.gate import GateResult, compare_runs
from tests.loadtest.tables import summary_of, table


def _run(
    folder: Path, *, scale: float = 1.0, wrong: int = 0, failed: int = 0, seed: int = 0, n: int = 3000
) -> Path:
    rng = np.random.default_rng(seed)
    requests = table(
        rng.gamma(4.0, 2.0 * scale, n).tolist(),
        answer=["b" if i < wrong else "a" for i in range(n)],
        status=[500 if i >= n - failed else 200 for i in range(n)],
        rows=[i % 500 for i in range(n)],
    )
    write_run(folder, requests, summary_of(requests, slo_ms=None))
    return folder


def _verdicts(result: GateResult) -> dict[str, str]:
    return {check.name: check.verdict for check in result.checks}


def test_a_run_is_not_worse_than_another_of_the_same_kind(tmp_path: Path) -> None:
    """Two runs that differ by chance alone pass, with the change inside its interval."""
    result = compare_runs(_run(tmp_path / "a"), _run(tmp_path / "b", seed=1))
    assert result.verdict == "passed"
    check = result.checks[0]
    assert check.interval is not None
    assert check.change is not None
    assert check.interval[0] <= check.change <= check.interval[1]
    assert result.dump()["verdict"] == "passed"


def test_a_slower_run_is_worse_beyond_the_allowed_increase(tmp_path: Path) -> None:
    """Forty percent slower is worse when 10% is allowed, and passes when 60% is."""
    base, head = _run(tmp_path / "a"), _run(tmp_path / "b", scale=1.4, seed=1)
    assert _verdicts(compare_runs(base, head))["p99_ms"] == "worse"
    assert _verdicts(compare_runs(base, head, max_p99_increase=0.6))["p99_ms"] == "passed"
    assert compare_runs(head, base).verdict == "passed"


def test_fewer_right_answers_are_worse(tmp_path: Path) -> None:
    """Texts that were right and are wrong now fail the gate unless the drop is allowed."""
    base, head = _run(tmp_path / "a"), _run(tmp_path / "b", wrong=150)
    result = compare_runs(base, head)
    assert _verdicts(result) == {"p99_ms": "passed", "accuracy": "worse", "errors": "passed"}
    assert result.checks[1].change == pytest.approx(-0.05)
    assert compare_runs(base, head, max_accuracy_drop=0.07).verdict == "passed"


def test_more_failed_requests_are_worse(tmp_path: Path) -> None:
    """One request in a hundred that fails now fails the gate."""
    result = compare_runs(_run(tmp_path / "a"), _run(tmp_path / "b", failed=30))
    assert _verdicts(result)["errors"] == "worse"


def test_short_runs_leave_the_gate_unsure(tmp_path: Path) -> None:
    """Under 368 requests p99 has no interval, so the gate does not decide."""
    result = compare_runs(_run(tmp_path / "a", n=300), _run(tmp_path / "b", n=300, seed=1))
    assert result.verdict == "unsure"
    assert "368" in result.checks[0].method


def test_repeats_in_a_folder_are_pooled(tmp_path: Path) -> None:
    """A folder of runs counts as one side."""
    for k in range(3):
        _run(tmp_path / "base" / str(k), seed=k, n=200)
        _run(tmp_path / "head" / str(k), seed=9 + k, n=200)
    assert compare_runs(tmp_path / "base", tmp_path / "head").verdict == "passed"


def test_void_missing_and_unlike_runs_are_refused(tmp_path: Path) -> None:
    """A gate on a void run, on no run, or on runs asked for different things would say nothing."""
    base = _run(tmp_path / "a")
    requests = table([10.0] * 500, lag_ms=9.0)
    write_run(tmp_path / "void", requests, summary_of(requests))
    with pytest.raises(RunError, match="void"):
        compare_runs(base, tmp_path / "void")
    with pytest.raises(RunError, match="neither a run"):
        compare_runs(base, tmp_path / "none")
    other = table([10.0] * 500, rate=200.0)
    write_run(tmp_path / "other", other, summary_of(other, rate=200.0))
    with pytest.raises(RunError, match="rate_asked_per_s"):
        compare_runs(base, tmp_path / "other")
