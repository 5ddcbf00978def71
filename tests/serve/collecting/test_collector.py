"""The collector: off the path, by the rules, and with a bounded loss."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.collected import FALSE, TRUE, KeepRules, Question, Redaction
from contract.errors import BadRequest
from runtime.api import Logits
from serve.collecting.collector import Answered, Collector
from serve.collecting.exchange import answers_of, listener_of
from serve.collecting.stage import CollectedStage
from serve.settings.collect import CollectSettings
from serve.settings.limits import RequestLimits
from serve.types.stage import instructions_of
from tables.collected.store import CollectedStore

QUESTION = Question(labels=("no", "yes"), instructions="Is it, Anna?")
LIMITS = RequestLimits()


def one(text: str = "a text by Anna") -> list[Answered]:
    """Return an answer about a text."""
    return [Answered(QUESTION, text, "yes", (0.25, 0.75), "big", 0.001)]


def settings_in(folder: Path, **more: object) -> CollectSettings:
    """Return settings whose parts are written by their rows alone."""
    return CollectSettings.model_validate({"folder": str(folder), "part_s": 3600, **more})


def test_rows_are_redacted_before_anything_is_written(tmp_path: Path) -> None:
    """Neither texts nor instructions hold what a rule takes out, in no file but the rules."""
    collector = Collector(settings_in(tmp_path, texts=True, redact=(Redaction(pattern="Anna"),)))
    collector.offer(one, 12.0)
    collector.close()

    store = CollectedStore.open(tmp_path)
    assert store.rows()["text"].to_pylist() == ["a text by <redacted>"]
    assert [question.instructions for question in store.questions().values()] == ["Is it, <redacted>?"]
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "store.json"]
    assert all(b"Anna" not in path.read_bytes() for path in written)


def test_texts_are_kept_only_where_that_was_said(tmp_path: Path) -> None:
    """By default a row has the answer and no text."""
    collector = Collector(settings_in(tmp_path))
    collector.offer(one, 12.0)
    collector.close()

    found = CollectedStore.open(tmp_path).rows().to_pylist()[0]
    assert found["text"] is None
    assert (found["answer"], found["latency_ms"], found["usd"]) == ("yes", 12.0, 0.001)


def test_a_flush_writes_all_that_was_offered_before(tmp_path: Path) -> None:
    """Nothing waits after a flush, and `kept` says so."""
    collector = Collector(settings_in(tmp_path, part_rows=10))
    for number in range(25):
        collector.offer(lambda number=number: one(f"text {number}"), 1.0)  # type: ignore[misc]

    assert collector.flush()
    assert len(CollectedStore.open(tmp_path).rows()) == collector.kept == 25
    collector.close()


def test_a_part_is_written_once_its_first_row_is_old_enough(tmp_path: Path) -> None:
    """Few rows do not wait for more than `part_s`."""
    collector = Collector(CollectSettings(folder=str(tmp_path), part_s=0.01))
    collector.offer(one, 1.0)

    while not collector.kept:
        threading.Event().wait(0.005)
    assert len(CollectedStore.open(tmp_path).rows()) == 1
    collector.close()


KILLED = """
import os, signal, sys, threading
from pathlib import Path
sys.path.insert(0, {root!r})
from contract.collected import Question
from serve.collecting.collector import Answered, Collector
from serve.settings.collect import CollectSettings

collector = Collector(CollectSettings(folder={folder!r}, part_rows=10, part_s=3600, texts=True))
question = Question(labels=("no", "yes"))
for number in range(95):
    collector.offer(lambda number=number: [Answered(question, f"text {{number}}", "yes", None)], 1.0)
while collector.kept < 90:
    threading.Event().wait(0.005)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_loses_less_than_one_part(tmp_path: Path) -> None:
    """Of 95 answers in parts of ten, 90 are there after SIGKILL, whole and readable."""
    root = str(Path(__file__).parents[3])
    code = KILLED.format(root=root, folder=str(tmp_path))

    ended = subprocess.run([sys.executable, "-c", code], check=False, timeout=60, env={**os.environ})

    assert ended.returncode == -9
    texts = CollectedStore.open(tmp_path).rows()["text"].to_pylist()
    assert texts == [f"text {number}" for number in range(90)]


