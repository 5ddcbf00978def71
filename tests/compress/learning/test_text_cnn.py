"""The convolutional student: any length, any batch, exported and quantized like the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compress.graphs.export import check_probes, export_onnx
from compress.learning.text_cnn import CnnShape, TextCnn, distil_cnn, reduced_table
from compress.learning.training import fit, hard_loss, predict
from compress.networks.models import load_network
from compress.networks.network import Classifier
from compress.recipes.learning_parts import Training
from contract.errors import FamilyError, RecipeError
from tests.compress.conftest import random_network, toy_shape, toy_tokenizer
from tests.compress.learning.test_training import quiet, toy_tokens
from tests.compress.toy_steps import finished_network, toy_context, toy_dataset


@pytest.fixture
def cnn() -> TextCnn:
    """A small network of random weights whose widest filter is wider than many texts."""
    torch.manual_seed(0)
    shape = CnnShape(vocabulary=35, embedding=8, channels=6, widths=(1, 2, 5), classes=3, longest=64)
    made = TextCnn(shape)
    made.eval()
    return made


def test_padding_changes_no_answer(cnn: TextCnn) -> None:
    """A text gets the same logits alone, padded, and among others, down to one token."""
    tokens, _ = toy_tokens(20)
    with torch.inference_mode():
        together = cnn(*tokens.batch(np.arange(20)))
        for row in range(20):
            alone = cnn(*tokens.batch(np.array([row])))
            torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-4)
        ids = torch.tensor([[7, 0, 0, 0, 0, 0]])
        mask = torch.tensor([[1, 0, 0, 0, 0, 0]])
        torch.testing.assert_close(cnn(ids, mask), cnn(ids[:, :1], mask[:, :1]))


def test_filters_see_neighbours(cnn: TextCnn) -> None:
    """The order of words matters to filters wider than one."""
    with torch.inference_mode():
        one, other = (cnn(torch.tensor([ids]), torch.ones(1, 3)) for ids in ([5, 6, 7], [7, 6, 5]))
    assert not torch.allclose(one, other)


def test_the_graph_takes_any_batch_and_length(cnn: TextCnn, tmp_path: Path) -> None:
    """Exported, it agrees with the network at every probed shape, shorter than its widest filter too."""
    export_onnx(cnn, tmp_path / "m.onnx")
    assert check_probes(cnn, tmp_path / "m.onnx") < 1e-4


def test_it_comes_back_from_its_folder(cnn: TextCnn, tmp_path: Path) -> None:
    """Written and read it answers the same; weights of another shape are refused."""
    cnn.save(tmp_path)
    again = load_network(tmp_path)
    tokens, _ = toy_tokens(9)
    assert np.array_equal(predict(again, tokens), predict(cnn, tokens))
    file = tmp_path / "architecture.json"
    file.write_text(file.read_text().replace('"channels": 6', '"channels": 7'))
    with pytest.raises(FamilyError, match="do not fit"):
        load_network(tmp_path)


def test_operations_are_counted_by_hand(cnn: TextCnn) -> None:
    """Eight widths of filters over 8 dimensions and 6 channels, and a head of 18 by 3."""
    assert cnn.flops(10) == 2 * (10 * 8 * 8 * 6 + 18 * 3)


def test_the_reduced_table_keeps_what_varies() -> None:
    """Directions of variance over the texts' pieces stay, with distances; the scale is 1."""
    rng = np.random.default_rng(0)
    narrow = rng.normal(size=(50, 3)).astype(np.float32)
    table = narrow @ np.linalg.qr(rng.normal(size=(8, 3)))[0].T.astype(np.float32) + 5
    counts = rng.integers(1, 9, 50)
    reduced = reduced_table(table, counts, 3)
    assert reduced.shape == (50, 3)
    assert abs((counts @ np.square(reduced).mean(1)) / counts.sum() - 1) < 1e-4
    ratio = np.linalg.norm(reduced[0] - reduced[1]) / np.linalg.norm(table[0] - table[1])
    np.testing.assert_allclose(
        np.linalg.norm(reduced[2] - reduced[3]), ratio * np.linalg.norm(table[2] - table[3]), rtol=1e-3
    )
    assert reduced_table(table, counts, None).shape == (50, 8)


def part(**settings: Any) -> dict[str, Any]:
    """Return the part of a convolutional student."""
    run = {"epochs": 8, "learning_rate": 0.01, "precision": "fp32"}
    return {"kind": "cnn", "name": "cnn", "parent": "teacher", "channels": 12, "training": run, **settings}


def test_a_student_learns_its_teachers_answers(tmp_path: Path) -> None:
    """It starts from the parent's words, reduced, and comes to agree with the parent."""
    tokens, targets = toy_tokens(180)
    torch.manual_seed(1)
    teacher = Classifier(toy_shape())
    run = Training(epochs=5, learning_rate=1e-2, precision="fp32")
    fit(teacher, tokens, hard_loss(targets, 0.0), run, seed=0, report=quiet)
    parent = finished_network(tmp_path / "teacher", teacher)
    context = toy_context(tmp_path, part(embedding=16), toy_dataset(200), parent=parent)
    result = distil_cnn(context)
    student = load_network(context.folder)
    agreement = (predict(student, tokens).argmax(1) == predict(teacher, tokens).argmax(1)).mean()
    assert agreement > 0.9
    assert (result["embedding"], result["channels"], result["filter_widths"]) == (16, 12, [1, 2, 3])
    assert student.get_submodule("words").num_embeddings == toy_tokenizer().get_vocab_size()


@pytest.mark.parametrize(
    ("settings", "rule"),
    [({"embedding": 64}, "embedding is 64"), ({"distillation": {"hidden_weight": 1}}, "only a transformer")],
)
def test_what_a_cnn_cannot_do_is_refused(tmp_path: Path, settings: dict[str, Any], rule: str) -> None:
    """More dimensions than the parent has, and imitating states that it does not have."""
    parent = finished_network(tmp_path / "teacher", random_network())
    with pytest.raises(RecipeError, match=rule):
        distil_cnn(toy_context(tmp_path, part(**settings), toy_dataset(), parent=parent))
