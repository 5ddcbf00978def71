"""Fake variants: labels drawn from the text's hash, with settable accuracy, delay and errors. No weights."""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import Field, ValidationError

from contract.errors import FamilyError
from contract.family import EncoderSpec
from contract.files import read_json, sha256_of_json
from contract.records import Frozen, first_problem
from runtime.api import EXAMPLE_TEXT, Encoded, Logits
from runtime.fake_faults import FakeFaults

TEXTS = "texts"
FAKE_SHA256 = sha256_of_json({"encoder": "fake", "revision": 1})
FAKE_ENCODER = EncoderSpec(kind="fake", sha256=FAKE_SHA256)


class FakeModel(Frozen):
    """How a fake variant behaves.

    A text has a difficulty d, uniform in [0, 1), from its hash and `seed`. The fake's confidence in its
    answer is 1 - (1 - 1/C) * d**g, with g such that it is `accuracy` on average, and the answer is right
    with exactly that probability: fakes are calibrated, and one of higher accuracy is right wherever
    one of lower accuracy with the same seed is.
    """

    labels: tuple[str, ...] = Field(min_length=2)
    accuracy: float = Field(default=0.9, gt=0, le=1)
    delay_ms: float = Field(default=0.0, ge=0, description="Time that each text takes, asleep")
    error_rate: float = Field(default=0.0, ge=0, le=1, description="Share of calls that raise")
    faults: FakeFaults = FakeFaults()
    seed: int = 0


def true_label(text: str, labels: Sequence[str]) -> int:
    """Return the class index that a text has: the label it names ("sport: ..."), else one by its hash."""
    named = text.partition(":")[0].strip()
    if named in labels:
        return list(labels).index(named)
    return int(_uniform("label", 0, text) * len(labels))


class FakeEncoder:
    """Passes the texts on; its unit of length is the character."""

    example = EXAMPLE_TEXT

    @property
    def sha256(self) -> str:
        """Identity of the encoding."""
        return FAKE_SHA256

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Return the texts as an array of objects [N]."""
        rows = np.empty(len(texts), dtype=object)
        rows[:] = list(texts)
        lengths = np.array([len(text) for text in texts], dtype=np.int64)
        return Encoded({TEXTS: rows}, lengths, FAKE_SHA256)


class FakeRuntime:
    """Answers as a `FakeModel` says. The n-th call fails or not by the seed alone."""

    def __init__(self, model: FakeModel) -> None:
        self.model = model
        self._errors = np.random.default_rng(model.seed)
        self._lock = threading.Lock()
        self._faulty = model.faults != FakeFaults()
        chance = 1 - 1 / len(model.labels)
        self._power = math.inf if model.accuracy == 1 else max(chance / (1 - model.accuracy) - 1, 0.0)

    def logits(self, encoded: Encoded) -> Logits:
        """Return float32 logits [N, C] after the delay.

        Raises:
            FamilyError: when another encoder made the input.
            RuntimeError: at the model's error rate.
        """
        if encoded.encoder != FAKE_SHA256:
            raise FamilyError("the texts were encoded for another variant: encoder hashes differ")
        if self.model.delay_ms:
            time.sleep(self.model.delay_ms * len(encoded) / 1000)
        with self._lock:
            fails = self._errors.random() < self.model.error_rate
            chance = self._errors.random() if self._faulty else 0.0
        if fails:
            raise RuntimeError("a fake error, as asked for by error_rate")
        faults = self.model.faults
        fault = faults.drawn(chance, map(str, encoded.arrays[TEXTS])) if self._faulty else None
        if fault == "never":
            threading.Event().wait()
        elif fault == "late":
            time.sleep(faults.late_s)
        logits = np.stack([self._answer(str(text)) for text in encoded.arrays[TEXTS]])
        if fault == "wrong_shape":
            return logits[1:]
        if fault == "not_a_number":
            logits[-1] = [(np.nan, np.inf)[i % 2] for i in range(len(self.model.labels))]
        return logits

    def close(self) -> None:
        """Nothing to free."""

    def _answer(self, text: str) -> Logits:
        model = self.model
        classes = len(model.labels)
        difficulty = _uniform("difficulty", model.seed, text)
        confidence = 1 - (1 - 1 / classes) * difficulty**self._power
        answer = true_label(text, model.labels)
        luck = _uniform("luck", model.seed, text)
        if luck >= confidence:
            spread = (luck - confidence) / (1 - confidence)
            answer = (answer + 1 + min(int(spread * (classes - 1)), classes - 2)) % classes
        confidence = min(max(confidence, 1 / classes + 1e-6), 1 - 1e-6)
        row = np.full(classes, math.log((1 - confidence) / (classes - 1)), dtype=np.float32)
        row[answer] = math.log(confidence)
        return row


def _uniform(purpose: str, seed: int, text: str) -> float:
    content = f"{purpose}\0{seed}\0{text}".encode("utf-8", "replace")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big") / 2**64


def read_fake(path: Path) -> FakeModel:
    """Read a fake's behaviour from JSON. Raises FamilyError."""
    try:
        return FakeModel.model_validate(read_json(path, error=FamilyError))
    except ValidationError as problem:
        raise FamilyError(first_problem(problem), where=path) from None