def test_answers_beyond_the_room_are_dropped_and_counted(tmp_path: Path) -> None:
    """A queue that is full takes no more, and nobody waits."""
    go = threading.Event()

    def slow() -> Iterable[Answered]:
        go.wait()
        return one()

    collector = Collector(settings_in(tmp_path, max_waiting=2))
    for _ in range(8):
        collector.offer(slow, 1.0)
    go.set()
    collector.close()

    assert collector.dropped >= 5
    assert collector.kept + collector.dropped == 8


def test_bytes_that_wait_are_bounded(tmp_path: Path) -> None:
    """Large bodies behind a slow disk take no more memory than is allowed, and room comes back."""
    go = threading.Event()

    def slow() -> Iterable[Answered]:
        go.wait()
        return one()

    collector = Collector(settings_in(tmp_path, max_waiting_bytes=100))
    for _ in range(4):
        collector.offer(slow, 1.0, size=40)
    assert collector.dropped == 2
    go.set()
    assert collector.flush()
    collector.offer(one, 1.0, size=100)
    collector.close()

    assert (collector.kept, collector.dropped) == (3, 2)


def test_images_do_not_wait_to_be_thrown_away(tmp_path: Path) -> None:
    """A request that shows one is not queued; a text that speaks of one is kept."""
    collector = Collector(settings_in(tmp_path))
    listen = listener_of(collector, LIMITS, 0.03)
    parts = [{"type": "input_image", "image_url": "data:image/png;base64,AA=="}]
    listen(request(input=[{"role": "user", "content": parts}]), reply(), 0.1)
    listen(request(input='{"type": "input_image"}'), reply(), 0.1)
    collector.close()

    assert (collector.kept, collector.dropped) == (3, 0)


def test_what_is_too_long_to_look_for_patterns_in_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pattern's time may grow with the square of a text, and holds up everything else."""
    rules = {"redact": (Redaction(pattern=r"[\w.+-]+@[\w-]+\.\w+"),), "max_redacted_characters": 100}
    searched, redacted = [], KeepRules.redacted

    def noted(rules: KeepRules, text: str) -> str:
        searched.append(len(text))
        return redacted(rules, text[:100])

    monkeypatch.setattr(KeepRules, "redacted", noted)
    monkeypatch.setattr("serve.collecting.collector._MOST_QUESTIONS", 1)
    collector = Collector(settings_in(tmp_path, **rules))
    collector.offer(one, 1.0)
    long = QUESTION.model_copy(update={"instructions": "a" * 1_000_000})
    collector.offer(lambda: one("a" * 1_000_000), 1.0)
    collector.offer(lambda: [Answered(long, "short", "yes", None)], 1.0)
    collector.close()

    assert (collector.kept, collector.dropped) == (1, 2)
    assert max(searched) <= 100


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    """One exchange that is none spoils no other."""
    collector = Collector(settings_in(tmp_path))
    listen = listener_of(collector, LIMITS, 0.03)
    listen(b"no json", b"{}", 0.1)
    listen(request(), reply(), 0.1)
    collector.close()

    assert (collector.kept, collector.dropped) == (3, 1)


def request(**more: object) -> bytes:
    """Return a request with a choice, a predicate and a score."""
    body = {
        "model": "big",
        "input": "where is my card",
        "questions": [
            {
                "type": "choice", "name": "intent", "instructions": "Which?",
                "choices": [{"value": "yes", "description": "so it is"}, {"value": "no"}],
            },
            {"type": "predicate", "instructions": "Angry?"},
            {"type": "score", "instructions": "How much?", "levels": [{"label": "low"}, {"label": "high"}]},
        ],
    }  # fmt: skip
    return json.dumps({**body, **more}).encode()


