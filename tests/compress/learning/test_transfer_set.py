"""Learning from a teacher: whose answers, of which texts, and what of its inside."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from compress.encoders import encoder_of
from compress.learning.distil import distil_student
from compress.learning.imitate import Imitation, attention_loss, spread_layers, state_loss
from compress.learning.importance import state_importance
from compress.learning.text_cnn import TextCnn, distil_cnn
from compress.learning.training import Guide, fit, hard_loss, predict, soft_loss
from compress.learning.transfer_set import easiest_first, prepare_transfer_set
from compress.learning.twin import equal_epochs, randomize, train_twin
from compress.networks.cut import keep_states
from compress.networks.models import load_network
from compress.networks.network import Classifier, LayerShape
from compress.recipes.learning_parts import Distillation, Training
from compress.recipes.parts import DistilPart
from contract.errors import RecipeError
from tests.compress.conftest import random_network, toy_shape, toy_tokenizer
from tests.compress.learning.test_training import quiet, toy_tokens
from tests.compress.networks.test_network import batch
from tests.compress.toy_steps import finished_network, toy_context, toy_dataset

RUN = {"epochs": 2, "learning_rate": 0.003, "precision": "fp32"}


def student_part(**settings: Any) -> dict[str, Any]:
    """Return the part of a student of the toy teacher."""
    part = {"kind": "distil", "name": "small", "parent": "teacher", "layers": [0], "training": RUN}
    return {**part, **settings}


@pytest.mark.parametrize(
    ("student", "teacher", "wanted"),
    [(2, 6, (2, 5)), (3, 6, (1, 3, 5)), (6, 6, (0, 1, 2, 3, 4, 5)), (1, 4, (3,))],
)
def test_layers_are_spread_evenly(student: int, teacher: int, wanted: tuple[int, ...]) -> None:
    """The last student layer imitates the last teacher layer, the others what lies between."""
    assert spread_layers(student, teacher) == wanted


def test_losses_of_the_inside_by_hand() -> None:
    """Scale costs nothing, opposite states cost 4, and what stands on padding costs nothing."""
    state = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    real = torch.tensor([[True, True, True], [True, False, False]])
    assert float(state_loss(3 * state, state, real)) < 1e-10
    assert abs(float(state_loss(-state, state, real)) - 4) < 1e-5
    changed = state.clone()
    changed[1, 1:] += 9
    assert float(state_loss(changed, state, real)) < 1e-10
    even, sure = torch.full((1, 2, 2), 0.5), torch.tensor([[[1.0, 0.0], [0.5, 0.5]]])
    both = torch.ones(1, 2, dtype=torch.bool)
    assert abs(float(attention_loss(even, sure, both)) - np.log(2) / 2) < 1e-5
    assert float(attention_loss(even, sure, torch.tensor([[False, True]]))) < 1e-6


def test_imitating_oneself_costs_nothing(network: Classifier) -> None:
    """A network that imitates itself pays nothing; another pays, through a learnt map where widths differ."""
    tokens, _ = toy_tokens(12)
    rows = np.arange(12)
    settings = Distillation(hidden_weight=1.0, attention_weight=1.0)
    logits, loss = Imitation(network, network, tokens, settings, (0, 1, 2), seed=0)(rows, tokens.batch(rows))
    assert torch.equal(logits, network(*tokens.batch(rows)))
    assert float(loss.detach()) < 1e-6
    torch.manual_seed(3)
    other = Classifier(toy_shape(hidden=16, layers=(LayerShape(2, 8), LayerShape(0, 8)))).eval()
    imitation = Imitation(other, network, tokens, settings, (0, 2), seed=0)
    _, loss = imitation(rows, tokens.batch(rows))
    assert float(loss.detach()) > 0.1
    assert [tuple(p.shape) for p in imitation.parameters()] == [(32, 16), (32,)] * 3


def test_imitation_brings_the_inside_closer(network: Classifier) -> None:
    """Trained with the companion, a student's states come closer to the teacher's, which stays as it is."""
    tokens, targets = toy_tokens(60)
    torch.manual_seed(3)
    student = Classifier(toy_shape(layers=(LayerShape(4, 16),)))
    settings = Distillation(hidden_weight=5.0, attention_weight=1.0)
    imitation = Imitation(student, network, tokens, settings, (2,), seed=0)
    rows = np.arange(60)
    before, answers = float(imitation(rows, tokens.batch(rows))[1]), predict(network, tokens)
    run = Training(epochs=40, learning_rate=0.01, precision="fp32")
    fit(student, tokens, hard_loss(targets, 0.0), run, seed=0, report=quiet, guide=Guide(companion=imitation))
    assert float(imitation(rows, tokens.batch(rows))[1]) < 0.8 * before
    assert np.array_equal(predict(network, tokens), answers)


def test_the_surest_come_first() -> None:
    """Rows are ordered by the probability of their likeliest class."""
    logits = np.log(np.array([[0.4, 0.6], [0.05, 0.95], [0.8, 0.2]], dtype=np.float32))
    assert easiest_first(logits + 7).tolist() == [1, 2, 0]


def with_unlabelled() -> Any:
    """Return toy data of which the last five training texts have no label."""
    data = toy_dataset()
    rows = np.flatnonzero(np.array(data.split) == "train")[-5:]
    label, split = list(data.label), list(data.split)
    for row in rows:
        label[row], split[row] = "", "unlabelled"
    return replace(data, label=tuple(label), split=tuple(split))


def test_a_lesson_holds_copies_and_unlabelled_texts_without_labels(tmp_path: Path) -> None:
    """Their target is -1, every text has the teacher's answer, and the held-out texts are not among them."""
    parent = finished_network(tmp_path / "teacher", random_network())
    data = with_unlabelled()
    part = student_part(augment={"copies": 1, "replace": 0.5})
    context = toy_context(tmp_path, part, data, parent=parent)
    transfer = prepare_transfer_set(context, parent, DistilPart.model_validate(part), precision="fp32")
    copies = len(transfer.texts) - 100
    assert copies > 50
    assert (transfer.targets == -1).sum() == 5 + copies
    assert not set(transfer.texts) & set(data.of("validation").texts)
    network = random_network()
    encoded = encoder_of(parent).encode(transfer.texts)
    np.testing.assert_allclose(transfer.answers, predict(network, network.examples(encoded)), atol=1e-5)
    alone = DistilPart.model_validate({**part, "extra": False, "augment": None})
    assert len(prepare_transfer_set(context, parent, alone, precision="fp32").texts) == 95


