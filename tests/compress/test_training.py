"""The training loop covers every row, learns, and repeats itself under one seed."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.models import Tokens
from compress.network import Classifier
from compress.parts import Distillation, Training
from compress.training import fit, hard_loss, length_buckets, predict, soft_loss
from tests.compress.conftest import WORDS, toy_shape, toy_texts, toy_tokenizer


def toy_tokens(n: int) -> tuple[Tokens, np.ndarray]:
    """Return tokens and targets of n toy texts."""
    rows = toy_texts(n)
    ids = [toy_tokenizer().encode(text).ids for text, _ in rows]
    padded = np.zeros((n, max(map(len, ids))), dtype=np.int64)
    for row, found in enumerate(ids):
        padded[row, : len(found)] = found
    labels = sorted(WORDS)
    targets = np.array([labels.index(label) for _, label in rows])
    return Tokens(padded, np.array([len(found) for found in ids])), targets


def quiet(share: float, words: str) -> None:
    """Report to nobody."""


@settings(max_examples=50)
@given(n=st.integers(1, 700), size=st.integers(1, 40), seed=st.integers(0, 3))
def test_buckets_hold_every_row_once(n: int, size: int, seed: int) -> None:
    """An epoch sees every row exactly once, in batches of at most the size asked for."""
    rng = np.random.default_rng(seed)
    batches = list(length_buckets(rng.integers(1, 50, n), size, rng))
    assert sorted(np.concatenate(batches).tolist()) == list(range(n))
    assert max(map(len, batches)) <= size


def test_training_learns_and_repeats_itself() -> None:
    """A small network learns the toy task, and one seed gives one result."""
    tokens, targets = toy_tokens(240)
    run = Training(epochs=5, learning_rate=1e-2, precision="fp32")
    found = []
    for _ in range(2):
        torch.manual_seed(1)
        network = Classifier(toy_shape())
        fit(network, tokens, hard_loss(targets, 0.0), run, seed=5, report=quiet)
        found.append(predict(network, tokens))
    assert (found[0].argmax(1) == targets).mean() > 0.9
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


def test_no_epochs_change_nothing(network: Classifier) -> None:
    """Zero epochs leave a network as it came."""
    tokens, targets = toy_tokens(9)
    before = predict(network, tokens)
    fit(network, tokens, hard_loss(targets, 0), Training(epochs=0), seed=0, report=quiet)
    assert np.array_equal(before, predict(network, tokens))


def test_soft_loss_by_hand() -> None:
    """Equal answers cost nothing; unequal ones T^2 times the divergence, plus the hard part."""
    teacher = np.log(np.array([[0.8, 0.2]], dtype=np.float32))
    loss = soft_loss(np.array([0]), teacher, Distillation(temperature=1.0, soft_weight=1.0), 0.0)
    rows = torch.tensor([0])
    assert abs(float(loss(torch.from_numpy(teacher), rows))) < 1e-6
    even = float(loss(torch.zeros(1, 2), rows))
    assert abs(even - (0.8 * np.log(0.8 / 0.5) + 0.2 * np.log(0.2 / 0.5))) < 1e-6
    mixed = soft_loss(np.array([0]), teacher, Distillation(temperature=1.0, soft_weight=0.25), 0.0)
    assert abs(float(mixed(torch.zeros(1, 2), rows)) - (0.25 * even + 0.75 * np.log(2))) < 1e-6


def test_predict_keeps_the_order_of_rows(network: Classifier) -> None:
    """Sorting by length inside is not seen outside."""
    tokens, _ = toy_tokens(150)
    one_by_one = np.concatenate(
        [predict(network, Tokens(tokens.ids[i : i + 1], tokens.lengths[i : i + 1])) for i in range(150)]
    )
    np.testing.assert_allclose(predict(network, tokens), one_by_one, atol=1e-4)
