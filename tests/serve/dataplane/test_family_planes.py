"""Families side by side: which of them answers a request, and by which names their models are known."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from contract.errors import NotReady, Overloaded, UnknownModel
from runtime.fake_family import write_fake_family
from serve.dataplane.family_planes import FamilyPlanes
from serve.dataplane.plane import DataPlane
from serve.dataplane.refusals import count_refusal
from serve.http.app import Gateway
from serve.settings.limits import RequestLimits
from serve.traffic.plane import TrafficPlane
from serve.types.messages import ClassifyRequest
from serve.types.stage import Snapshot
from tests.serve.parts import FakeFolder, Kept, serving, snapshot_of, two_stage_policy

pytestmark = pytest.mark.anyio

SENTIMENT = ("bad", "good")


class Pair:
    """Two families of other labels, each with a recorder of its own."""

    def __init__(self, folder: Path) -> None:
        self.kept = {"news": Kept(), "mood": Kept()}
        self.nobody = Kept()
        self.behind: set[str] = set()
        news = write_fake_family(folder / "news", rows=60, delay_ms=0.0)
        mood = write_fake_family(folder / "mood", rows=60, delay_ms=0.0, labels=SENTIMENT, name="mood")
        limits = RequestLimits(max_in_flight_texts=8)
        self.planes: dict[str, DataPlane] = {}
        for name, family in (("news", news), ("mood", mood)):
            fakes = FakeFolder(folder / name, family)
            snapshot = snapshot_of(fakes, two_stage_policy(), self.kept[name])
            self.planes[name] = TrafficPlane(self._given(name, snapshot), limits, self.kept[name], name=name)
        self.both = FamilyPlanes()

    def _given(self, name: str, snapshot: Snapshot) -> Callable[[], Snapshot]:
        def give() -> Snapshot:
            if name in self.behind:
                raise NotReady("behind")
            return snapshot

        return give

    def serve(self, *names: str, plain: str | None = None) -> FamilyPlanes:
        """Serve some of the two."""
        self.both.serve({name: self.planes[name] for name in names}, plain)
        return self.both


def asking(model: str, texts: int = 1) -> ClassifyRequest:
    """A request of new texts."""
    return ClassifyRequest(model, [f"story {n}" for n in range(texts)], None, time.monotonic())


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """Two families, none of them served yet."""
    return Pair(tmp_path)


async def test_each_request_is_answered_by_the_family_that_its_model_names(pair: Pair) -> None:
    """The labels are that family's, the figures go to it alone, and the name stays as it was asked."""
    both = pair.serve("news", "mood")
    request = asking("mood", 3)
    result = await both.classify(request)
    assert (result.labels, request.asked, request.model) == (SENTIMENT, "mood", "cascade")
    single = asking("news/fake-other")
    assert (await both.classify(single)).variant == ["fake-other"]
    assert single.asked == "news/fake-other"
    assert [record.model for record in pair.kept["mood"].answers] == ["cascade"]
    assert [record.model for record in pair.kept["news"].answers] == ["fake-other"]


async def test_a_family_alone_has_its_short_names_and_its_long_ones_too(pair: Pair) -> None:
    """It is asked without a step between; short names are what lists have."""
    alone = pair.serve("mood")
    assert alone.begin == pair.planes["mood"].begin
    assert alone.models() == ("cascade", "fake-small", "fake-other", "fake-large")
    for model, local in (("cascade", "cascade"), ("mood", "cascade"), ("mood/fake-large", "fake-large")):
        assert alone.local_name(model) == local
        assert (await alone.classify(asking(model))).labels == SENTIMENT
    with pytest.raises(UnknownModel):
        alone.begin(asking("news"))
    with pytest.raises(UnknownModel):
        alone.begin(asking("moody/fake-large"))


async def test_short_names_of_several_are_those_of_the_one_that_was_alone(pair: Pair) -> None:
    """Its clients go on; where none was alone, a short name means nothing and the refusal lists names."""
    both = pair.serve("news", "mood", plain="news")
    assert (await both.classify(asking("cascade"))).labels != SENTIMENT
    assert both.local_name("fake-small") == "fake-small"
    pair.serve("news", "mood")
    with pytest.raises(UnknownModel, match="unknown model 'cascade'; serving: news, news/fake-small"):
        both.begin(asking("cascade"))
    with pytest.raises(UnknownModel, match="unknown model 'mood/none'"):
        both.begin(asking("mood/none"))
    assert not both.serves("mood/none")
    assert not both.serves("fake-small")