def reply() -> bytes:
    """Return the answers to it."""
    answers = [
        {
            "type": "choice", "name": "intent", "choice": "yes", "confidence": 0.8,
            "probabilities": [{"value": "yes", "probability": 0.8}, {"value": "no", "probability": 0.2}],
        },
        {"type": "predicate", "name": None, "probability": 0.1},
        {
            "type": "score", "name": None, "score": 0.7, "confidence": 0.7,
            "probabilities": [
                {"label": "low", "value": 0, "probability": 0.3},
                {"label": "high", "value": 1, "probability": 0.7},
            ],
        },
    ]  # fmt: skip
    return json.dumps({"answers": answers, "model": "big", "usage": None}).encode()


def test_answers_are_read_off_both_bodies() -> None:
    """Choices come in sorted order, predicates as true and false, scores in their order."""
    found = list(answers_of(request(), reply(), LIMITS, 0.03))

    assert [(one.question.labels, one.answer) for one in found] == [
        (("no", "yes"), "yes"),
        ((FALSE, TRUE), FALSE),
        (("low", "high"), "high"),
    ]
    assert [tuple(round(p, 6) for p in one.probabilities or ()) for one in found] == [
        (0.2, 0.8), (0.9, 0.1), (0.3, 0.7)
    ]  # fmt: skip
    assert found[0].question.descriptions == {"yes": "so it is"}
    assert found[0].usd == pytest.approx(3e-5)


def test_refusals_and_images_are_left_out() -> None:
    """A refused question gives no row, nor does a question about an image."""
    answers = json.loads(reply())["answers"]
    answers[0] = {"type": "refusal", "name": "intent"}
    refused = json.dumps({"answers": answers}).encode()
    image = [
        {"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,AA=="}]}
    ]

    assert len(list(answers_of(request(), refused, LIMITS, None))) == 2
    assert list(answers_of(request(input=image), reply(), LIMITS, None)) == []


def test_a_reply_to_other_questions_is_none() -> None:
    """Too few answers are refused as a whole."""
    with pytest.raises(BadRequest):
        list(answers_of(request(), b'{"answers": []}', LIMITS, None))


def test_who_puts_the_text_into_the_question_fills_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many questions are kept, and further ones dropped."""
    monkeypatch.setattr("serve.collecting.collector._MOST_QUESTIONS", 3)
    collector = Collector(settings_in(tmp_path))
    for number in range(8):
        asked = QUESTION.model_copy(update={"instructions": f"Is {number} even?"})
        collector.offer(lambda asked=asked: [Answered(asked, "t", "yes", None)], 1.0)  # type: ignore[misc]
    collector.close()

    assert len(CollectedStore.open(tmp_path).questions()) == 3
    assert (collector.kept, collector.dropped) == (3, 5)


class Answering:
    """A stage whose answers are known."""

    variant = "upstream"
    instructions = "Which?"

    async def logits(self, texts: list[str], *_: object) -> Logits:
        """Return the second label for every text."""
        return np.array([[0.0, 3.0]] * len(texts), dtype=np.float32)

    def logits_now(self, texts: list[str], _: object) -> Logits | None:
        """Answer nothing at once."""
        return None

    async def ready(self) -> bool:
        """Be ready."""
        return True


ANSWERING: Any = Answering()


@pytest.mark.anyio
async def test_answers_of_a_remote_stage_are_kept_too(tmp_path: Path) -> None:
    """What escalates to the upstream teaches, its labels put into the question's order."""
    collector = Collector(settings_in(tmp_path, texts=True))
    asked = QUESTION.model_copy(update={"model": "big"})
    stage = CollectedStage(ANSWERING, asked, ("yes", "no"), collector, 0.002, upstream="http://h/v1")

    await stage.logits(["one", "two"], None)
    collector.close()
    assert instructions_of(stage) == "Which?"

    found = CollectedStore.open(tmp_path).rows().to_pylist()
    assert [(row["text"], row["answer"], row["source"]) for row in found] == [
        ("one", "no", "stage"), ("two", "no", "stage")
    ]  # fmt: skip
    assert found[0]["probabilities"][0] > 0.9
    assert (found[0]["model"], found[0]["upstream"]) == ("big", "http://h/v1")
