"""What every protocol asks: one data plane, whether one family stands behind it or several."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol

from serve.types.messages import ClassifyRequest, ClassifyResult, ModelInfo
from serve.types.recorder import Recorder


class Plane(Protocol):
    """Answers requests by the name of a model, and says what models there are."""

    def begin(self, request: ClassifyRequest) -> ClassifyResult | Coroutine[Any, Any, ClassifyResult]:
        """Return the answers if no text has to wait for one, else what finds them, to be awaited.

        A model that was asked for by a longer name than its family has for it becomes `request.asked`.

        Raises:
            UnknownModel, Overloaded, DeadlineExceeded, NotReady, StageFailed.
        """
        ...

    async def classify(self, request: ClassifyRequest) -> ClassifyResult:
        """Answer every text of a request; raises as `begin`."""
        ...

    async def ready(self) -> bool:
        """Return whether every stage of every policy in force would answer now."""
        ...

    async def model_ready(self, model: str) -> bool:
        """Return whether that model would answer now. Raises UnknownModel, NotReady."""
        ...

    def model(self, name: str) -> ModelInfo:
        """Describe a served model. Raises UnknownModel, NotReady."""
        ...

    def models(self) -> tuple[str, ...]:
        """Return the names of what is served, a family's cascade before its variants. Raises NotReady."""
        ...

    def catalogue(self) -> tuple[ModelInfo, ...]:
        """Describe all that is served, in the order of `models`; the same object while it is the same.

        Of several families those that are not ready here are left out. Raises NotReady for one alone, and
        Stopping once the gateway stops.
        """
        ...

    @property
    def falls_short(self) -> bool:
        """Whether the last catalogue left out a family that is not ready here."""
        ...

    def made_at(self, name: str) -> str:
        """Return when the family of a model was made, as its manifest says; empty where it does not."""
        ...

    def local_name(self, name: str) -> str:
        """Return the short name of a model: `cascade`, or a variant. Raises UnknownModel, NotReady."""
        ...

    def check_served(self, name: str) -> None:
        """Raise UnknownModel unless that model is served, NotReady when none is yet."""
        ...

    def serves(self, name: str) -> bool:
        """Return whether that is the name of a served model."""
        ...

    def dearest_usd(self, name: str) -> float:
        """Return what one text costs by a model at the most: by the cascade, where every stage runs."""
        ...

    def whose(self, request: ClassifyRequest) -> tuple[str, Recorder] | None:
        """Return by which name and by whom a request that gets no answer is counted.

        None: no family serves the model that it asks for.
        """
        ...
