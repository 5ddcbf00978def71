"""The stage inside the process."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from contract.errors import NotReady, StageBroken, StageFailed
from runtime.api import Encoded, LoadedVariant, Logits, Runtime
from runtime.fake import FakeEncoder
from runtime.load import load_variant
from runtime.machine import describe_machine
from runtime.ngrams.compiled import COMPILED
from serve.settings.resilience import BreakerRules
from serve.settings.stages import BatchRules
from serve.stages.breaker import Breaker, StageUnavailable
from serve.stages.inline import InlineStage, check_hanging
from serve.types.messages import Texts
from tests.serve.parts import FakeFolder, Kept
from tests.support.measured import write_measured_family

pytestmark = pytest.mark.anyio


class Lengths:
    """Answers with the length of the text as the first of two logits; fails as told by the length."""

    def __init__(self) -> None:
        self.closed = False

    def logits(self, encoded: Encoded) -> Logits:
        """[N, 2]; length 3 is NaN, length 4 gives a third column."""
        rows = np.zeros((len(encoded), 3 if 4 in encoded.lengths else 2), dtype=np.float32)
        rows[:, 0] = np.where(encoded.lengths == 3, np.nan, encoded.lengths)
        return rows

    def close(self) -> None:
        """Note it."""
        self.closed = True


def stage(runtime: Lengths, **rules: int | str) -> InlineStage:
    """A stage over the runtime."""
    loaded = LoadedVariant("lengths", "0" * 64, ("a", "b"), 1.0, FakeEncoder(), runtime)
    return InlineStage(loaded, BatchRules.model_validate(rules), Kept())


class Hanging(Lengths):
    """Does not come back until told to."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = threading.Event()
        self.go = threading.Event()

    def logits(self, encoded: Encoded) -> Logits:
        """Wait."""
        self.inside.set()
        self.go.wait()
        return super().logits(encoded)


async def test_a_call_that_does_not_come_back_is_told() -> None:
    """Longer than a call may take, the stage hangs, which is named; it does not before, nor afterwards."""
    now, runtime = [0.0], Hanging()
    loaded = LoadedVariant("lengths", "0" * 64, ("a", "b"), 1.0, FakeEncoder(), runtime)
    rules = BatchRules(hang_s=2.0, run_in="thread")
    inline = InlineStage(loaded, rules, Kept(), clock=lambda: now[0])
    asked = asyncio.create_task(inline.logits(["a"], None))
    await asyncio.to_thread(runtime.inside.wait)
    now[0] = 1.9
    check_hanging([inline])
    now[0] = 2.1
    with pytest.raises(StageFailed, match="lengths: a call of the model does not come back"):
        check_hanging([inline])
    runtime.go.set()
    await asked
    await inline.close()
    check_hanging([inline])


async def test_each_request_gets_its_own_rows() -> None:
    """Requests that went together, and requests larger than a batch, get their logits in order."""
    inline = stage(Lengths(), max_items=2)
    answers = await asyncio.gather(
        inline.logits(["a"], None),
        inline.logits(["aa", "aaaaa", "", "a", "aa"], None),
        inline.logits([""], None),
    )
    assert [rows[:, 0].tolist() for rows in answers] == [[1], [2, 5, 0, 1, 2], [0]]
    assert inline.queued == 0
    await inline.close()


@pytest.mark.parametrize("text", ["aaa", "aaaa"])
async def test_an_answer_that_is_none_fails_its_request_alone(text: str) -> None:
    """NaN or a wrong number of classes is a failure of that request, not of its batchmates."""
    inline = stage(Lengths(), run_in="loop")
    good, bad = await asyncio.gather(
        inline.logits(["a"], None), inline.logits([text], None), return_exceptions=True
    )
    assert isinstance(good, np.ndarray)
    assert isinstance(bad, StageFailed)
    await inline.close()


async def test_a_closed_stage_is_not_ready_and_frees_its_variant() -> None:
    """Ready until closed; then requests are refused and the runtime is closed."""
    runtime = Lengths()
    inline = stage(runtime)
    assert await inline.ready()
    await inline.close()
    assert not await inline.ready()
    assert runtime.closed
    with pytest.raises(NotReady):
        await inline.logits(["a"], None)


class Counting:
    """An encoder that counts the texts it sees."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._inner = FakeEncoder()
        self.example = self._inner.example

    @property
    def sha256(self) -> str:
        """As the fake's."""
        return self._inner.sha256

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Count and encode."""
        self.seen.extend(texts)
        return self._inner.encode(texts)


async def test_stages_with_one_encoder_encode_a_request_once() -> None:
    """What the first stage encoded, the second reads, for some rows or all, with strangers in its batch."""
    encoder = Counting()
    first, second = (
        InlineStage(
            LoadedVariant(name, "0" * 64, ("a", "b"), 1.0, encoder, Lengths()),
            BatchRules(run_in="loop"),
            Kept(),
        )
        for name in ("first", "second")
    )
    texts = Texts(["a", "aa", "aaaaa"])
    await first.logits(texts, None)
    some, stranger = await asyncio.gather(
        second.logits(texts.rows([2, 0]), None), second.logits(["aaaaaa"], None)
    )
    assert some[:, 0].tolist() == [5, 1]
    assert stranger[:, 0].tolist() == [6]
    assert encoder.seen == ["a", "aa", "aaaaa", "aaaaaa"]


async def test_models_over_ngrams_answer_a_request_as_they_do_a_text(tmp_path: Path) -> None:
    """In one call or two, alone, in a request of several or among strangers: a text gets the same bits."""
    family = write_measured_family(tmp_path, describe_machine(), {"one": 0})
    loaded = load_variant(tmp_path, family, "one")
    assert (loaded.direct is not None) == COMPILED
    in_two_calls = dataclasses.replace(loaded, direct=None)
    texts = ["good number 1", "Bad, ÜBEL", ""]
    alone = [loaded.logits([text]).tobytes() for text in texts]
    for variant in (loaded, in_two_calls):
        inline = InlineStage(variant, BatchRules(run_in="loop"), Kept())
        several, stranger = await asyncio.gather(
            inline.logits(Texts(texts), None), inline.logits([texts[1]], None)
        )
        assert [row.tobytes() for row in several] == alone
        assert stranger.tobytes() == alone[1]


class Breaking:
    """A runtime that fails whatever it is given while it is broken."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.broken = True
        self.calls = 0

    def logits(self, encoded: Encoded) -> Logits:
        """Answer, or fail."""
        self.calls += 1
        if self.broken:
            raise ZeroDivisionError
        return self._runtime.logits(encoded)

    def close(self) -> None:
        """Nothing to free."""


async def test_a_variant_that_fails_on_its_own_example_is_not_asked_for_a_while(
    fake_folder: FakeFolder,
) -> None:
    """Its breaker opens, requests are refused without running it, and one that comes later closes it."""
    loaded = load_variant(fake_folder.folder, fake_folder.family, "fake-small")
    runtime, now = Breaking(loaded.runtime), [0.0]
    inline = InlineStage(
        dataclasses.replace(loaded, runtime=runtime),
        BatchRules(run_in="loop"),
        Kept(),
        breaker=Breaker("fake-small", BreakerRules()),
        clock=lambda: now[0],
    )
    for _ in range(5):
        with pytest.raises(StageBroken):
            await inline.logits(["a"], None)
    runtime.broken, calls = False, runtime.calls
    with pytest.raises(StageUnavailable):
        await inline.logits(["a"], None)
    assert runtime.calls == calls
    now[0] = 1.0
    assert (await inline.logits(["a"], None)).shape == (1, 5)
    await inline.close()
