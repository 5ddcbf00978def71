"""Shapes of traffic: bursts, profiles of rates and recorded traces."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from contract.errors import DataError, InputError
from contract.run import read_requests, read_summary
from loadtest.arrivals import arrival_times_s
from loadtest.reference import serving
from loadtest.traffic import Traffic, read_trace
from sluicegate.main import cli


@pytest.mark.parametrize("cv", [0.3, 1.0, 3.0])
def test_gamma_gaps_vary_as_asked(cv: float) -> None:
    """The standard deviation of the gaps over their mean is the coefficient of variation."""
    gaps = np.diff(arrival_times_s(1000, 100, seed=1, traffic=Traffic("gamma", cv)))
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05)


def test_a_ramp_of_known_arrivals() -> None:
    """From 0 to 2 per second in 4 s, evenly spread arrivals come at the roots of their number."""
    traffic = Traffic("uniform", segments=((0.0, 2.0),))
    assert traffic.mean_rate == 1.0
    expected = 4 * np.sqrt(np.arange(4) / 4)
    assert arrival_times_s(1.0, 4.0, seed=0, traffic=traffic) == pytest.approx(expected)


def test_steps_hold_their_rates_in_turn() -> None:
    """Of 10, 0 and 40 per second, a fifth of the arrivals come in the first third, none in the second."""
    traffic = Traffic(segments=((10.0, 10.0), (0.0, 0.0), (40.0, 40.0)))
    at = arrival_times_s(traffic.mean_rate, 300.0, seed=3, traffic=traffic)
    counts = np.histogram(at, [0, 100, 200, 300])[0]
    assert counts.sum() == 5000
    assert counts[1] == 0
    assert counts[0] == pytest.approx(1000, abs=100)
    assert traffic.start_rate(traffic.mean_rate) == pytest.approx(10.0)


def test_shapes_that_cannot_be_are_refused() -> None:
    """No rate at all, a negative one, and gaps without or with endless variation."""
    for wrong in ({"segments": ((0.0, 0.0),)}, {"segments": ((-1.0, 2.0),)}, {"cv": 0.0}, {"cv": 1e9}):
        with pytest.raises(InputError):
            Traffic(**wrong)
    with pytest.raises(InputError, match="unknown arrivals"):
        Traffic("pareto")  # type: ignore[arg-type]


def test_traces_of_three_kinds_are_read(tmp_path: Path) -> None:
    """Seconds in Parquet, ISO times in CSV, milliseconds in AIPerf's lines; sorted, and from 0."""
    pq.write_table(pa.table({"intended_at_s": [105.0, 100.0, 101.0]}), tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_text(
        "id,at\n1,2026-11-29T00:00:00Z\n2,2026-11-29T00:00:05+00:00\n3,2026-11-29 00:00:01\n"
    )
    lines = [{"timestamp": ms, "input_length": 9} for ms in (0, 1000, 5000)]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name in ("a.parquet", "b.csv", "c.jsonl"):
        assert read_trace(tmp_path / name).trace == pytest.approx((0.0, 1.0, 5.0))
        assert read_trace(tmp_path / name, speed=2, most_s=2).trace == pytest.approx((0.0, 0.5))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "id,text\n1,x\n", "no column of times: one of at, at_s"),
        ("a.csv", "at\n1\nsoon\n", "row 3: 'soon' is no time"),
        ("a.csv", "at\n1\n\nnan\n", "'nan' is no time"),
        ("a.jsonl", '{"timestamp": 1}\n{"at": 2}\n', "line 2: not"),
        ("a.csv", "at\n1\n", "two arrivals or more"),
        ("a.parquet", "at\n1\n", "not a readable trace"),
    ],
)
def test_traces_that_are_none_say_why(tmp_path: Path, name: str, content: str, words: str) -> None:
    """File, row and rule are named."""
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=words) as told:
        read_trace(tmp_path / name)
    assert name in str(told.value)
    with pytest.raises(DataError, match="not a readable trace"):
        read_trace(tmp_path / "none.csv")


def test_a_run_is_driven_again_from_its_own_record(tmp_path: Path) -> None:
    """A ramp is driven and recorded; its requests replayed twice as fast are as many, in half the time."""
    (tmp_path / "texts.csv").write_text("text,label\na text,a\n")
    with serving() as server:
        base = ("loadtest", server.url, "--data", str(tmp_path / "texts.csv"), "--warmup", "0", "--seed", "1")
        first, again = tmp_path / "first", tmp_path / "again"
        done = CliRunner().invoke(cli, [*base, "--ramp", "10:70", "--duration", "1", "--out", str(first)])
        assert done.exit_code == 0, done.output
        trace = ("--trace", str(first / "requests.parquet"), "--speed", "2")
        assert CliRunner().invoke(cli, [*base, *trace, "--out", str(again)]).exit_code == 0
        for wrong in (
            (),
            ("--rate", "1"),
            ("--rate", "1", "--ramp", "1:2", "--duration", "1"),
            ("--steps", "1,x"),
        ):
            assert CliRunner().invoke(cli, [*base, *wrong], standalone_mode=True).exit_code == 2
    one, two = (read_requests(folder)["intended_at_s"].to_numpy() for folder in (first, again))
    assert len(one) == len(two) == 40
    assert np.diff(two) == pytest.approx(np.diff(one) / 2, abs=1e-6)
    assert read_summary(first).arrivals == "poisson, 10 to 70 per second"
    assert read_summary(again).arrivals == "trace requests.parquet at 2 times its speed"
