"""What the log says of a store that is asked again and again: a line when it goes, one when it is back."""

from __future__ import annotations

import logging


class Reach:
    """Whether something in a store can be asked now.

    Args:
        log: where changes are told.
        what: is asked for, in words that go before "cannot be reached".
    """

    def __init__(self, log: logging.Logger, what: str) -> None:
        self._log = log
        self._what = what
        self._is_away = False

    def lost(self, problem: OSError) -> None:
        """It could not be asked."""
        if not self._is_away:
            self._log.error("%s cannot be reached, and is asked again: %s", self._what, problem)
        self._is_away = True

    def found(self) -> None:
        """It was asked."""
        if self._is_away:
            self._log.warning("%s can be reached again", self._what)
        self._is_away = False
