"""Vocabulary pruning: fewer pieces, and the same answers where a text's pieces are there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from compress.encoders import encoder_of
from compress.learning.distil import distil_student
from compress.learning.text_cnn import CnnShape, TextCnn
from compress.learning.training import predict
from compress.networks.models import Tokens, load_network
from compress.networks.network import Classifier
from compress.pruning.vocabulary import Pieces, keep_pieces, prune_vocabulary, require_same
from compress.store import Finished
from contract.errors import RecipeError, SluiceError
from runtime.wordpiece import WordPieceEncoder
from tests.compress.conftest import random_network, toy_shape, toy_tokenizer
from tests.compress.toy_steps import finished_network, toy_context, toy_dataset

LETTERS = "abcdefg"
WORDS = ("cab", "##bage", "bad", "##ge", "##g", "##ga", "##ged", "ace", "dead", "##ed", "fa", "##ce", "bag")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def wordpiece(post_processor: processors.PostProcessor | None = None) -> bytes:
    """Return the file of a small word-piece tokenizer, its special tokens in the middle of the vocabulary."""
    pieces = ["[PAD]", "[unused0]", *WORDS, *SPECIAL[1:], *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    vocab = {piece: place for place, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(list(SPECIAL))
    ids = [("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])]
    tokenizer.post_processor = post_processor or processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ids
    )
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
    return tokenizer.to_str().encode()


def counts_of(file: bytes, texts: list[str]) -> np.ndarray:
    """Return how often each piece of a tokenizer occurs in some texts."""
    tokens = Tokens.of(WordPieceEncoder(file, max_length=64).encode(texts))
    return tokens.counts(Tokenizer.from_str(file.decode()).get_vocab_size())


def words_of(file: bytes, text: str) -> list[str]:
    """Return the pieces that a tokenizer makes of a text."""
    return [str(piece) for piece in Tokenizer.from_str(file.decode()).encode(text).tokens]


def random_classifier(size: int) -> Classifier:
    """Return a small network over so many pieces, the same at every call."""
    torch.manual_seed(0)
    made = Classifier(toy_shape(vocabulary=size))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    made.eval()
    return made


texts_of_letters = st.lists(
    st.text(LETTERS + " ", min_size=1, max_size=12).filter(str.strip), min_size=1, max_size=6
)


@settings(max_examples=25, deadline=None)
@given(training=texts_of_letters, others=texts_of_letters)
def test_texts_of_kept_pieces_have_identical_logits(training: list[str], others: list[str]) -> None:
    """Training texts are answered bit by bit as before; any other is spelt in smaller pieces."""
    file = wordpiece()
    pieces = Pieces.of(file)
    kept = pieces.kept(counts_of(file, training), 1)
    smaller_file = pieces.only(kept)
    network = random_classifier(len(pieces.ids))
    smaller = keep_pieces(network, kept)
    assert smaller.shape.vocabulary == len(kept) < len(pieces.ids)
    before, after = (WordPieceEncoder(f, max_length=64).encode(training) for f in (file, smaller_file))
    assert np.array_equal(predict(network, Tokens.of(before)), predict(smaller, Tokens.of(after)))
    for text in others:
        spelt = "".join(piece.removeprefix("##") for piece in words_of(smaller_file, text)[1:-1])
        assert spelt == text.replace(" ", "")


def test_unseen_words_are_spelt_in_smaller_pieces() -> None:
    """A whole word that training never used is read in the pieces that are left, or in letters."""
    file = wordpiece()
    pieces = Pieces.of(file)
    smaller = pieces.only(pieces.kept(counts_of(file, ["cab", "fabage"]), 1))
    assert words_of(file, "cabbage dead") == ["[CLS]", "cab", "##bage", "dead", "[SEP]"]
    assert words_of(smaller, "cabbage dead") == [
        "[CLS]", "cab", "##bage", "d", "##e", "##a", "##d", "[SEP]"
    ]  # fmt: skip
    assert "[unused0]" not in Pieces.of(smaller).ids


def test_min_count_keeps_only_frequent_pieces() -> None:
    """A piece goes that occurs less often than asked for."""
    file = wordpiece()
    pieces = Pieces.of(file)
    counts = counts_of(file, ["bad bad dead", "bad ace"])
    left = {w for w, i in pieces.ids.items() if i in set(pieces.kept(counts, 2).tolist())}
    assert "bad" in left
    assert not left & {"dead", "ace"}


BERT = processors.BertProcessing(("[SEP]", 17), ("[CLS]", 16))


@pytest.mark.parametrize("post_processor", [None, BERT, processors.Sequence([BERT])])
def test_every_id_in_the_file_is_renumbered(post_processor: Any) -> None:
    """Special tokens, template, padding and vocabulary agree on the new ids, which have no holes."""
    file = wordpiece(post_processor)
    pieces = Pieces.of(file)
    smaller = pieces.only(pieces.kept(counts_of(file, ["dead"]), 1))
    raw, tokenizer = json.loads(smaller), Tokenizer.from_str(smaller.decode())
    assert sorted(raw["model"]["vocab"].values()) == list(range(tokenizer.get_vocab_size()))
    for token in raw["added_tokens"]:
        assert raw["model"]["vocab"][token["content"]] == token["id"]
        assert tokenizer.token_to_id(token["content"]) == token["id"]
    assert raw["padding"]["pad_id"] == raw["model"]["vocab"]["[PAD]"]
    encoded = tokenizer.encode("dead")
    assert encoded.tokens == ["[CLS]", "dead", "[SEP]"]
    assert encoded.ids == [tokenizer.token_to_id(token) for token in encoded.tokens]


def test_word_level_tokenizers_lose_words_too() -> None:
    """A tokenizer of whole words keeps those seen; the others become the unknown word that they are."""
    file = toy_tokenizer().to_str().encode()
    pieces = Pieces.of(file)
    smaller = pieces.only(pieces.kept(counts_of(file, ["the goal of a team"]), 1))
    assert words_of(smaller, "the goal of software") == ["[CLS]", "the", "goal", "of", "[UNK]", "[SEP]"]
    assert WordPieceEncoder(smaller, max_length=9).encode(["a team"]).arrays["input_ids"][0, 0] == 2


def test_pieces_made_of_pieces_are_refused() -> None:
    """A byte-pair vocabulary cannot lose entries that others are merged from: the error says so."""
    file = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")])).to_str().encode()
    with pytest.raises(RecipeError, match="'BPE' cannot be pruned"):
        Pieces.of(file)


def test_a_table_too_small_for_its_tokenizer_is_refused() -> None:
    """An id without a row in the embedding table is an error, not an answer."""
    with pytest.raises(SluiceError, match="the embedding table has 5 rows"):
        keep_pieces(random_classifier(5), np.arange(7))


def test_rows_are_sliced_and_padding_moves_along() -> None:
    """The new table has the kept rows in order, and the id of padding is its new place."""
    network = random_classifier(10)
    smaller = keep_pieces(network, np.array([0, 3, 9]))
    assert torch.equal(smaller.words.weight, network.words.weight[[0, 3, 9]])
    assert smaller.shape.pad_id == 0
    assert torch.equal(smaller.classify.weight, network.classify.weight)


def test_a_tokenizer_that_reads_otherwise_is_refused() -> None:
    """If a text of kept pieces came out in other pieces the step would fail, naming the text."""
    before = Tokens(np.array([[1, 2, 0], [1, 3, 4]]), np.array([2, 3]))
    kept = np.array([0, 1, 2])
    require_same(before, Tokens(np.array([[1, 2], [9, 9]]), np.array([2, 2])), kept, 5)
    with pytest.raises(SluiceError, match="training text 0 otherwise"):
        require_same(before, Tokens(np.array([[2, 2], [9, 9]]), np.array([2, 2])), kept, 5)


def test_a_step_writes_a_parent_that_others_learn_from(tmp_path: Path) -> None:
    """Fewer pieces, the same answers on training texts; a student of it has its tokenizer, not the first.

    The student's teacher reads with the larger tokenizer, the student with the smaller.
    """
    data = toy_dataset(120)
    rare = {"sport", "goal", "chip"}
    keep = np.array([not rare & set(text.split()) for text in data.texts])
    data = data.take(np.flatnonzero(keep))
    teacher = finished_network(tmp_path / "teacher", random_network())
    part = {"kind": "vocabulary", "name": "lean", "parent": "teacher"}
    context = toy_context(tmp_path, part, data, parent=teacher)
    result = prune_vocabulary(context)
    lean = Finished("lean", "lean", context.folder, {}, result, {})
    assert result["pieces_before"] - result["pieces_after"] == 2
    assert result["parameters"] == teacher.result["parameters"] - 2 * 32
    assert result["tokens_per_text_before"] == result["tokens_per_text_after"]
    answers = [
        predict(load_network(made.folder), Tokens.of(encoder_of(made).encode(data.of("train").texts)))
        for made in (teacher, lean)
    ]
    assert np.array_equal(answers[0], answers[1])
    run = {"epochs": 1, "learning_rate": 0.001, "precision": "fp32"}
    child: dict[str, Any] = {
        "kind": "distil",
        "name": "child",
        "parent": "lean",
        "teacher": "teacher",
        "layers": [0],
    }
    context = toy_context(tmp_path, {**child, "training": run}, data, parent=lean, teacher=teacher)
    made = distil_student(context)
    assert made["encoder"] == result["encoder"] != teacher.result["encoder"]
    assert load_network(context.folder).state_dict()["words.weight"].shape[0] == result["pieces_after"]


def test_convolutional_students_lose_rows_too() -> None:
    """A text network of another kind keeps its filters, and the rows of the pieces that stay."""
    network = TextCnn(CnnShape(10, 8, 4, (1, 2), 3, 24))
    smaller = keep_pieces(network, np.array([0, 3, 9]))
    assert isinstance(smaller, TextCnn)
    ids, mask = torch.tensor([[9, 3]]), torch.ones(1, 2, dtype=torch.long)
    assert torch.equal(smaller(torch.tensor([[2, 1]]), mask), network(ids, mask))
