"""The page that compares the gateway with other servers."""

from __future__ import annotations

from typing import Any

import pytest

from bench.gateway.driving import Driven
from bench.gateway.page import render
from bench.gateway.search import Tried, best

MACHINE = {"cpu": "a processor", "cores": 2.0}


def _driven(clients: int, per_s: float, p99_ms: float = 5.0) -> Driven:
    return Driven(clients=clients, per_s=per_s, p50_ms=1.0, p99_ms=p99_ms, cpu_ms=0.5, errors=0)


def _figures(student: float, peer: float, cascade: float) -> dict[str, Any]:
    rates = {"student": student, "fastapi": peer, "cascade": cascade, "slow": peer / 2}
    return {
        "machine": MACHINE,
        "family": {"name": "intents"},
        "policy": "cascade, certified: linear -> student-int8",
        "texts": 512,
        "seconds": 3.0,
        "rounds": 1,
        "searched": [Tried("fastapi", {"WORKERS": 2}, (_driven(1, peer),)).to_json()],
        "compared": [
            {"server": name, "round": 0} | _driven(clients, rate).to_json()
            for name, rate in rates.items()
            for clients in (1, 16, 64)
        ],
    }


@pytest.mark.parametrize(("student", "met"), [(1100.0, "no"), (1200.0, "yes")])
def test_the_student_is_measured_against_the_best_peer(student: float, met: str) -> None:
    """At 16 clients 1.15 of the fastest peer is asked for, whoever that is."""
    page = render(_figures(student=student, peer=1000.0, cascade=3000.0))
    assert f"| student at 16: 1.15 of the best peer (fastapi) | {student / 1000:.2f} | {met} |" in page


@pytest.mark.parametrize(("cascade", "met"), [(2100.0, "no"), (2200.0, "yes")])
def test_the_cascade_is_measured_against_the_student(cascade: float, met: str) -> None:
    """It has to answer 2.2 times as much as its second stage alone."""
    page = render(_figures(student=1000.0, peer=900.0, cascade=cascade))
    assert f"| cascade at 64: 2.2 times the student | {cascade / 1000:.2f} | {met} |" in page


def test_settings_are_chosen_by_number_of_clients() -> None:
    """What is best for one client need not be best for many."""
    found = [
        Tried("fastapi", {"WORKERS": 1}, (_driven(1, 900.0), _driven(64, 1000.0))),
        Tried("fastapi", {"WORKERS": 2}, (_driven(1, 800.0), _driven(64, 1900.0))),
    ]
    assert best(found, "fastapi", 1) == {"WORKERS": 1}
    assert best(found, "fastapi", 64) == {"WORKERS": 2}
