"""What a stage replica runs: a variant of its own, or the shelf, which loads once the cascade answers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from contract.errors import DeadlineExceeded, NotReady, RequestError, SluiceError, StageFailed
from contract.family import Family
from contract.live import Revision, parse_revision
from contract.roster import Roster
from serve.control.families import store_of
from serve.control.follower import PULL_EVERY_S
from serve.control.revision_store import open_revisions
from serve.control.roster_follower import RosterFollower
from serve.control.roster_store import RosterStore
from serve.ray.followed_families import Followed, Holds
from serve.ray.scaling import ASKED, BUSY
from serve.settings.slots import own_deployment
from serve.stages.call import Ask, Reply
from serve.stages.inline import InlineStage, check_hanging
from serve.stages.load_meter import Asked, BusyShare, TimedBatches
from serve.stages.loaded_families import LoadedFamilies
from serve.stages.loading import Assignment, load_stage
from serve.stages.loop_turn import LoopTurn
from serve.stages.served_names import ServedNames
from serve.telemetry.observer import Observer
from serve.types.clock import Clock
from serve.types.current import REQUEST_ID, SPAN
from serve.types.recorder import Recorder

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.2
_LATE_S = 5.0
_ASKED_AGAIN_S = 0.2


class StageWorker:
    """Answers asks for the variants placed on one deployment, re-batched here over all gateway replicas.

    It follows the live state as gateways do, but frees a family late: a gateway may still be on the revision
    before, and what it asks must be answered by the build that it means.

    Args:
        assignment: of this run.
        deployment: where this worker runs.
        recorder_of: gives who is told of every batch, by the name that a family is served under.
        observer: watches single requests, if anybody does.
        clock: seconds.
    """

    def __init__(
        self,
        assignment: Assignment,
        deployment: str,
        recorder_of: Callable[[str], Recorder],
        observer: Observer | None = None,
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        self._assignment = assignment
        self._deployment = deployment
        self._timed: dict[str, TimedBatches] = {}
        self._recorder_of = recorder_of
        self._observer = observer
        self._outstanding = Asked(_ASKED_AGAIN_S, clock=clock)
        owner = next((name for name in assignment.slots.own if own_deployment(name) == deployment), "")
        lanes = assignment.settings.stage_of(owner).batch.lanes
        self._busy = BusyShare(self._busy_s, lanes, clock=clock)
        self._tracing = None if observer is None else observer.tracing
        self._clock = clock
        self._turn = LoopTurn()
        self._roster = RosterFollower(RosterStore(assignment.state), self._seat)
        self._names = ServedNames(assignment)
        self._store = store = store_of(assignment)
        self._families = LoadedFamilies(
            lambda reference: store.locate(reference, *assignment.folders),
            store.fetch,
            lambda family: self._names.placed_at(family, deployment),
            self._load_stage,
            self._forgotten,
        )
        limits = assignment.settings.limits
        self._patience_s = limits.max_seconds + _LATE_S
        self._seats: dict[str, Followed] = {}
        self._preload = True
        self._holds = Holds(self._patience_s, clock)
        self._asked: dict[int, asyncio.Task[Reply]] = {}

    @property
    def stages(self) -> dict[str, InlineStage]:
        """What is loaded, by variant."""
        return {stage.variant: stage for stage in self._families.stages}

    async def start(self, *, preload: bool) -> None:
        """Learn the families in force; load what is placed here now, or when it is asked for.

        Raises:
            NotReady: there is no roster, or no family can be loaded.
        """
        self._preload = preload
        try:
            await self._roster.catch_up()
            if not self._roster.number:
                raise NotReady(self._roster.problem or "there is no roster in the state directory")
            failed: dict[str, str] = {}
            # What was pushed while it loaded reached only those that ran.
            while any([await self._begin(seated, failed) for seated in list(self._seats.values())]):
                pass
            for name, problem in failed.items():
                if len(failed) == len(self._seats):
                    raise NotReady(f"{name}: {problem}")
                log.error("%s is not here until it can be loaded: %s", name, problem)
        except (SluiceError, OSError) as problem:
            raise NotReady(str(problem)) from problem
        finally:
            self._preload = True

    async def _begin(self, seated: Followed, failed: dict[str, str]) -> bool:
        """Follow a family, and keep what speaks against it by its name; return whether there is news."""
        failed.pop(seated.name, None)
        try:
            if await self._follow(seated):
                return True
        except (SluiceError, OSError) as problem:
            failed[seated.name] = str(problem)
        else:
            if not seated.number:
                failed[seated.name] = "there is no revision in the state directory"
        return False

    async def _seat(self, roster: Roster) -> None:
        """Follow the families of a roster, and no others."""
        seats = {}
        for seat in roster.seats:
            known = self._seats.get(seat.name)
            seats[seat.name] = known or Followed(
                seat.name, open_revisions(self._assignment.state, seat.place)
            )
        for name, seated in self._seats.items():
            if name not in seats:
                self._holds.keep_a_while(seated.needed)
        self._seats = seats

    async def prepare(self, raw: dict[str, Any], family: str = "") -> str | None:
        """Load a revision's families beside those that are here; return what speaks against it, if any.

        `family` is the name that it is served under; empty: the only one.
        """
        family = family or next(iter(self._seats), "")
        revision = parse_revision(raw)
        # The stages load, then the gateways, each so long at most; then it is committed.
        until = self._clock() + 2 * self._assignment.settings.ready_timeout_s + self._patience_s
        asked_at = self._holds.forgotten(family)
        try:
            for reference in revision.families:
                self._holds.prepare(family, reference.sha256, until)
                self._names.note(reference.sha256, family)
                await self._families.load(reference)
                if self._holds.forgotten(family) != asked_at:
                    self.tidy()
                    return f"{self._deployment}: it was called off while it loaded"
        except SluiceError as problem:
            log.exception("cannot load what was pushed")
            await self.forget(family)
            return f"{self._deployment}: {problem}"
        return None

    async def forget(self, family: str = "") -> None:
        """Let go of what was prepared and will not be committed; what is out of force stays its time.

        `family` is the name that it is served under, or would have been; empty: of all.
        """
        prepared = self._holds.call_off(family)
        await self.catch_up()  # what is just committed is needed, though nobody has told it here
        self._holds.drop(prepared)
        self.tidy()

    async def catch_up(self) -> None:
        """Load the families of the newest revisions, if there are newer ones, and free what nobody needs."""
        await self._roster.catch_up()
        for seated in list(self._seats.values()):
            try:
                await self._follow(seated)
            except SluiceError:
                log.exception(
                    "the newest revision of %s cannot be followed; what is loaded stays", seated.name
                )
            except OSError as problem:
                seated.reach.lost(problem)
            else:
                seated.reach.found()
        self.tidy()

    async def _follow(self, seated: Followed) -> bool:
        """Load what a newer revision of a family needs; return whether there was one."""
        newer = await asyncio.to_thread(seated.state.newer_than, seated.number)
        if newer is None:
            return False
        await self._hold(seated, newer, load=self._preload)
        return True

    async def follow(self) -> None:
        """Catch up twice a second, for ever."""
        while True:
            await asyncio.sleep(PULL_EVERY_S)
            await self.catch_up()

    def tidy(self) -> None:
        """Free the families that are out of force and have not been asked for longer than a request lasts."""
        kept = self._needed() | self._holds.now()
        if self._families.known - kept:
            self._families.keep(kept)

    async def load_when(self, ready: Callable[[], Awaitable[bool]]) -> None:
        """Load every variant once `ready`, one at a time: a family rebuilt later does not matter then."""
        while not await ready():
            await asyncio.sleep(_LOOK_EVERY_S)
        for reference in [reference for seated in self._seats.values() for reference in seated.references]:
            family = await self._families.learn(reference)
            for variant in self._names.placed_at(family, self._deployment):
                with contextlib.suppress(NotReady):  # told in the log
                    await self._stage(variant, family.build(variant))

    def load(self) -> dict[str, float]:
        """Return what scaling goes by: texts that gateways have for this deployment, and the time at work."""
        inside = sum(stage.queued for stage in self._families.stages)
        return {ASKED: max(self._outstanding.total(), inside), BUSY: self._busy.look(inside)}

    async def infer(
        self, variant: str, build: str, asks: list[Ask], told: tuple[str, int] | None = None
    ) -> list[Reply]:
        """Answer asks side by side, each with logits or with its own error.

        Args:
            variant: its name.
            build: which build of it.
            asks: what is asked.
            told: a gateway's name, and how many texts it has outstanding for this variant; None: it says
                nothing.

        Raises:
            NotReady: the variant is not here in that build, or cannot be loaded.
        """
        try:
            stage = await self._stage(variant, build)
        except NotReady:  # of a revision that this replica, started meanwhile, has not seen yet
            await self.catch_up()
            stage = await self._stage(variant, build)
        self._asked_for(build)
        if told is None:
            return await self._answer(stage, asks)
        self._outstanding.begins(told[0], build, told[1])
        try:
            return await self._answer(stage, asks)
        finally:
            self._outstanding.ends(told[0], build, sum(len(ask.texts) for ask in asks))

    async def _answer(self, stage: InlineStage, asks: list[Ask]) -> list[Reply]:
        now = time.monotonic()
        tasks = [asyncio.create_task(self._one(stage, ask, now)) for ask in asks]
        for ask, task in zip(asks, tasks, strict=True):
            self._asked[ask.number] = task
        try:
            replies = await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            for ask in asks:
                self._asked.pop(ask.number, None)
        return [
            DeadlineExceeded("called off")
            if isinstance(r, BaseException) and not isinstance(r, RequestError)
            else r
            for r in replies
        ]

    def call_off(self, numbers: Iterable[int]) -> None:
        """Drop asks that nobody waits for any more, so that what still waits of them does not run."""
        for number in numbers:
            task = self._asked.get(number)
            if task is not None:
                task.cancel()

    async def ready(self, variant: str, build: str) -> bool:
        """Return whether the variant answers in that build, loading it first if need be."""
        return await (await self._stage(variant, build)).ready()

    def check_hanging(self) -> None:
        """Raise StageFailed where a model does not come back; nothing in this process can end it."""
        check_hanging(self._families.stages)

    async def close(self) -> None:
        """Finish what is inside and free the variants."""
        self._families.keep(frozenset())
        await self._families.freed()

    def _needed(self) -> frozenset[str]:
        return frozenset[str]().union(*(seated.needed for seated in self._seats.values()))

    async def _hold(self, seated: Followed, revision: Revision, *, load: bool) -> None:
        """Have the families of a revision here, and keep those before it as long as they may be asked for."""
        for reference in revision.families:
            self._names.note(reference.sha256, seated.name)
            await self._families.learn(reference)
            if load:
                await self._families.load(reference)
        before = seated.needed
        seated.references, seated.number = revision.families, revision.number
        self._holds.keep_a_while(before - seated.needed)
        self._holds.committed(seated.name, seated.needed)

    def _asked_for(self, build: str) -> None:
        """Keep a family that is out of force while somebody asks for it."""
        needed = self._needed()
        if self._families.known == needed:
            return
        self._holds.keep_a_while(
            s for s in self._families.known - needed if build in self._families.builds(s)
        )

    async def _stage(self, variant: str, build: str) -> InlineStage:
        try:
            return await self._families.stage(variant, build)
        except NotReady:
            raise
        except SluiceError as problem:
            log.exception("cannot load %s", variant)
            raise NotReady(
                f"{variant} cannot be loaded: its files are not those that the gateway started with, "
                "or the machine lacks something; see the log, and restart the gateway"
            ) from problem

    def _forgotten(self, sha256: str) -> None:
        self._store.let_go(sha256)
        self._names.forget(sha256)

    def _load_stage(self, folder: Path, family: Family, name: str) -> InlineStage:
        settings, served = self._assignment.settings, self._names.of(family)
        if served not in self._timed:
            told = self._recorder_of(served)
            self._timed[served] = TimedBatches(
                told if self._observer is None else self._observer.recorder(told, served)
            )
        return load_stage(
            settings,
            folder,
            family,
            name,
            self._timed[served],
            settings.provider,
            self._turn,
            served=served,
        )

    def _busy_s(self) -> float:
        return sum(timed.seconds for timed in list(self._timed.values()))

    async def _one(self, stage: InlineStage, ask: Ask, now: float) -> Reply:
        deadline_at = None if ask.remaining_s is None else now + ask.remaining_s
        due_at = None if ask.due_s is None else now + ask.due_s
        REQUEST_ID.set(ask.request_id)
        span = None
        if ask.trace is not None and self._tracing is not None:
            span = self._tracing.request(f"serve {stage.variant}", ask.trace)
            SPAN.set(span)
        try:
            return await stage.logits(ask.texts, deadline_at, due_at, ask.priority)
        except RequestError as problem:
            return problem
        except Exception:
            log.exception("%s failed", stage.variant)
            return StageFailed(f"{stage.variant} failed")
        finally:
            if span is not None:
                span.end()