def test_no_copy_is_a_held_out_text(tmp_path: Path) -> None:
    """Where a training text less one word is a text of another split, that copy is not learnt from."""
    parent = finished_network(tmp_path / "teacher", random_network())
    data = toy_dataset(40, validation=10)
    shortened = [" ".join(text.split()[1:]) for text in data.texts[:10]]
    texts = (*data.texts[:30], *(text.upper() for text in shortened))
    chances = {"copies": 60, "drop": 0.1, "swap": 0, "splice": 0}
    found = []
    for case in (data, replace(data, texts=texts, split=(*data.split[:30], *("test",) * 10))):
        part = student_part(augment=chances)
        context = toy_context(tmp_path, part, case, parent=parent)
        transfer = prepare_transfer_set(context, parent, DistilPart.model_validate(part), precision="fp32")
        found.append(len(set(transfer.texts) & set(shortened)))
    assert found[0] > 0
    assert found[1] == 0


@pytest.mark.parametrize("curriculum", [True, False])
def test_a_curriculum_begins_with_what_the_teacher_is_surest_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, curriculum: bool
) -> None:
    """The first batches of a curriculum are of the surest texts; without one they are of any."""
    parent = finished_network(tmp_path / "teacher", random_network())
    part = student_part(curriculum=curriculum, training={**RUN, "batch_size": 5})
    context = toy_context(tmp_path, part, toy_dataset(), parent=parent)
    transfer = prepare_transfer_set(context, parent, DistilPart.model_validate(part), precision="fp32")
    surest = set(easiest_first(transfer.answers)[:25].tolist())
    seen: list[int] = []

    def noting(*arguments: Any) -> Any:
        loss = soft_loss(*arguments)

        def noted(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            seen.extend(rows.tolist())
            return loss(logits, rows)

        return noted

    monkeypatch.setattr("compress.learning.transfer_set.soft_loss", noting)
    distil_student(context)
    assert (set(seen[:10]) <= surest) is curriculum


@pytest.mark.parametrize("kind", ["distil", "cnn"])
def test_dropout_is_the_parts_own(tmp_path: Path, kind: str) -> None:
    """A student drops what its part says, not what its parent did, and its record says so."""
    torch.manual_seed(0)
    parent = finished_network(tmp_path / "teacher", Classifier(toy_shape(dropout=0.4)))
    settings: dict[str, Any] = {"kind": kind, "training": {**RUN, "epochs": 1, "dropout": 0.2}}
    part = {**student_part(), **settings}
    if kind == "cnn":
        del part["layers"]
    context = toy_context(tmp_path, part, toy_dataset(40), parent=parent)
    (distil_student if kind == "distil" else distil_cnn)(context)
    student = load_network(context.folder)
    assert isinstance(student, Classifier | TextCnn)
    assert student.shape.dropout == 0.2
    assert {module.p for module in student.modules() if isinstance(module, nn.Dropout)} == {0.2}


def test_other_pieces_of_equal_number_are_not_imitated(tmp_path: Path) -> None:
    """Teachers whose tokenizer cuts texts elsewhere are refused even at equal lengths; other ids are not."""
    file = json.loads(toy_tokenizer().to_str())
    words = file["model"]["vocab"]
    renumbered, merged = copy.deepcopy(file), copy.deepcopy(file)
    renumbered["model"]["vocab"] = {**words, "goal": words["tax"], "tax": words["goal"]}
    merged["model"]["vocab"] = {word: number for word, number in words.items() if word not in ("goal", "tax")}
    parent = finished_network(tmp_path / "parent", random_network())
    part = student_part(distillation={"hidden_weight": 1.0}, teacher="other")
    for name, tokenizer in (("renumbered", renumbered), ("merged", merged)):
        teacher = finished_network(tmp_path / name, random_network(), json.dumps(tokenizer).encode())
        context = toy_context(tmp_path, part, toy_dataset(60), parent=parent, teacher=teacher)
        if name == "renumbered":
            assert distil_student(context)["taught_texts"] == 40
        else:
            with pytest.raises(RecipeError, match="other word pieces"):
                distil_student(context)


@given(
    epochs=st.integers(0, 9), taught=st.integers(1, 5000), own=st.integers(1, 5000), size=st.integers(1, 64)
)
def test_a_twin_takes_as_many_steps(epochs: int, taught: int, own: int, size: int) -> None:
    """To half an epoch of its own; with as many texts it is as many epochs."""
    training = Training(epochs=epochs, batch_size=size)
    found, per_epoch = equal_epochs(training, taught, own), -(-own // size)
    assert abs(found * per_epoch - epochs * -(-taught // size)) <= per_epoch / 2
    assert equal_epochs(training, own, own) == epochs


def test_answers_are_kept_for_one_teacher_alone(tmp_path: Path) -> None:
    """Two teachers that differ in their weights alone are both asked."""
    other = random_network()
    with torch.no_grad():
        other.classify.bias.add_(torch.tensor([0.0, 0.0, 9.0]))
    answers = []
    for name, network in (("one", random_network()), ("two", other)):
        teacher = finished_network(tmp_path / name / "teacher", network)
        context = toy_context(tmp_path / name, student_part(), toy_dataset(), parent=teacher)
        part = DistilPart.model_validate(student_part())
        answers.append(prepare_transfer_set(context, teacher, part, precision="fp32").answers)
    np.testing.assert_allclose(answers[1] - answers[0], [[0, 0, 9]] * 100, atol=1e-4)


def test_the_teacher_named_is_the_one_asked(tmp_path: Path) -> None:
    """With a teacher of its own a student learns that one's answers, not its parent's."""
    parent = finished_network(tmp_path / "teacher", random_network())
    torch.manual_seed(5)
    other = random_network()
    with torch.no_grad():
        other.classify.weight.zero_()
        other.classify.bias.copy_(torch.tensor([0.0, 0.0, 9.0]))
    assistant = finished_network(tmp_path / "assistant", other)
    part = student_part(
        teacher="assistant", distillation={"soft_weight": 1.0}, training={**RUN, "epochs": 8, "average": True}
    )
    context = toy_context(tmp_path, part, toy_dataset(), parent=parent, teacher=assistant)
    distil_student(context)
    student = load_network(context.folder)
    tokens, _ = toy_tokens(40)
    assert (predict(student, tokens).argmax(1) == 2).all()


def test_a_student_of_any_depth_and_width_learns_all_that_can_be_learnt(tmp_path: Path) -> None:
    """Narrower states, fewer heads and neurons, imitation, copies and a curriculum go together."""
    parent = finished_network(tmp_path / "teacher", random_network())
    part = student_part(
        layers=[0, 2],
        hidden=16,
        heads=2,
        neurons=8,
        curriculum=True,
        augment={"copies": 1},
        distillation={"hidden_weight": 1.0, "attention_weight": 1.0, "layer_map": [1, 2]},
    )
    told: list[str] = []
    context = toy_context(tmp_path, part, toy_dataset(), told, parent=parent)
    result = distil_student(context)
    student = load_network(context.folder)
    assert isinstance(student, Classifier)
    assert student.shape.hidden == 16
    assert student.shape.layers == (LayerShape(2, 8),) * 2
    assert result["widths"] == [[2, 8], [2, 8]]
    assert any("asking the teacher" in words for words in told)


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"layers": [3]}, "no layer 3"),
        ({"hidden": 64}, "hidden is 64"),
        ({"heads": 5}, "heads is 5"),
        ({"distillation": {"hidden_weight": 1, "layer_map": [0, 1]}}, "names 2 layers, the student has 1"),
        ({"distillation": {"attention_weight": 1, "layer_map": [7]}}, "no layer 7"),
    ],
)
def test_what_is_not_there_is_refused(tmp_path: Path, settings: dict[str, Any], rule: str) -> None:
    """Layers, widths and maps beyond the parent's are named."""
    parent = finished_network(tmp_path / "teacher", random_network())
    with pytest.raises(RecipeError, match=rule):
        distil_student(toy_context(tmp_path, student_part(**settings), toy_dataset(), parent=parent))


