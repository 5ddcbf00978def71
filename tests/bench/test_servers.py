"""Servers are driven once all of their processes are up."""

from __future__ import annotations

from bench.gateway.servers import wait_until_idle


def test_a_server_is_driven_once_the_machine_is_idle() -> None:
    """The busy seconds of its start are waited out, and not one more."""
    spent = iter([1.9, 0.8, 0.2, 1.9])
    assert wait_until_idle(look=lambda: next(spent))
    assert next(spent) == 1.9


def test_a_machine_that_never_rests_is_driven_all_the_same() -> None:
    """After as many seconds as were given."""
    looked = []
    assert not wait_until_idle(5.0, lambda: looked.append(1) or 2.0)  # type: ignore[func-returns-value]
    assert len(looked) == 5
