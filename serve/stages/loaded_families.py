"""The families that one process has loaded, side by side while one takes the other's place."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from contract.errors import FamilyError, NotReady
from contract.family import Family, read_family
from contract.live import FamilyReference

log = logging.getLogger(__name__)

PlacedHere = Callable[[Family], Sequence[str]]
Locate = Callable[[FamilyReference], Path]
Fetch = Callable[[str], Path]


class Loaded(Protocol):
    """A variant that this process has loaded."""

    @property
    def variant(self) -> str:
        """Name of the variant."""
        ...

    async def close(self) -> None:
        """Finish what is inside and free it."""
        ...


S = TypeVar("S", bound=Loaded)


class LoadedFamilies(Generic[S]):
    """Families by their hash, their loaded variants by build: what two families share is loaded once.

    Args:
        locate: finds a family on this node, in a thread; raises FamilyError.
        fetch: finds it by its hash alone, in a thread, where a file of what was located is another; raises
            FamilyError.
        placed_here: names the variants of a family that this process is to have.
        load: loads one variant, in a thread; raises FamilyError, EnvironmentProblem.
        forgotten: told of a family that is not needed here any more.
    """

    def __init__(
        self,
        locate: Locate,
        fetch: Fetch,
        placed_here: PlacedHere,
        load: Callable[[Path, Family, str], S],
        forgotten: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._locate = locate
        self._fetch = fetch
        self._placed_here = placed_here
        self._load = load
        self._forgotten = forgotten
        self._known: dict[str, tuple[Family, Path]] = {}
        self._stages: dict[str, S] = {}
        self._closing: dict[S, asyncio.Task[None]] = {}
        self._loading: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._wanted: Counter[str] = Counter()

    @property
    def stages(self) -> tuple[S, ...]:
        """All that is loaded, first what finishes what is inside, to be freed then."""
        return *self._closing, *self._stages.values()

    @property
    def known(self) -> frozenset[str]:
        """Hashes of the families that are known here."""
        return frozenset(self._known)

    def builds(self, sha256: str) -> frozenset[str]:
        """Return the builds of a family that is known here; none of another."""
        if sha256 not in self._known:
            return frozenset()
        family, _ = self._known[sha256]
        return frozenset(family.build(name) for name in family.names)

    async def learn(self, reference: FamilyReference) -> Family:
        """Find a family on this node and read its manifest. Raises FamilyError."""
        if reference.sha256 not in self._known:
            self._known[reference.sha256] = await asyncio.to_thread(self._find, reference)
        return self._known[reference.sha256][0]

    async def load(self, reference: FamilyReference) -> dict[str, S]:
        """Load a family's variants, one after the other, beside what is loaded; return them by name.

        What is loaded when one of them fails stays until `keep`.

        Raises:
            FamilyError, EnvironmentProblem: as `runtime.load.load_variant`.
        """
        self._wanted[reference.sha256] += 1
        try:
            family = await self.learn(reference)
            return {name: await self._loaded(family, name) for name in self._placed_here(family)}
        finally:
            self._wanted[reference.sha256] -= 1

    async def stage(self, variant: str, build: str) -> S:
        """Return the stage of that very build, loaded now if a known family has it here.

        Raises:
            NotReady: no family that is known has it here.
            FamilyError, EnvironmentProblem: as `runtime.load.load_variant`.
        """
        stage = self._stages.get(build)
        if stage is not None:
            return stage
        for family, _ in tuple(self._known.values()):
            if variant in self._placed_here(family) and family.build(variant) == build:
                self._wanted[family.sha256] += 1
                try:
                    return await self._loaded(family, variant)
                finally:
                    self._wanted[family.sha256] -= 1
        raise NotReady(f"{variant} is not here in that build")

    def keep(self, needed: Set[str]) -> None:
        """Forget every family but these and those being loaded; what none that is left has here is freed.

        It finishes what is inside first, in a task of its own: a model that hangs holds up nobody.
        """
        wanted = {sha256 for sha256, count in self._wanted.items() if count}
        for sha256 in set(self._known) - needed - wanted:
            del self._known[sha256]
            self._forgotten(sha256)
        left = {build for sha256 in self._known for build in self._needed_builds(sha256, sha256 in wanted)}
        for build in set(self._stages) - left:
            stage = self._stages.pop(build)
            self._closing[stage] = asyncio.create_task(self._close(stage))
        for build in set(self._loading) - left:
            if not self._loading[build].locked():
                del self._loading[build]

    def _needed_builds(self, sha256: str, loading: bool) -> frozenset[str]:
        """Return the builds of a family that are to be here, all of one that loads."""
        if loading:
            return self.builds(sha256)
        family, _ = self._known[sha256]
        return frozenset(family.build(name) for name in self._placed_here(family))

    async def freed(self) -> None:
        """Return once everything that is to be freed is."""
        while self._closing:
            await asyncio.wait(self._closing.values())

    async def _close(self, stage: S) -> None:
        try:
            await stage.close()
        except Exception:
            log.exception("%s could not be freed", stage.variant)
        finally:
            del self._closing[stage]

    def _find(self, reference: FamilyReference) -> tuple[Family, Path]:
        folder = self._locate(reference)
        return read_family(folder, verify=False), folder

    async def _loaded(self, family: Family, name: str) -> S:
        build = family.build(name)
        async with self._loading[build]:
            if build not in self._stages:
                self._stages[build] = await asyncio.to_thread(self._load_from, family, name)
            return self._stages[build]

    def _load_from(self, family: Family, name: str) -> S:
        """Load a variant from where its family is, else from what is kept of it by hash."""
        _, folder = self._known[family.sha256]
        try:
            return self._load(folder, family, name)
        except FamilyError as problem:
            try:
                kept = self._fetch(family.sha256)
            except FamilyError:
                raise problem from None
            if kept == folder:
                raise
            log.warning("family %s is fetched, since its folder was altered: %s", family.sha256[:12], problem)
            self._known[family.sha256] = family, kept
            return self._load(kept, family, name)
