"""The data planes of several families as one: the name of a model says whose it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from contract.errors import NotReady, UnknownModel
from serve.dataplane.plane import DataPlane
from serve.dataplane.served import Stopping
from serve.types.messages import CASCADE, ClassifyRequest, ClassifyResult, ModelInfo
from serve.types.recorder import Recorder

Begin = Callable[[ClassifyRequest], ClassifyResult | Coroutine[Any, Any, ClassifyResult]]


class FamilyPlanes:
    """Hands each request to the family that it names.

    `NAME` is the cascade of a family and `NAME/variant` one of its variants. A family alone is asked without
    any step between, and knows its longer names itself.

    Attributes:
        begin, local_name: see Plane.
    """

    begin: Begin
    local_name: Callable[[str], str]

    def __init__(self) -> None:
        self._planes: Mapping[str, DataPlane] = {}
        self._lone: DataPlane | None = None
        self._plain: DataPlane | None = None
        self._stopping = False
        self._parts: Mapping[str, tuple[ModelInfo, ...]] = {}
        self._catalogue: tuple[ModelInfo, ...] = ()
        self.begin, self.local_name = self._begin, self._local_name

    def serve(self, planes: Mapping[str, DataPlane], plain: str | None = None) -> None:
        """Serve these families from now on, all in one step.

        Args:
            planes: by the names that the families are served under.
            plain: the one that is asked by short names too, such as `cascade`, which nobody is while it is
                away; None: the only one is.
        """
        self._planes = dict(sorted(planes.items(), key=lambda found: found[0] != plain))
        self._lone = next(iter(planes.values())) if len(planes) == 1 and plain in (None, *planes) else None
        self._plain = self._lone or self._planes.get(plain or "")
        if self._lone is None:
            self.begin, self.local_name = self._begin, self._local_name
        else:
            self.begin, self.local_name = self._lone.begin, self._lone.local_name

    @property
    def in_flight(self) -> int:
        """Texts inside."""
        return sum(plane.in_flight for plane in self._planes.values())

    async def classify(self, request: ClassifyRequest) -> ClassifyResult:
        """See Plane."""
        found = self.begin(request)
        return found if isinstance(found, ClassifyResult) else await found

    def _begin(self, request: ClassifyRequest) -> ClassifyResult | Coroutine[Any, Any, ClassifyResult]:
        plane, local = self._find(request.model)
        asked = request.model
        if local != asked:
            request.asked, request.model = asked, local
        try:
            return plane.begin(request)
        except UnknownModel:
            raise UnknownModel(asked, self._names()) from None

    async def ready(self) -> bool:
        """See Plane: of the families that are loaded here; a gateway without any has nothing to wait for."""
        if self._stopping:
            return False
        loaded = [plane for plane in self._planes.values() if _is_loaded(plane)]
        if not loaded and self._planes:
            return False
        return all(await asyncio.gather(*(plane.ready() for plane in loaded)))

    async def model_ready(self, model: str) -> bool:
        """See Plane; no model of a family is that is not loaded here yet."""
        try:
            plane, local = self._known(model)
            return await plane.model_ready(local)
        except NotReady:
            return False

    def model(self, name: str) -> ModelInfo:
        """See Plane."""
        plane, local = self._known(name)
        return replace(plane.model(local), name=name)

    def models(self) -> tuple[str, ...]:
        """See Plane; of a family alone the short names."""
        self._check_going()
        return self._names() if self._lone is None else self._lone.models()

    def _names(self) -> tuple[str, ...]:
        """Return the long names; of a family that is not ready here only the first."""
        found: list[str] = []
        for name, plane in self._planes.items():
            found.append(name)
            with suppress(NotReady):
                found += [f"{name}/{local}" for local in plane.models() if local != CASCADE]
        return tuple(found)

    def catalogue(self) -> tuple[ModelInfo, ...]:
        """See Plane."""
        self._check_going()
        if self._lone is not None:
            return self._lone.catalogue()
        parts: dict[str, tuple[ModelInfo, ...]] = {}
        for name, plane in self._planes.items():
            with suppress(NotReady):
                parts[name] = plane.catalogue()
        if not _are_same(parts, self._parts):
            self._parts = parts
            self._catalogue = tuple(
                replace(info, name=name if info.is_cascade else f"{name}/{info.local}")
                for name, part in parts.items()
                for info in part
            )
        return self._catalogue

    @property
    def falls_short(self) -> bool:
        """See Plane."""
        return self._lone is None and len(self._parts) < len(self._planes)

    def made_at(self, name: str) -> str:
        """See Plane; nobody knows it of a family that is not loaded here yet."""
        plane, local = self._find(name)
        try:
            return plane.made_at(local)
        except NotReady:
            return ""

    def _local_name(self, name: str) -> str:
        return self._known(name)[1]

    def check_served(self, name: str) -> None:
        """See Plane."""
        self._known(name)

    def serves(self, name: str) -> bool:
        """See Plane."""
        try:
            self._known(name)
        except (UnknownModel, NotReady):
            return False
        return True

    def dearest_usd(self, name: str) -> float:
        """See Plane."""
        plane, local = self._known(name)
        return plane.dearest_usd(local)

    def whose(self, request: ClassifyRequest) -> tuple[str, Recorder] | None:
        """See Plane."""
        try:
            plane, local = self._find(request.asked or request.model)
        except UnknownModel:
            return None
        return plane.whose(replace(request, model=local, asked=""))

    async def drain(self) -> None:
        """Refuse new requests and be unready from now on; return once none is left inside."""
        self._stopping = True
        await asyncio.gather(*(plane.drain() for plane in self._planes.values()))

    def _check_going(self) -> None:
        if self._stopping:
            raise Stopping("the gateway is stopping")

    def _known(self, name: str) -> tuple[DataPlane, str]:
        """Return whose model that is, and the family's own name for it. Raises UnknownModel, NotReady."""
        plane, local = self._find(name)
        try:
            return plane, plane.local_name(local)
        except UnknownModel:
            raise UnknownModel(name, self.models()) from None

    def _find(self, name: str) -> tuple[DataPlane, str]:
        """Return whose model that would be, and its short name. Raises UnknownModel."""
        if self._lone is not None:
            return self._lone, name
        family, slash, variant = name.partition("/")
        plane = self._planes.get(family)
        if plane is not None and plane is not self._plain:
            return plane, variant if slash else CASCADE
        if self._plain is not None:
            return self._plain, name  # it knows all of its names, as when it was alone
        raise UnknownModel(name, self._names())


def _is_loaded(plane: DataPlane) -> bool:
    try:
        plane.models()
    except NotReady:
        return False
    return True


def _are_same(one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    return list(one) == list(other) and all(one[name] is other[name] for name in one)
