"""The clock that deadlines are on."""

from __future__ import annotations

from collections.abc import Callable

Clock = Callable[[], float]
"""Gives seconds; `time.monotonic` outside tests."""