def test_what_there_is_is_described_once_until_it_changes(pair: Pair) -> None:
    """By the names to ask by, each with its family and its short name there."""
    both = pair.serve("news", "mood")
    catalogue = both.catalogue()
    told = [(info.name, info.family, info.local, info.is_cascade) for info in catalogue]
    assert told[:2] == [("news", "news", "cascade", True), ("news/fake-small", "news", "fake-small", False)]
    assert tuple(info.name for info in catalogue) == both.models()
    assert both.catalogue() is catalogue
    assert both.model("mood/fake-small") == catalogue[5]
    pair.serve("mood")
    assert [info.name for info in both.catalogue()][:2] == ["cascade", "fake-small"]


async def test_a_family_that_is_not_ready_hides_only_itself(pair: Pair) -> None:
    """And with no family at all there is nothing to wait for, and nothing to ask."""
    empty = FamilyPlanes()
    assert await empty.ready()
    assert (empty.models(), empty.catalogue()) == ((), ())
    with pytest.raises(UnknownModel):
        empty.begin(asking("cascade"))
    both = pair.serve("news", "mood")
    assert await both.ready()
    pair.behind = {"mood"}
    assert await both.ready()
    assert both.models() == ("news", "news/fake-small", "news/fake-other", "news/fake-large", "mood")
    with pytest.raises(NotReady):
        both.begin(asking("mood"))
    pair.behind = {"news", "mood"}
    assert not await both.ready()
    assert both.models() == ("news", "mood")


async def test_lists_are_whole_where_one_family_is_not_loaded_here_yet(pair: Pair) -> None:
    """The index says that it is not ready, OpenAI's list has it without a date, statistics leave it out."""
    pair.behind = {"mood"}
    both = pair.serve("news", "mood")
    assert [await both.model_ready(name) for name in ("news", "mood", "mood/fake-large")] == [
        True,
        False,
        False,
    ]
    with pytest.raises(UnknownModel):
        await both.model_ready("weather")
    with serving(Gateway(both, RequestLimits(), pair.nobody, lambda: b"")) as url:
        index = httpx.post(f"{url}/v2/repository/index").json()
        listed = httpx.get(f"{url}/v1/models").json()["data"]
        statistics = httpx.get(f"{url}/v2/models/stats").json()["model_stats"]
    assert {one["name"]: one["state"] for one in index}["mood"] == "UNAVAILABLE"
    assert [one["state"] for one in index].count("READY") == 4
    assert {one["id"]: one["created"] for one in listed}["mood"] == 0
    assert [one["name"] for one in statistics] == ["news", *both.models()[1:4]]


def test_short_names_of_one_that_is_away_are_nobodys(pair: Pair) -> None:
    """Whoever is left has its long names; the other's are refused until it is back."""
    left = pair.serve("mood", plain="news")
    assert left.models()[0] == "mood"
    with pytest.raises(UnknownModel, match="serving: mood, mood/fake-small"):
        left.begin(asking("cascade"))


def test_a_variant_keeps_its_name_where_its_family_has_the_same(pair: Pair) -> None:
    """As it was while the family was alone."""
    both = pair.both
    both.serve({"fake-large": pair.planes["news"], "mood": pair.planes["mood"]}, "fake-large")
    assert both.local_name("fake-large") == "fake-large"
    assert both.local_name("cascade") == "cascade"


async def test_refusals_are_counted_by_the_family_that_was_asked(pair: Pair) -> None:
    """One family's full room is not the other's, and what nobody serves is counted by nobody."""
    both = pair.serve("news", "mood")
    inside = [asyncio.ensure_future(both.classify(asking("mood/fake-large", 8))) for _ in range(1)]
    await asyncio.sleep(0)
    refused = asking("mood/fake-large", 8)
    with pytest.raises(Overloaded) as full:
        both.begin(refused)
    count_refusal(both, pair.nobody, refused, full.value)
    assert pair.kept["mood"].refusals == [("fake-large", "overloaded", 8)]
    assert (await both.classify(asking("news", 8))).labels != SENTIMENT
    strange = asking("weather")
    with pytest.raises(UnknownModel) as unknown:
        both.begin(strange)
    count_refusal(both, pair.nobody, strange, unknown.value)
    assert pair.nobody.refusals == [("unknown", "client_error", 1)]
    await asyncio.gather(*inside)


async def test_draining_refuses_at_every_family(pair: Pair) -> None:
    """What is inside is answered first."""
    both = pair.serve("news", "mood")
    inside = asyncio.ensure_future(both.classify(asking("mood/fake-large", 2)))
    await asyncio.sleep(0)
    await both.drain()
    assert len((await inside).predicted) == 2
    assert not await both.ready()
    with pytest.raises(NotReady):
        both.begin(asking("news"))
