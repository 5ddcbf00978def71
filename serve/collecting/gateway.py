"""What a gateway replica needs to keep what its upstream answers, on the path and at remote stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from contract.collected import Question
from contract.family import Family
from contract.remote import RemoteModel
from contract.urls import parse_base_url
from serve.collecting.collector import Collector
from serve.collecting.exchange import listener_of
from serve.collecting.stage import CollectedStage
from serve.settings.gateway import Settings
from serve.types.stage import Stage, instructions_of

REMOTE = "remote"


class Collecting:
    """A replica's collector, and where it listens.

    Attributes:
        listener: told of each request that was passed on and answered.
    """

    def __init__(self, collector: Collector, listener: Callable[[bytes, bytes, float], None]) -> None:
        self._collector = collector
        self.listener = listener

    def stages(self, family: Family, stages: Mapping[str, Stage]) -> dict[str, Stage]:
        """Return a family's stages, those of models elsewhere with the collector behind them."""
        return {name: self._collected(family, name, stage) for name, stage in stages.items()}

    def close(self) -> None:
        """Write what is there, and end; waits for the disk."""
        self._collector.close()

    def _collected(self, family: Family, name: str, stage: Stage) -> Stage:
        variant = family.variant(name)
        if variant.kind != REMOTE:
            return stage
        usd = None if variant.usd_per_1k is None else variant.usd_per_1k / 1000
        labels = tuple(sorted(family.labels))
        question = Question(labels=labels, instructions=instructions_of(stage) or "")
        asked = getattr(stage, "asked", None)
        url = ""
        if isinstance(asked, RemoteModel):
            question, url = question.model_copy(update={"model": asked.model}), asked.url
        return CollectedStage(stage, question, family.labels, self._collector, usd, upstream=url)


def make_collecting(settings: Settings) -> Collecting | None:
    """Return what keeps answers in this process; None where the settings keep none."""
    if settings.collect is None:
        return None
    collector = Collector(settings.collect)
    upstream = settings.upstream
    usd_per_1k, url = (
        (None, "") if upstream is None else (upstream.usd_per_1k, str(parse_base_url(upstream.url)))
    )
    return Collecting(collector, listener_of(collector, settings.limits, usd_per_1k, url))
