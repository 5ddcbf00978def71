"""The training loop covers every row, learns, and repeats itself under one seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.learning.training import (
    competence,
    fit,
    hard_loss,
    length_buckets,
    paced_batches,
    predict,
    soft_loss,
)
from compress.networks.models import Tokens
from compress.networks.narrow import used_words_only
from compress.networks.network import Classifier
from compress.recipes.learning_parts import Distillation, Training
from contract.errors import SluiceError
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


def test_competence_rises_by_the_square_root_to_all() -> None:
    """It starts at a tenth, has risen most early on, and is whole from the middle."""
    shares = [competence(done / 20) for done in range(21)]
    assert abs(shares[0] - 0.1) < 1e-9
    assert shares == sorted(shares)
    assert shares[10:] == [1.0] * 11
    assert abs(shares[5] ** 2 - (0.25 * 0.99 / 0.5 + 0.01)) < 1e-9


@settings(max_examples=30)
@given(n=st.integers(1, 900), size=st.integers(1, 40), steps=st.integers(1, 120), seed=st.integers(0, 3))
def test_a_curriculum_begins_with_the_easiest(n: int, size: int, steps: int, seed: int) -> None:
    """There are as many batches as asked for, and none holds a text harder than its time allows."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(n)
    rank = np.argsort(order)
    batches = list(paced_batches(rng.integers(1, 50, n), order, size, steps, rng))
    assert len(batches) == steps
    for done, rows in enumerate(batches):
        assert 1 <= len(set(rows.tolist())) == len(rows) <= size
        assert rank[rows].max() < max(round(competence(done / steps) * n), min(size, n))


def test_by_the_end_of_a_curriculum_every_text_was_seen() -> None:
    """Half of the steps go over all texts, so that two epochs or more leave none out."""
    rng = np.random.default_rng(0)
    batches = list(paced_batches(rng.integers(1, 50, 200), rng.permutation(200), 10, 40, rng))
    assert set(np.concatenate(batches).tolist()) == set(range(200))


def test_a_text_without_a_label_counts_by_its_teacher_alone() -> None:
    """The target -1 has no hard part, and its soft part the weight 1."""
    teacher = np.log(np.array([[0.8, 0.2]], dtype=np.float32))
    half = Distillation(temperature=1.0, soft_weight=0.5)
    whole = Distillation(temperature=1.0, soft_weight=1.0)
    rows, said = torch.tensor([0]), torch.tensor([[0.3, -0.2]])
    unlabelled = soft_loss(np.array([-1]), teacher, half, 0.0)(said, rows)
    assert float(unlabelled) == float(soft_loss(np.array([0]), teacher, whole, 0.0)(said, rows))
    assert float(unlabelled) != float(soft_loss(np.array([0]), teacher, half, 0.0)(said, rows))


def test_only_words_that_occur_change_and_learning_is_the_same(network: Classifier) -> None:
    """While it trains a network has the rows in use alone; its answers are the same, the others untouched."""
    tokens, targets = toy_tokens(40)
    few = Tokens(tokens.ids[:8], tokens.lengths[:8])
    before = predict(network, few)
    with used_words_only(network, few) as used:
        assert network.words.num_embeddings < network.shape.vocabulary
        np.testing.assert_array_equal(predict(network, used), before)
    np.testing.assert_array_equal(predict(network, few), before)
    words = network.words.weight.detach().clone()
    run = Training(epochs=2, learning_rate=1e-2, weight_decay=0.5, precision="fp32")
    fit(network, few, hard_loss(targets[:8], 0.0), run, seed=0, report=quiet)
    changed = (network.words.weight != words).any(dim=1).numpy()
    occurring = set(np.unique(few.ids))
    assert occurring - {network.shape.pad_id} <= set(np.flatnonzero(changed)) <= occurring


def test_interrupted_training_leaves_the_whole_table(network: Classifier) -> None:
    """Whatever ends the training, the network has all of its words again."""
    tokens, targets = toy_tokens(40)

    def stop(share: float, words: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(network, tokens, hard_loss(targets, 0.0), Training(epochs=1), seed=0, report=stop)
    assert network.words.num_embeddings == network.shape.vocabulary


def test_a_loss_that_is_not_finite_ends_the_training(network: Classifier) -> None:
    """A learning rate under which weights run off ends in an error that names network, rule and next step."""
    tokens, targets = toy_tokens(40)
    run = Training(epochs=6, batch_size=8, learning_rate=1e38, precision="fp32")
    with pytest.raises(SluiceError, match=r"student: the loss is not finite.*\n.*lower learning_rate"):
        fit(network, tokens, hard_loss(targets, 0.0), run, seed=0, report=quiet, name="student")
    assert network.words.num_embeddings == network.shape.vocabulary


def test_averaged_weights_are_the_mean_of_the_last_moments(network: Classifier) -> None:
    """With average the weights differ from the last ones, and the network still learns."""
    tokens, targets = toy_tokens(200)
    found = []
    for average in (False, True):
        torch.manual_seed(1)
        made = Classifier(toy_shape())
        run = Training(epochs=5, learning_rate=1e-2, precision="fp32", average=average)
        fit(made, tokens, hard_loss(targets, 0.0), run, seed=0, report=quiet)
        found.append(predict(made, tokens))
        assert (found[-1].argmax(1) == targets).mean() > 0.9
    assert not np.allclose(found[0], found[1], atol=1e-5)


def test_training_drops_what_its_settings_say() -> None:
    """The settings' dropout takes the place of any that the network brought, unless nothing is trained."""
    tokens, targets = toy_tokens(20)
    network = Classifier(toy_shape(dropout=0.4))
    for epochs, wanted in ((0, 0.4), (1, 0.1)):
        run = Training(epochs=epochs, dropout=0.1, precision="fp32")
        fit(network, tokens, hard_loss(targets, 0.0), run, seed=0, report=quiet)
        assert network.shape.dropout == wanted
        assert {module.p for module in network.modules() if isinstance(module, torch.nn.Dropout)} == {wanted}
