"""Thresholds swept on a gateway: runs pooled, where to stand, and what is driven when."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from contract.errors import InputError
from loadtest.estimates import Estimate
from loadtest.operating_point import Point, Wanted, advise, knee
from loadtest.pooling import pooled_requests, pooled_setting, pooled_use
from loadtest.reference import Behaviour, serving
from loadtest.runner import LoadPlan
from loadtest.scrape import ServerUse
from loadtest.summary import summarise
from loadtest.thresholds import Arm, sweep_thresholds
from tables.labelled import read_labelled
from tests.loadtest.tables import START, setting, summary_of, table

WANTED = Wanted(slo_ms=50.0, max_accuracy_drop=0.02)


def point(
    name: str, accuracy: float, usd: float, *, gap: float = 0.0, p99_ms: float = 10.0, alone: bool = False
) -> Point:
    """A measured point of known figures."""
    n = 1000
    answers = ["a" if row < round(accuracy * n) else "b" for row in range(n)]
    summary = summary_of(table([p99_ms] * n, answer=answers))
    return Point(
        name, "m", None if alone else float(name), summary.model_copy(update={"usd_per_1k_by_cpu": usd}),
        Estimate(gap, (gap - 0.01, gap + 0.01), "known"),
    )  # fmt: skip


CURVE = (
    point("0.5", 0.80, 1.0, gap=-0.12),
    point("0.7", 0.91, 2.0, gap=-0.01),
    point("0.9", 0.92, 6.0, gap=0.0),
)


def test_the_knee_is_where_more_money_begins_to_buy_little() -> None:
    """Of three points the middle one has nearly all of the accuracy for a fifth of the way."""
    found = knee(CURVE)
    assert found is not None
    assert found.name == "0.7"
    straight = (point("0.1", 0.8, 1.0), point("0.2", 0.85, 2.0), point("0.3", 0.9, 3.0))
    assert knee(straight) is None
    assert knee(CURVE[:2]) is None


def test_the_cheapest_point_within_the_limits_is_advised() -> None:
    """What loses too much is named with its limit; what is within and cheaper than a variant alone wins."""
    found = advise((*CURVE, point("teacher", 0.92, 9.0, alone=True)), WANTED)
    assert found.point is not None
    assert found.point.name == "0.7"
    assert "teacher at 9" in found.words
    assert found.misses == {"0.5": "a drop of 12.00 points is over 2"}


def test_where_one_variant_wins_nothing_is_routed() -> None:
    """A variant alone that is cheaper than every cascade within the limits is the answer."""
    found = advise((*CURVE, point("student", 0.92, 0.5, alone=True)), WANTED)
    assert found.words.startswith("do not route: student alone")


def test_limits_that_nothing_keeps_leave_no_point() -> None:
    """Slow, dear and void points each say why."""
    slow = point("0.6", 0.9, 1.0, p99_ms=80.0)
    dear = point("0.8", 0.9, 8.0)
    void = Point("0.9", "m", 0.9, summary_of(table([1.0] * 10, answer=[None] * 10)))
    found = advise((slow, dear, void), Wanted(50.0, max_usd_per_1k=2.0))
    assert found.point is None
    assert found.misses["0.6"] == "p99 80.0 ms is over 50 ms"
    assert found.misses["0.8"] == "8 USD per 1,000 are over 2"
    assert found.misses["0.9"].startswith("void: not one of 10 requests")


def test_pooled_repeats_hold_the_rate_and_all_of_their_use() -> None:
    """Two runs of a second, an hour apart, are one of two seconds at the same rate; use adds up."""
    first, second = table([10.0] * 100), table([30.0] * 100)
    later = second
    for name in ("intended_at_s", "sent_at_s", "done_at_s"):
        moved = np.asarray(second[name].to_numpy()) + 3600
        later = later.set_column(later.column_names.index(name), name, [moved])
    settings = [setting(100), setting(100)]
    settings[1] = type(settings[1])(**{**vars(settings[1]), "window_start_s": START + 3600})
    use = [
        ServerUse(1.0, served=100, cpu_seconds={"a": 1.0}, joules=j, provenance="user-constant")
        for j in (1, 2)
    ]
    pooled = summarise(
        pooled_requests([first, later], settings), pooled_setting(settings), use=pooled_use(use)
    )
    assert (pooled.n, pooled.duration_s, pooled.valid) == (200, 2.0, True)
    assert pooled.rate_held_per_s == pytest.approx(100.0)
    assert pooled.p99_ms == 30.0
    assert pooled.cpu_seconds_per_1k == pytest.approx(10.0)
    assert pooled.energy_wh_per_1k == pytest.approx(3 / 3600 * 5)
    assert pooled_use([use[0], None]) is None


def test_every_threshold_is_driven_in_every_repeat(tmp_path: Path) -> None:
    """Each arm runs as often as asked, the dial is turned before each of the cascade's runs and no other."""
    (tmp_path / "texts.csv").write_text("text,label\n" + "".join(f"a {i},a\nb {i},b\n" for i in range(20)))
    turned: list[float] = []
    with serving(Behaviour(cpu_seconds=0.001)) as server:
        plan = LoadPlan(
            server.url, read_labelled(tmp_path / "texts.csv"), rate_per_s=40, duration_s=0.5, warmup_s=0,
            slo_ms=50, meter=False,
        )  # fmt: skip
        arms = [Arm("0.5", "cascade", 0.5), Arm("0.9", "cascade", 0.9), Arm("big", "big", None)]
        sweep = sweep_thresholds(
            plan, arms, "big", turned.append, repeats=2, wanted=Wanted(1000.0, 0.0), out=tmp_path / "out"
        )
        with pytest.raises(InputError, match="names of their own"):
            sweep_thresholds(plan, arms, "none", turned.append, wanted=WANTED)
    assert sorted(turned) == [0.5, 0.5, 0.9, 0.9]
    assert [point.name for point in sweep.points] == ["0.5", "0.9", "big"]
    assert all(point.summary.n == 40 and point.summary.accuracy == 1.0 for point in sweep.points)
    assert [point.gap.value for point in sweep.points if point.gap] == [0.0, 0.0, 0.0]
    told = json.loads((tmp_path / "out" / "thresholds.json").read_text())
    assert told == json.loads(json.dumps(sweep.dump()))
    assert len(list((tmp_path / "out" / "runs").glob("*/*/summary.json"))) == 6
