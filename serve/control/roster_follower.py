"""How a process follows which families are in force."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from contract.errors import InputError
from contract.roster import Roster
from serve.control.follower import PULL_EVERY_S
from serve.control.roster_store import RosterStore
from serve.storage.reach import Reach

log = logging.getLogger(__name__)


class RosterFollower:
    """The roster in force in one process.

    Args:
        rosters: where they come from.
        follow: does what a newer roster asks for; one at a time.
        idle: called after every look.
    """

    def __init__(
        self,
        rosters: RosterStore,
        follow: Callable[[Roster], Awaitable[None]],
        idle: Callable[[], None] = lambda: None,
    ) -> None:
        self._rosters = rosters
        self._follow = follow
        self._idle = idle
        self._one_at_a_time = asyncio.Lock()
        self._reach = Reach(log, "the store of rosters")
        self.number = 0
        self.problem: str | None = None

    async def catch_up(self) -> None:
        """Follow the newest roster. Where the store cannot be asked, nothing newer is known."""
        async with self._one_at_a_time:
            try:
                newer = await asyncio.to_thread(self._rosters.newer_than, self.number)
            except InputError as problem:
                if self.problem is None:
                    log.error("cannot follow which families are in force: %s", problem)
                self.problem = str(problem)
                return
            except OSError as problem:
                self._reach.lost(problem)
                return
            self._reach.found()
            self.problem = None
            if newer is not None:
                await self._follow(newer)
                self.number = newer.number
                log.info("roster %s is in force: %s", newer.number, ", ".join(newer.names) or "no family")

    async def follow(self) -> None:
        """Catch up twice a second, for ever."""
        while True:
            await asyncio.sleep(PULL_EVERY_S)
            await self.catch_up()
            self._idle()
