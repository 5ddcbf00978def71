"""The page that compares the gateway with other servers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.gateway.__main__ import _peer_arms
from bench.gateway.cpu_parts import PARTS
from bench.gateway.driving import Driven
from bench.gateway.long_texts import _ratios
from bench.gateway.page import render, rounds
from bench.gateway.search import Tried
from bench.gateway.servers import Places

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
    """What is best for one client need not be best for many: a peer then stands in two arms."""
    rates = {1: (900.0, 1000.0, 1000.0), 2: (800.0, 1900.0, 1900.0)}
    found = [
        Tried("fastapi", {"WORKERS": workers}, tuple(map(_driven, (1, 16, 64), rates[workers]))).to_json()
        for workers in rates
    ]
    arms = _peer_arms(found, Places(Path("environments"), Path("model")))
    assert [arm.clients for arm in arms] == [(1,), (16, 64)]


def test_rounds_of_several_runs_add_up() -> None:
    """A round is one more to the figures, whichever run it came from."""
    figures = _figures(1000.0, 1000.0, 1000.0)
    figures["compared"] += [one | {"round": 1} for one in figures["compared"]]
    assert rounds(figures) == 2
    assert "in 2 rounds of 3 s" in render(figures)


@pytest.mark.parametrize(
    ("whole", "said"), [(0.12, "1.20 times the sum: met"), (0.13, "1.30 times the sum: missed")]
)
def test_the_parts_of_a_request_are_set_against_their_sum(whole: float, said: str) -> None:
    """The whole may be a quarter more than its parts alone."""
    one = {
        "server": "student",
        "clients": 16,
        "per_s": 2000.0,
        "in_the_gateway": dict.fromkeys(PARTS, whole),
        "alone": dict.fromkeys(PARTS, 0.1),
    }
    page = render(_figures(1000.0, 1000.0, 1000.0) | {"cpu": [one]})
    assert f"student, 2,000 requests/s; {said}." in page


def test_long_texts_are_set_against_padding_and_the_best_peer() -> None:
    """The gateway inside its replicas, of the same variant, cap and texts."""
    rates = {
        "FastAPI, padded to the cap": 100.0,
        "FastAPI, one by one": 160.0,
        "LitServe, batches of 16": 120.0,
        "**gateway**, inside its replicas": 200.0,
    }
    found = [
        {"server": name, "variant": "teacher", "cap": 128, "mix": "mixed", "per_s": rate}
        for name, rate in rates.items()
    ]
    assert _ratios(found)[-1] == "| teacher | 128 | mixed | 2.00 | 1.25 (FastAPI, one by one) |"
