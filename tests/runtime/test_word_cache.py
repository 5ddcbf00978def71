"""Words looked up give the tokenizer's own answers."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from runtime import word_cache
from runtime.word_cache import word_tokens
from runtime.wordpiece import ATTENTION_MASK, INPUT_IDS, WordPieceEncoder

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
PIECES = (
    *SPECIAL,
    *"abcABC01'.,-[]$_é中İß;<Kk",
    *("##a", "##b", "##B", "##é", "##0", "can", "CLS", "cls"),
)
FRAGMENTS = (
    *("a", "ab", "Abba", "can't", "b0", "[CLS]", "[cls]", "[", "]", "<e>", "<E>", "new york", "don't-stop,"),
    *(" ", "  ", "\t", "\n", "\r\n", "ab ", " a"),
    *("\0", "\x0b", "\x0c", "\x1c", "\x1f", "\x7f", "\x85", "\xa0", "\u3000", "\u200b", "\ufffd", "\ud800"),
    *("é", "e\u0301", "\u0301", "\u0327", "\u0301\u0327", "中文", "İ", "ß", "Σ", "\u1100\u1161"),
    # The Kelvin sign, the Greek question mark and the negated "<" are ASCII when decomposed.
    *("\u212a", "a b\u037e", "a b;", "\u226ee>", "\U0001f600"),
    *("a" * 20, "a" * 50, "ab" * 60),
)
TEXTS = st.lists(
    st.sampled_from(FRAGMENTS) | st.sampled_from(" a.") | st.characters(max_codepoint=0x17F), max_size=25
).map("".join)

BERT = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
TEMPLATE = processors.TemplateProcessing(
    single="[CLS] [CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
)
OPTIONS: dict[str, dict[str, Any]] = {
    "uncased": {},
    "cased": {"lowercase": False},
    "accents kept": {"strip_accents": False},
    "cased, accents off": {"lowercase": False, "strip_accents": True},
    "not cleaned": {"clean_text": False},
    "Chinese left together": {"handle_chinese_chars": False},
}
ADDED: dict[str, list[AddedToken]] = {
    "normalised": [AddedToken("<E>"), AddedToken("a;"), AddedToken("a b;", lstrip=True)],
    "whole words": [AddedToken("can't", single_word=True, normalized=False, rstrip=True)],
}


def a_tokenizer(processor: Any = TEMPLATE, added: tuple[AddedToken, ...] = (), **options: Any) -> Tokenizer:
    """Return a toy BERT tokenizer."""
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(PIECES)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(**options)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if processor is not None:
        tokenizer.post_processor = processor
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.add_tokens(list(added))
    return tokenizer


def word_level() -> Tokenizer:
    """Return a tokenizer of another kind, of whole words."""
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(PIECES)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def byte_level() -> Tokenizer:
    """Return a tokenizer of another kind, in which a space is a part of the next word."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate([*letters, "ab"])}, [("a", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return tokenizer


TOKENIZERS: dict[str, Tokenizer] = {
    **{name: a_tokenizer(**options) for name, options in OPTIONS.items()},
    **{name: a_tokenizer(BERT, tuple(added)) for name, added in ADDED.items()},
    "no special tokens": a_tokenizer(None),
    "word level": word_level(),
    "byte level": byte_level(),
}


@cache
def pair(name: str, max_length: int) -> tuple[WordPieceEncoder, Tokenizer]:
    """Return an encoder, which keeps its words from one example to the next, and the library alone."""
    content = TOKENIZERS[name].to_str()
    library = Tokenizer.from_str(content)
    library.enable_truncation(max_length)
    return WordPieceEncoder(content.encode(), max_length=max_length), library


def said(library: Tokenizer, text: str) -> list[int]:
    """Return the token ids that the library alone gives."""
    ids: list[int] = library.encode_batch_fast([text.encode("utf-8", "replace").decode()])[0].ids
    return ids


