"""The word-piece encoder."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models

from contract.errors import FamilyError
from runtime.wordpiece import WordPieceEncoder, read_wordpiece


@pytest.fixture
def encoder(tokenizer_path: Path) -> WordPieceEncoder:
    """The toy encoder, texts cut at six tokens."""
    return read_wordpiece(tokenizer_path, max_length=6)


def test_pads_to_the_longest_text_of_the_call(encoder: WordPieceEncoder) -> None:
    """Rows are padded to the longest text, and the mask says which tokens are real."""
    encoded = encoder.encode(["good films", "bad"])
    assert encoded.arrays["input_ids"].tolist() == [[2, 4, 6, 7, 3], [2, 5, 3, 0, 0]]
    assert encoded.arrays["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert encoded.lengths.tolist() == [5, 3]
    assert all(array.dtype == np.int64 for array in encoded.arrays.values())


def test_cuts_long_texts_and_keeps_special_tokens(encoder: WordPieceEncoder) -> None:
    """A text beyond max_length keeps its first tokens and the closing one."""
    encoded = encoder.encode(["good " * 50])
    assert encoded.arrays["input_ids"].tolist() == [[2, 4, 4, 4, 4, 3]]


@pytest.mark.parametrize("filler", [" ", "\n\t", "\0"])
def test_what_gives_no_tokens_hides_no_words(encoder: WordPieceEncoder, filler: str) -> None:
    """However much of it stands before the words, a text encodes as its tokens say, alone and with others."""
    text = filler * 3000 + " good film"
    short = encoder.encode([filler + " good film"]).arrays["input_ids"][0].tolist()
    for texts in ([text], ["bad", text]):
        row = encoder.encode(texts).arrays["input_ids"][-1].tolist()
        assert row[: len(short)] == short


def test_one_endless_word_does_not_hide_the_words_after_it(encoder: WordPieceEncoder) -> None:
    """A word of any length is one unknown token."""
    assert encoder.encode(["x" * 5000 + " good film"]).arrays["input_ids"].tolist() == [[2, 1, 4, 6, 3]]


def test_empty_and_strange_texts_are_legal(encoder: WordPieceEncoder) -> None:
    """Empty text, white space, NUL and half a surrogate pair encode without an error."""
    encoded = encoder.encode(["", "  \n", "\0", "good \ud800"])
    assert encoded.lengths[:3].tolist() == [2, 2, 2]
    assert encoded.arrays["input_ids"][3, :2].tolist() == [2, 4]


def test_an_empty_text_has_a_token_where_no_special_ones_stand_around_it() -> None:
    """Tokenizers of generative models add none, and no graph answers nothing at all."""
    pieces = Tokenizer(models.BPE({"[PAD]": 0, "a": 1}, []))
    encoder = WordPieceEncoder(pieces.to_str().encode(), max_length=6)
    assert encoder.encode([""]).arrays["input_ids"].tolist() == [[0]]
    assert encoder.encode(["", "a"]).arrays["input_ids"].tolist() == [[0], [1]]
    assert encoder.encode(["", "a"]).lengths.tolist() == [1, 1]


def test_one_text_and_many_give_the_same_tokens(encoder: WordPieceEncoder) -> None:
    """A text's tokens do not depend on the other texts of the call."""
    texts = ["good", "very bad films", ""]
    together = encoder.encode(texts)
    for i, text in enumerate(texts):
        alone = encoder.encode([text])
        n = int(alone.lengths[0])
        assert together.arrays["input_ids"][i, :n].tolist() == alone.arrays["input_ids"][0].tolist()


def test_identity_covers_tokenizer_and_options(tokenizer_path: Path) -> None:
    """Equal content and options give one hash; another max_length gives another."""
    one, same = (read_wordpiece(tokenizer_path, max_length=8) for _ in range(2))
    assert one.sha256 == same.sha256 == one.encode(["good"]).encoder
    assert one.sha256 != read_wordpiece(tokenizer_path, max_length=9).sha256


def test_not_a_tokenizer_is_refused() -> None:
    """A file that is no tokenizer is a FamilyError."""
    with pytest.raises(FamilyError, match=r"not a tokenizer\.json"):
        WordPieceEncoder(b"{}", max_length=8)


def test_threads_share_one_encoder(encoder: WordPieceEncoder) -> None:
    """Many threads get the answers that one gets."""
    texts = ["good films", "bad", "very good", ""]
    expected = encoder.encode(texts).arrays["input_ids"]
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(50):
            if not np.array_equal(encoder.encode(texts).arrays["input_ids"], expected):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
