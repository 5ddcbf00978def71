"""Compiled scoring, against numpy's: equal bits for any text."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from runtime.api import Encoded, Logits
from runtime.ngrams.compiled import COMPILED, CompiledModel, Scorer
from runtime.ngrams.encoder import BUCKETS, NgramEncoder, NgramOptions
from runtime.ngrams.features import LOGS, NgramRuntime
from runtime.ngrams.linear import LinearModel, LinearRuntime

pytestmark = pytest.mark.skipif(not COMPILED, reason="this installation has no compiled scoring")

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=60)
WORDS = st.lists(
    st.sampled_from(["not", "good", "I'm", "ÉTÉ", "ΟΔΟΣ", "İ", "K", "\ud800", "a-b", "\0"]), max_size=30
)
TEXTS = ANY_TEXT | WORDS.map(" ".join)
ROOT = Path(__file__).parents[3]


def in_numpy(encoder: NgramEncoder, texts: Sequence[str]) -> Encoded:
    """What the encoder makes of texts without compiled code."""
    rows = np.empty(len(texts), dtype=object)
    for i, text in enumerate(texts):
        rows[i] = encoder.buckets_in_numpy(text)
    return Encoded({BUCKETS: rows}, np.array([row.size for row in rows], dtype=np.int64), encoder.sha256)


def both(runtime: NgramRuntime, encoder: NgramEncoder, texts: Sequence[str]) -> tuple[Logits, Logits]:
    """The logits of texts as numpy gives them, and as compiled code does."""
    compiled = runtime.compiled(encoder.options)
    assert compiled is not None
    return runtime.logits(in_numpy(encoder, texts)), compiled(texts)


def linear_model(options: NgramOptions, classes: int, seed: int = 0, share: float = 0.5) -> LinearModel:
    """A linear model of random weights for a share of all buckets; one bias is minus zero."""
    rng = np.random.default_rng(seed)
    known = np.flatnonzero(rng.random(1 << options.bits) < share)
    bias = rng.normal(size=classes).astype(np.float32)
    bias[0] = -0.0
    return LinearModel(
        buckets=known.astype(np.uint32),
        weights=rng.normal(size=(known.size, classes)).astype(np.float32),
        idf=(1 + 8 * rng.random(known.size)).astype(np.float32),
        bias=bias,
        encoder=options.sha256,
        bits=options.bits,
    )


@given(
    TEXTS, st.integers(0, 8), st.integers(1, 6), st.integers(0, 16), st.integers(8, 28), st.integers(1, 80)
)
@settings(max_examples=300, deadline=None)
def test_buckets_are_those_of_numpy(
    text: str, words: int, shortest: int, longest: int, bits: int, most: int
) -> None:
    """Any text, half a surrogate pair too, has the same n-grams in the same order, whatever the options."""
    assume(words or longest >= shortest)
    encoder = NgramEncoder(NgramOptions(words, shortest, longest, bits, most))
    assert encoder.buckets(text).tolist() == encoder.buckets_in_numpy(text).tolist()


@given(st.lists(TEXTS, min_size=1, max_size=4), st.integers(2, 40), st.sampled_from([0.0, 0.01, 0.5, 1.0]))
@settings(max_examples=200, deadline=None)
def test_linear_logits_are_numpys_bit_for_bit(texts: list[str], classes: int, share: float) -> None:
    """Any text gets the same bits, whatever share of its n-grams the model knows."""
    options = NgramOptions(bits=10)
    runtime = LinearRuntime(linear_model(options, classes, share=share))
    plain, compiled = both(runtime, NgramEncoder(options), texts)
    assert compiled.tobytes() == plain.tobytes()


def test_long_texts_and_many_repeats_are_answered_alike() -> None:
    """Thousands of n-grams, and counts beyond the table of logarithms, change no bit either."""
    options = NgramOptions(bits=12, max_characters=1 << 16)
    runtime = LinearRuntime(linear_model(options, 150))
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(3000)]
    texts = ["", "ab " * 20_000, " ".join(rng.choice(words, 9000)), "é" * 70_000, "x" * 4095, "y" * 4097]
    plain, compiled = both(runtime, NgramEncoder(options), texts)
    assert compiled.tobytes() == plain.tobytes()


def test_threads_share_a_model() -> None:
    """Calls that run at the same time, long texts among them, answer as they do alone."""
    options = NgramOptions(bits=12)
    compiled = LinearRuntime(linear_model(options, 20)).compiled(options)
    assert compiled is not None
    texts = [f"text {i} " * (1 + 700 * (i % 2)) for i in range(16)]
    alone = [compiled([text]).tobytes() for text in texts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda text: compiled([text]).tobytes(), texts * 4))
    assert together == alone * 4


def test_what_is_no_text_is_refused() -> None:
    """Bytes and numbers are TypeErrors, and a text that comes after them is answered."""
    options = NgramOptions(bits=8)
    compiled = LinearRuntime(linear_model(options, 2)).compiled(options)
    assert compiled is not None
    for wrong in (b"bytes", None, 7):
        with pytest.raises(TypeError, match="str"):
            compiled(["a text", wrong])  # type: ignore[list-item]
    assert compiled(["a text"]).shape == (1, 2)


def test_arrays_that_do_not_fit_are_refused() -> None:
    """Compiled code reads no memory that an array does not have."""
    options = NgramOptions(bits=8)
    model = linear_model(options, 3)
    rows = model.buckets.size
    whole = (options.numbers, rows, 3, model.buckets, model.idf, LOGS, model.bias, model.weights)
    assert CompiledModel(Scorer.linear(*whole), 3)(["a"]).shape == (1, 3)
    cases: list[tuple[int, object]] = [
        (0, (2, 3, 5, 40, 10)), (1, rows + 1), (2, 4), (3, model.buckets[::-1].copy()),
        (4, model.idf[1:].copy()), (5, LOGS[:1]), (6, model.bias.astype(np.float64)),
        (7, np.asfortranarray(model.weights)),
    ]  # fmt: skip
    for place, wrong in cases:
        arguments = [wrong if i == place else given for i, given in enumerate(whole)]
        with pytest.raises((ValueError, BufferError)):
            Scorer.linear(*arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shape"):
        Scorer.linear(*whole).logits(["a", "b"], np.empty((1, 3), dtype=np.float32))


WITHOUT = """
import sys
sys.modules["runtime.ngrams._scoring"] = None
from pathlib import Path
from runtime.ngrams.compiled import COMPILED
from runtime.ngrams.encoder import NgramEncoder, NgramOptions
from runtime.ngrams.linear import LinearRuntime, read_linear
assert not COMPILED
model, options = read_linear(Path(sys.argv[1])), NgramOptions(bits=10)
runtime, encoder = LinearRuntime(model), NgramEncoder(options)
assert runtime.compiled(options) is None
print(runtime.logits(encoder.encode(sys.argv[2:])).tobytes().hex())
"""


def test_an_installation_without_compiled_code_answers_alike(tmp_path: Path) -> None:
    """Where no compiler was, the whole way from text to logits is numpy's, with the same bits."""
    from runtime.ngrams.linear import write_linear

    options = NgramOptions(bits=10)
    model = linear_model(options, 12)
    write_linear(tmp_path / "model.npz", model)
    texts = ["not at all good", "Ünïcode, WORDS!", ""]
    command = [sys.executable, "-c", WITHOUT, str(tmp_path / "model.npz"), *texts]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    compiled = LinearRuntime(model).compiled(options)
    assert compiled is not None
    assert done.stdout.strip() == compiled(texts).tobytes().hex()
