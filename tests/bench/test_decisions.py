"""The comparison on decisions: its rows, its draws, and its page."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.decisions.data import HELD_OUT, OUT_OF_SCOPE, prepare, read
from bench.decisions.draws import (
    RIVAL,
    Asked,
    certified,
    draws_from_pool,
    draws_of,
    see,
    seen_by_rival,
    with_others,
)
from bench.decisions.page import _sdk, render
from contract.costs import Cost
from contract.policy import Policy, Stage
from contract.predictions import Predictions, VariantPredictions

COSTS = {"small": Cost(0.001), RIVAL: Cost(0.001), "upstream": Cost(0.03)}


def _write(path: Path, rows: list[tuple[str, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def _table(n: int = 3000) -> Predictions:
    """Rows that a small variant answers right the surer it is, and a rival by chance."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 5, n)
    sure = rng.random(n)
    small = np.where(rng.random(n) < sure**0.1, label, (label + 1) % 5)
    plain = Predictions(tuple("abcde"), label, {"small": VariantPredictions(small, sure)})
    return with_others(plain, rng.integers(0, 5, n).tolist(), rng.random(n).tolist())


def test_a_text_is_learnt_from_or_held_out_and_never_both(tmp_path: Path) -> None:
    """Texts that occur in several files stay where they count, out-of-scope ones are a class."""
    for split in ("train", "validation", "test"):
        own = [(f"{split} {i}", "x", "d") for i in range(1200)]
        _write(tmp_path / f"{split}.csv", [("text", "label", "domain"), *own, ("everywhere", "x", "d")])
        _write(tmp_path / f"out_of_scope_{split}.csv", [("text",), (f"{split} odd",)])
    out = tmp_path / "out"
    out.mkdir()
    prepare(tmp_path, out)
    found = {path.stem: read(path) for path in out.glob("*.csv") if path.stem != "answers"}
    texts = [text for part, _ in found.values() for text in part]
    assert len(texts) == len(set(texts)) == 3 * 1201 + 1
    held = [text for name in HELD_OUT for text in found[name][0]]
    assert "everywhere" in held
    assert {"test odd"} <= set(held)
    labels = dict(zip(found["train"][0], found["train"][1], strict=True))
    assert labels["train odd"] == OUT_OF_SCOPE


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The data come from elsewhere, so their folder is what a person gets wrong."""
    with pytest.raises(SystemExit, match=r"test\.csv is missing"):
        prepare(tmp_path, tmp_path)


def test_every_draw_divides_all_rows() -> None:
    """What certifies is not counted on, and draws differ."""
    first, second = draws_of(100, 60, 2, seed=1)
    assert sorted([*first.certifying, *first.remaining]) == list(range(100))
    assert len(first.certifying) == 60
    assert first.certifying.tolist() != second.certifying.tolist()


def test_rows_drawn_from_a_pool_are_counted_on_the_whole_of_it() -> None:
    """With replacement, so that they are independent, and another sample in every draw."""
    first, second = draws_from_pool(100, 60, 2, seed=1)
    assert len(first.certifying) == 60 > len(set(first.certifying.tolist()))
    assert first.remaining.tolist() == list(range(100))
    assert first.certifying.tolist() != second.certifying.tolist()


def test_what_remains_sees_local_answers_that_differ() -> None:
    """Shares of all rows; of the answers given it is their quotient."""
    table = _table()
    stages = (Stage(variant="small", threshold=0.5), Stage(variant="upstream"))
    policy = Policy(status="uncertified", reference="upstream", stages=stages)
    found = see(policy, table)
    small = table.variants["small"]
    local = small.confidence >= 0.5
    assert found.local == found.first == pytest.approx(local.mean())
    assert found.wrong == pytest.approx((local & (small.prediction != table.label)).mean())
    assert found.wrong_of_local == pytest.approx(found.wrong / found.local)


def test_a_rival_without_a_threshold_answers_nothing() -> None:
    """It certified nothing, so everything goes to the large model."""
    table = _table()
    (split,) = draws_of(len(table), 1000, 1, seed=0)
    assert seen_by_rival(table, None, split).local == 0.0
    assert seen_by_rival(table, 0.0, split).local == 1.0


@pytest.mark.parametrize("scope", ["local", "all"])
def test_both_limits_hold_on_the_rows_that_remain(scope: str) -> None:
    """A certificate at 5% of this easy table is kept, and answers some."""
    table = _table(6000)
    (split,) = draws_of(len(table), 4000, 1, seed=0)
    policy, found = certified(table, COSTS, Asked(("small",), 0.05, scope, 0.1), split)
    assert policy.status == "certified"
    assert found.local > 0.2
    assert (found.wrong_of_local if scope == "local" else found.wrong) < 0.06


def _line(name: str, scope: str, alpha: float, local: float) -> dict[str, Any]:
    return {
        "name": name,
        "scope": scope,
        "alpha": alpha,
        "local": local,
        "local_range": [local - 0.01, local + 0.01],
        "first": local,
        "wrong": alpha / 2,
        "broken": 1,
        "draws": 20,
        "broken_interval": [0.01, 0.24],
        "accuracy": 0.97,
    }


def test_the_page_sets_both_sides_beside_each_other() -> None:
    """By limit, with what the rival answers in the same line of text."""
    figures = {
        "machine": {"cpu": "a processor", "cores": 2.0},
        "setting": {
            "train": 10,
            "oos_train": 1,
            "held": 20,
            "oos_held": 0.1,
            "draws": 20,
            "certifying": 12,
            "delta": 0.1,
            "version": "0.4.0",
            "student": "deep",
        },
        "lines": [
            _line(name, scope, alpha, local)
            for scope in ("local", "all")
            for alpha in (0.05, 0.02)
            for name, local in (("shad0wllm as it is", 0.7), ("deep table -> student", 0.8))
        ],
        "accuracy": {"deep": 0.9},
        "times": {"texts": 5, "alpha": 0.05, "found": {"deep table": {"p50": 5.0, "p90": 9.0, "mean": 6.0}}},
    }
    page = render(figures)
    assert "At 5%: 80.0% against 70.0%, broken 1 and 1 of 20 times" in page
    assert "| 2% | deep table -> student | 80.0% (79.0% to 81.0%) |" in page
    assert "broken or not" not in page
    page = render(figures | {"promises": [_line("deep table -> student", "local", 0.02, 0.8)]})
    assert "| 2% | deep table -> student | 80.0% | 1.00% | 1 of 20 (1% to 24%) |" in page


def test_the_page_says_what_a_form_of_the_wire_costs() -> None:
    """Against the first call, with the goal and whether it is met."""
    seen = {
        name: {"p50_ms": 1.0, "p99_ms": 2.0, "ratio": ratio, "ratio_range": [ratio, ratio]}
        for name, ratio in (("classify", 1.0), ("two labels, untyped", 1.1), ("all labels, typed", 2.5))
    }
    found = {
        "calls": 5,
        "rounds": 2,
        "labels": 151,
        "policy": "cascade, certified: linear -> student-int8",
        "sdk_cpu_ms": dict.fromkeys(seen, 0.3),
        "seen": seen,
    }
    assert "two labels, untyped: 1.10, met; all labels, typed: 2.50, missed." in _sdk(found)