@pytest.mark.parametrize("name", TOKENIZERS)
@given(texts=st.lists(TEXTS, min_size=1, max_size=4), max_length=st.sampled_from([1, 2, 3, 4, 6, 16, 200]))
def test_every_text_gets_the_tokenizers_own_tokens(name: str, texts: list[str], max_length: int) -> None:
    """Alone or with others, seen before or not, at any max_length, with any tokenizer; padding for none."""
    encoder, library = pair(name, max_length)
    # A longer text is cut before it is encoded.
    texts = [text[: 100 * max_length] for text in texts]
    wanted = [said(library, text) or [0] for text in texts]
    for text, ids in zip(texts, wanted, strict=True):
        alone = encoder.encode([text])
        assert alone.arrays[INPUT_IDS].tolist() == [ids]
        assert alone.arrays[ATTENTION_MASK].tolist() == [[1] * len(ids)]
        assert alone.lengths.tolist() == [len(ids)]
    together = encoder.encode(texts)
    assert together.lengths.tolist() == [len(ids) for ids in wanted]
    assert together.arrays[ATTENTION_MASK].sum(axis=1).tolist() == together.lengths.tolist()
    for row, ids in zip(together.arrays[INPUT_IDS].tolist(), wanted, strict=True):
        assert row == ids + [0] * (len(row) - len(ids))


def test_plain_texts_are_looked_up() -> None:
    """Punctuation and white space of any kind do not send a text to the tokenizer; an added token may."""
    store = word_tokens(a_tokenizer())
    assert store is not None
    for text in ("", "Abba can't, a\tb\r\n0", "é " + "a- " * 50):
        assert store.find(text, 200) is not None
    for text in ("[CLS]", "a [ b", "\ud800", "a" * 33):
        assert store.find(text, 200) is None


@pytest.mark.parametrize("text", ["a b;", "A B\u037e", "a e b;"])
def test_an_added_token_is_seen_across_words_and_spellings(text: str) -> None:
    """A text in which only normalising shows the token's mark goes to the tokenizer."""
    encoder, library = pair("normalised", 16)
    assert encoder.encode([text]).arrays[INPUT_IDS].tolist() == [said(library, text)]
    assert encoder._words is not None
    assert encoder._words.find(text, 14) is None


@pytest.mark.parametrize("name", ["word level", "byte level"])
def test_other_tokenizers_keep_no_words(name: str) -> None:
    """Where a word's tokens may depend on its neighbours there is nothing to look up."""
    assert word_tokens(TOKENIZERS[name]) is None


@pytest.mark.parametrize("content", ["new york", "é"])
def test_an_added_token_that_nothing_tells_from_words_keeps_none(content: str) -> None:
    """Without punctuation in it, no word shows that a text holds it."""
    assert word_tokens(a_tokenizer(added=(AddedToken(content),))) is None


def test_a_full_store_starts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It never holds more than its bound, and today's texts are looked up the second time at the latest."""
    monkeypatch.setattr(word_cache, "_MOST_WORDS", 3)
    tokenizer = a_tokenizer()
    encoder = WordPieceEncoder(tokenizer.to_str().encode(), max_length=16)
    store = encoder._words
    assert store is not None
    for text in ("a b", "b c", "c A", "a,b A", "a b"):
        assert encoder.encode([text]).arrays[INPUT_IDS].tolist() == [said(tokenizer, text)]
        assert store.find(text, 14) is not None
        assert len(store) <= 3


def test_a_text_of_new_words_teaches_some_of_them() -> None:
    """It goes to the tokenizer; seen often enough, it is looked up."""
    store = word_tokens(a_tokenizer())
    assert store is not None
    text = " ".join(f"a{number}" for number in range(40))
    assert [store.find(text, 200) is not None for _ in range(3)] == [False, False, True]


def test_what_calls_share_cannot_be_written_to() -> None:
    """A single text's mask and lengths serve every text of that length; its ids are its own."""
    encoder, _ = pair("uncased", 16)
    encoded = encoder.encode(["a b"])
    encoded.arrays[INPUT_IDS][:] = 0
    assert encoder.encode(["a b"]).arrays[INPUT_IDS].all()
    for shared in (encoded.arrays[ATTENTION_MASK], encoded.lengths):
        with pytest.raises(ValueError, match="read-only"):
            np.put(shared, 0, 7)
