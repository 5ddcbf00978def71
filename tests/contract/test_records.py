"""Runs, revisions, prices and metric names."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from contract import metrics
from contract.errors import InputError, RunError
from contract.live import Revision, parse_revision
from contract.policy import single_variant_policy
from contract.prices import load_grid, load_prices
from contract.run import REQUEST_SCHEMA, Summary, read_requests, read_summary, write_run


def _summary() -> Summary:
    return Summary(
        model="cascade", url="http://x", protocol="v1", seed=1, rate_asked_per_s=1, rate_held_per_s=1,
        duration_s=1, n=0, errors=0, valid=True,
    )  # fmt: skip


def test_a_written_run_reads_back_equal(tmp_path: Path) -> None:
    """Requests and summary survive the disk; what was not measured stays null."""
    write_run(tmp_path, REQUEST_SCHEMA.empty_table(), _summary())
    assert read_summary(tmp_path) == _summary()
    assert read_summary(tmp_path).energy_wh_per_1k is None
    assert read_requests(tmp_path).schema == REQUEST_SCHEMA


def test_an_incomplete_run_is_refused(tmp_path: Path) -> None:
    """A folder without a summary, or with a broken one, is named."""
    with pytest.raises(RunError, match=r"summary\.json"):
        read_summary(tmp_path)
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(RunError, match="model"):
        read_summary(tmp_path)
    with pytest.raises(RunError, match=r"requests\.parquet"):
        read_requests(tmp_path)


def test_requests_of_another_shape_are_not_written(tmp_path: Path) -> None:
    """A table without the agreed columns is refused before anything is on disk."""
    with pytest.raises(ValueError, match="schema"):
        write_run(tmp_path, pa.table({"id": [1]}), _summary())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("lacking", [["row", "refusal"], ["refusal"]])
def test_what_a_table_does_not_know_is_written_as_nulls(tmp_path: Path, lacking: list[str]) -> None:
    """Requests recorded without the row of the data file, or without refusals, are a run all the same."""
    known = REQUEST_SCHEMA.empty_table().drop_columns(lacking)
    write_run(tmp_path, known, _summary())
    assert read_requests(tmp_path).schema == REQUEST_SCHEMA


def test_a_revision_reads_back_equal() -> None:
    """A revision survives its JSON form, policy version included."""
    revision = Revision(
        number=1, created_at="2026-01-01T00:00:00Z", policy=single_variant_policy("t"),
        family_sha256="0" * 64, family_path="/f",
    )  # fmt: skip
    assert parse_revision(revision.dump()) == revision


def test_reference_data_carries_date_and_source(tmp_path: Path) -> None:
    """Prices and grid intensities say when and from where; a user's file replaces them."""
    assert load_prices().as_of
    assert load_prices().source
    assert load_grid().intensity("fra") < load_grid().intensity("pol")
    with pytest.raises(InputError, match="atlantis"):
        load_grid().intensity("atlantis")
    mine = tmp_path / "prices.yaml"
    mine.write_text("as_of: today\nsource: me\nusd_per_core_hour: 1.0\n")
    assert load_prices(mine).usd_per_core_hour == 1.0
    mine.write_text("as_of: today\nsource: me\nusd_per_core_hour: -1\n")
    with pytest.raises(InputError, match="usd_per_core_hour"):
        load_prices(mine)


def test_metric_names_follow_prometheus_conventions() -> None:
    """Counters end in _total, durations are seconds, buckets grow, and no name occurs twice."""
    assert len({m.name for m in metrics.ALL}) == len(metrics.ALL)
    for metric in metrics.ALL:
        assert metric.name.startswith("sluice_")
        assert (metric.kind == "counter") == metric.name.endswith("_total")
        assert list(metric.buckets) == sorted(set(metric.buckets))
        assert (metric.kind == "histogram") == bool(metric.buckets)