def test_dimensions_that_nothing_depends_on_go_unnoticed(network: Classifier) -> None:
    """Dimensions without any effect score zero, and a network cut to all of its states answers the same."""
    with torch.no_grad():
        silent = network.classify.weight.new_zeros(network.shape.classes, 4)
        network.classify.weight[:, :4] = silent
        for layer in network.layers:
            layer.attention.qkv.weight[:, :4] = 0
            layer.widen.weight[:, :4] = 0
            layer.narrow.weight[:4] = 0
            layer.attention.output.weight[:4] = 0
    tokens, targets = toy_tokens(30)
    scores = state_importance(network, tokens, targets)
    assert scores.shape == (32,)
    assert scores[4:].min() > scores[:4].max()
    whole = keep_states(network, np.arange(32))
    assert torch.equal(whole(*batch(network)), network(*batch(network)))
    shuffled = keep_states(network, np.arange(32)[::-1].copy())
    torch.testing.assert_close(shuffled(*batch(network)), network(*batch(network)), atol=1e-4, rtol=1e-3)


def test_a_twin_has_the_shape_and_nothing_else(tmp_path: Path) -> None:
    """A twin starts at random, learns from labels, and its folder is one that others can be made from."""
    like = finished_network(tmp_path / "small", random_network())
    like = replace(like, result={**like.result, "taught_texts": 3 * 180})
    part = student_part(training={**RUN, "learning_rate": 0.01})
    context = toy_context(tmp_path, part, toy_dataset(200), like=like)
    result = train_twin(context)
    assert result["epochs"] == 6
    assert result["summary"] == "6 epochs of 180 labelled texts"
    twin = load_network(context.folder)
    assert isinstance(twin, Classifier)
    assert twin.shape == random_network().shape
    tokens, targets = toy_tokens(200)
    assert (predict(twin, tokens).argmax(1) == targets)[180:].mean() > 0.6
    assert result["encoder"] == like.result["encoder"]
    one, same, other = random_network(), random_network(), random_network()
    for made, seed in ((one, 1), (same, 1), (other, 2)):
        randomize(made, seed=seed)
    assert torch.equal(one.classify.weight, same.classify.weight)
    assert not torch.equal(one.classify.weight, other.classify.weight)
    assert functional.mse_loss(one.classify.weight, other.classify.weight) < 0.01
