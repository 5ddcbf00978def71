"""The lock that workers share, and the number of broken promises that a simulation allows."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from scipy.stats import binom

from tests.support.machine_lock import MachineLock
from tests.support.simulations import FEW, FULL, most


def test_who_waits_to_be_alone_comes_before_later_ones(tmp_path: Path) -> None:
    """A test of time waits for those that run, and those that come later wait for it."""
    order: list[str] = []
    first_in, first_out = threading.Event(), threading.Event()

    def take(name: str, *, alone: bool) -> None:
        lock = MachineLock(tmp_path)
        lock.take(alone=alone)
        order.append(name)
        lock.leave()

    def first() -> None:
        lock = MachineLock(tmp_path)
        lock.take(alone=False)
        first_in.set()
        first_out.wait(10)
        order.append("first")
        lock.leave()

    holder = threading.Thread(target=first)
    holder.start()
    assert first_in.wait(10)
    take("beside", alone=False)
    timed = threading.Thread(target=take, args=("alone",), kwargs={"alone": True})
    timed.start()
    while not _held(tmp_path / "gate.lock"):
        pass
    later = threading.Thread(target=take, args=("later",), kwargs={"alone": False})
    later.start()
    first_out.set()
    for thread in (holder, timed, later):
        thread.join(10)
    assert order == ["beside", "first", "alone", "later"]


def test_a_turn_that_is_held_is_kept(tmp_path: Path) -> None:
    """Tests of time that follow each other share one turn: taking it again waits for nobody."""
    lock = MachineLock(tmp_path)
    lock.take(alone=True)
    lock.take(alone=True)
    assert _held(tmp_path / "room.lock")
    lock.leave()
    assert not _held(tmp_path / "room.lock")


def _held(path: Path) -> bool:
    import fcntl

    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


@pytest.mark.parametrize(("draws", "rate"), [(FEW, 0.5), (FULL, 0.2)])
def test_a_broken_promise_is_found_by_few_draws_where_it_is_gross_and_by_all_where_not(
    draws: int, rate: float
) -> None:
    """A fault that breaks half the promises fails ten draws, and one that breaks a fifth fails 200."""
    allowed = most(draws, 0.1)
    assert binom.sf(allowed, draws, rate) > 0.94
    assert binom.sf(allowed, draws, 0.1) < 0.08
