"""Which gear load asks for: up soon, down late, later still where going down has just failed. No clock."""

from __future__ import annotations

from math import exp, inf

from serve.settings.gears import GearSettings

_SETTLES = 2.0
"""Times `calm_s`: load that drives a gear up again so soon after it went down would not have borne it."""


class Governor:
    """The gear of one replica.

    A gear down is a try: how much more a dearer gear asks of the stages is not known before it does. One that
    fails goes back by one gear, and the next try comes after twice the time. While what waits gets less, no
    gear goes up: the one before has begun to help.

    Args:
        rungs: how many gears there are, 0 the safest.
        at: the one to begin in.
        lowest: none below it is taken.
        rules: when it moves.

    Attributes:
        at: the gear.
    """

    __slots__ = (
        "_calm_since", "_down_at", "_last", "_looked_at", "_lowest", "_moved_at", "_patience_s", "_rules",
        "_share", "_top", "_up_from", "at",
    )  # fmt: skip

    def __init__(self, rungs: int, at: int, lowest: int, rules: GearSettings) -> None:
        self.at = at
        self._top = rungs - 1
        self._lowest = lowest
        self._rules = rules
        self._share = 0.0
        self._last = 0.0
        self._up_from = -inf
        self._looked_at = -inf
        self._moved_at = -inf
        self._down_at = -inf
        self._calm_since: float | None = None
        self._patience_s = rules.calm_s

    def look(self, now: float, share: float) -> int:
        """Return the gear from now on.

        Args:
            now: clock seconds.
            share: of the time that there is which a newcomer would wait now.
        """
        rules = self._rules
        elapsed = 0.0 if self._looked_at == -inf else now - self._looked_at
        self._looked_at = now
        self._share += (share - self._share) * (1.0 - exp(-elapsed / rules.window_s))
        last, self._last = self._last, share
        may_go_up = self.at < self._top and share >= last
        if may_go_up and last >= rules.at_once_at and now >= self._up_from:
            self._up(now, self._top)
        elif may_go_up and self._share >= rules.up_at and now - self._moved_at >= rules.window_s:
            self._up(now, self.at + 1)
        elif self._share > rules.down_at:
            self._calm_since = None
        elif self._calm_since is None:
            self._calm_since = now
        elif now - self._calm_since >= self._patience_s and self.at > self._lowest:
            self._down(now)
        return self.at

    def _up(self, now: float, to: int) -> None:
        rules = self._rules
        failed = now - self._down_at <= _SETTLES * rules.calm_s
        self._patience_s = min(2 * self._patience_s, rules.most_calm_s) if failed else rules.calm_s
        self._up_from = now + rules.window_s if failed else -inf
        self._down_at = -inf
        self._calm_since = None
        self._moved_at = now
        self.at = self.at + 1 if failed else to

    def _down(self, now: float) -> None:
        if self._down_at != -inf:  # the step before this one held
            self._patience_s = self._rules.calm_s
        self._down_at = self._moved_at = self._calm_since = now
        self.at -= 1
