"""When a failed request is sent again: a budget, pauses that the server wants, growing waits. No network."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import Random

from contract.errors import RemoteFailure

SHARE = 0.2
"""Of the requests that may be sent again; what is not used is saved up to BURST."""
BURST = 20.0
FIRST_WAIT_S = 0.25
MOST_WAIT_S = 30.0
LONGEST_PAUSE_S = 3600.0


def retry_after_s(value: str | None, now: datetime | None = None) -> float | None:
    """Return the seconds that a header Retry-After asks for; None where it cannot be read.

    It holds seconds or a date (RFC 9110, 10.2.3). Nothing below 0 or beyond an hour is given.
    """
    if value is None:
        return None
    text = value.strip()
    try:
        seconds = float(text) if text.isascii() else math.nan
    except ValueError:
        try:
            then = parsedate_to_datetime(text)
        except (ValueError, TypeError, OverflowError):
            return None
        if then.tzinfo is None:
            then = then.replace(tzinfo=UTC)
        seconds = (then - (now or datetime.now(UTC))).total_seconds()
    if math.isnan(seconds):
        return None
    return min(max(seconds, 0.0), LONGEST_PAUSE_S)


class Retries:
    """What may be sent again, and when. Not safe for threads.

    Attributes:
        resumes_at: clock second before which the server wants no request; 0: it has not said.
    """

    def __init__(self, seed: int = 0) -> None:
        self._tokens = BURST
        self._random = Random(seed)
        self._pauses = 0
        self.resumes_at = 0.0

    def begun(self) -> None:
        """A question is asked for the first time."""
        self._tokens = min(BURST, self._tokens + SHARE)

    def answered(self) -> None:
        """The server answered."""
        self._pauses = 0

    def failed(self, failure: RemoteFailure, now: float) -> None:
        """Remember how long the server is to be left alone: as it says, else longer each time it is busy."""
        pause_s = failure.retry_after_s
        if failure.kind == "busy" and not pause_s:
            pause_s = min(2.0**self._pauses, MOST_WAIT_S)
        if pause_s is not None:
            if now >= self.resumes_at:
                self._pauses += 1
            self.resumes_at = max(self.resumes_at, now + pause_s)

    def again_s(self, failure: RemoteFailure, attempt: int) -> float | None:
        """Return how long to wait before a request is sent again, beside any pause; None: it is not.

        Args:
            attempt: how often it was sent, 1 being the first.
        """
        if not failure.passes:
            return None
        if failure.kind != "busy":  # the pause alone holds those back
            if self._tokens < 1:
                return None
            self._tokens -= 1
        wait_s = min(FIRST_WAIT_S * 2.0 ** (attempt - 1), MOST_WAIT_S)
        return wait_s * (0.5 + self._random.random())
