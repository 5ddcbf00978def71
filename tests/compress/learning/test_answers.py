"""A teacher is asked in one place, be it a network or nothing but answers that were given elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from compress.datasets.recorded import RECORDED, Recorded, hash_of, read_recorded, write_recorded
from compress.learning.answers import ask, network_of
from compress.learning.linear import LinearSettings, NgramRows
from compress.learning.training import soft_loss
from compress.recipes.learning_parts import Distillation
from compress.store import Finished
from contract.errors import DataError
from runtime.ngrams.encoder import NgramOptions


def recorded_step(folder: Path, answers: dict[str, list[float]]) -> Finished:
    """Return a finished step that is nothing but answers."""
    kept = {hash_of(text): np.array(row, dtype=np.float32) for text, row in answers.items()}
    write_recorded(folder / RECORDED, Recorded(("neg", "pos"), kept))
    return Finished("teacher", "key", folder, {RECORDED: "0" * 64}, {}, {})


def test_answers_are_found_by_text_and_missing_ones_are_nan(tmp_path: Path) -> None:
    """A text has the answer that was given to exactly it; others have none, and there is no network."""
    step = recorded_step(tmp_path, {"good": [0, 2], "bad": [3, 0], "half \ud83d": [1, 1]})
    found = ask(step, ("bad", "unheard", "good", "half \ud83d"))
    assert found.network is None
    assert network_of(step) is None
    assert np.array_equal(found.logits[[0, 2, 3]], [[3, 0], [0, 2], [1, 1]])
    assert np.isnan(found.logits[1]).all()


def test_a_foreign_file_is_no_record(tmp_path: Path) -> None:
    """Another file is refused by name."""
    (tmp_path / RECORDED).write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"answers\.parquet"):
        read_recorded(tmp_path / RECORDED)


def test_where_the_teacher_is_silent_only_the_label_counts() -> None:
    """A row without answer costs its cross-entropy in full; one without label its divergence in full."""
    logits = torch.tensor([[1.0, 0.0], [0.5, -0.5], [0.2, 0.4]])
    teacher = np.array([[2, 0], [np.nan, np.nan], [0, 1]], dtype=np.float32)
    loss = soft_loss(np.array([0, 1, -1]), teacher, Distillation(temperature=1.0, soft_weight=0.9), 0.0)
    silent = float(loss(logits[1:2], torch.tensor([1])))
    assert silent == pytest.approx(float(-logits[1].log_softmax(0)[1]), abs=1e-6)
    unlabelled = float(loss(logits[2:], torch.tensor([2])))
    wanted, said = torch.tensor([0.0, 1.0]).softmax(0), logits[2].softmax(0)
    assert unlabelled == pytest.approx(float((wanted * (wanted / said).log()).sum()), abs=1e-6)


def test_a_linear_model_learns_labels_where_the_teacher_is_silent() -> None:
    """Answers say one thing of some texts, labels say the rest, and the model learns both."""
    texts = ["alpha one", "alpha two", "beta one", "beta two"] * 6
    targets = np.array([0, 0, -1, -1] * 6)
    teacher = np.array([[np.nan] * 2, [np.nan] * 2, [0, 9], [0, 9]] * 6, dtype=np.float32)
    rows = NgramRows.of(texts, NgramOptions(bits=10), min_documents=1)
    model = rows.train(
        targets, 2, settings=LinearSettings(soft_weight=0.9, epochs=8), seed=0, teacher_logits=teacher
    )
    from runtime.ngrams.encoder import NgramEncoder
    from runtime.ngrams.linear import LinearRuntime

    said = LinearRuntime(model).logits(NgramEncoder(NgramOptions(bits=10)).encode(["alpha x", "beta x"]))
    assert said.argmax(1).tolist() == [0, 1]
