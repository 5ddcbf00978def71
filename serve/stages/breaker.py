"""A circuit breaker: a stage that fails or times out is not asked by every request, but probed."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from contract.errors import NotReady
from serve.settings.resilience import BreakerRules
from serve.types.priority import DEFAULT_PRIORITY, OFF_PATH_PRIORITY
from serve.types.recorder import BreakerState, Incident

log = logging.getLogger(__name__)

INCIDENT: dict[BreakerState, Incident] = {
    "closed": "breaker_closed",
    "open": "breaker_open",
    "half_open": "breaker_half_open",
}
FORGOTTEN_S = 60.0
"""So long after its pause nobody asks for the stage any more: no policy has it, or there are no requests."""
Told = Callable[[BreakerState], None]


class StageUnavailable(NotReady):
    """The breaker of a stage is open: it failed, and is tried again after a while."""


class Breaker:
    """Counts the calls of one stage. It costs a request one comparison while it is closed.

    Closed, it looks at the last calls. Open, it refuses. After a while it lets one request through at a time
    (half open): a call that comes back well closes it, another failure opens it for twice as long.

    Args:
        name: variant, for logs and refusals.
        rules: when.
        told: told of every state, the first one too.
    """

    __slots__ = ("_calls", "_name", "_open_s", "_probed_at", "_rules", "_told", "_until", "state")

    def __init__(self, name: str, rules: BreakerRules, told: Told = lambda _: None) -> None:
        self._name = name
        self._rules = rules
        self._told = told
        self._calls: deque[bool] = deque(maxlen=rules.window_calls)
        self._open_s = rules.open_s
        self._until = 0.0
        self._probed_at: float | None = None
        self.state: BreakerState = "closed"
        told("closed")

    def check(self, now: float, priority: int = DEFAULT_PRIORITY) -> None:
        """Let a request through, or raise StageUnavailable; a probe is for those whom a client waits for."""
        if self.state == "closed":
            return
        if priority == OFF_PATH_PRIORITY:
            raise StageUnavailable(f"{self._name} fails and is not asked now")
        if self.state == "open" and now >= self._until:
            self._probed_at = None
            self._change("half_open", "it is probed")
        # A probe may end without a word on the stage, when its client leaves; then the next one has its turn.
        probing = self._probed_at is not None and now < self._probed_at + self._rules.open_s
        if self.state == "open" or probing:
            left_s = max(self._until - now, 1.0)
            raise StageUnavailable(f"{self._name} fails and is not asked now", retry_after_s=left_s)
        self._probed_at = now

    def look(self, now: float) -> BreakerState:
        """Return the state. Whoever watches has to look: without requests nothing else ends a pause."""
        if self.state == "open" and now >= self._until:
            self._probed_at = None
            self._change("half_open", "its pause is over")
        elif self.state == "half_open" and now >= max(self._until, self._probed_at or 0.0) + FORGOTTEN_S:
            self._calls.clear()
            self._open_s = self._rules.open_s
            self._change("closed", "nobody has asked it since its pause ended")
        return self.state

    def succeeded(self) -> None:
        """A call came back in order."""
        if self.state == "closed":
            self._calls.append(True)
        elif self.state == "half_open":
            self._calls.clear()
            self._open_s = self._rules.open_s
            self._change("closed", "it answers again")

    def failed(self, now: float, why: str) -> None:
        """A call failed, and not for a fault of its requests."""
        rules = self._rules
        if not rules.enabled:
            return
        if self.state == "half_open":
            self._open_s = min(2 * self._open_s, rules.max_open_s)
            self._open(now, why)
        elif self.state == "closed":
            self._calls.append(False)
            failures = self._calls.count(False)
            if failures >= rules.min_failures and failures >= rules.failure_share * len(self._calls):
                self._open(now, why)

    def _open(self, now: float, why: str) -> None:
        self._until = now + self._open_s
        self._change("open", f"{why}; next probe in {self._open_s:g} s")

    def _change(self, state: BreakerState, why: str) -> None:
        self.state = state
        log.warning("the breaker of %s is %s: %s", self._name, state.replace("_", " "), why)
        self._told(state)
