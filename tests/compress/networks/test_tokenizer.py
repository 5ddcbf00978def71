"""Tokenizers of published folders: the same tokens as transformers, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from compress.networks.opening import open_model
from compress.networks.tokenizer import AWKWARD, ServedTokenizer, served_tokenizer
from contract.errors import RecipeError
from runtime.wordpiece import INPUT_IDS, TOKEN_TYPES, WordPieceEncoder

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "Good",
    "good",
    "film",
    "Film",
    *LETTERS,
    *LETTERS.upper(),
)
VOCABULARY = {word: row for row, word in enumerate(dict.fromkeys((*WORDS, *(f"##{c}" for c in LETTERS))))}
MOST = 24


def bert(*, lowercase: bool) -> Tokenizer:
    """Return a WordPiece tokenizer with words in capitals and without."""
    from tokenizers import normalizers

    tokenizer = Tokenizer(models.WordPiece(VOCABULARY, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that is a model by its names; only its tokenizer is read."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize("said_in", ["tokenizer_config.json", "tokenizer.json"])
def test_a_tokenizer_that_cuts_beginnings_off_is_refused(folder: Path, said_in: str) -> None:
    """What serves keeps the beginning of a long text; a model that was given the end is told."""
    tokenizer = bert(lowercase=True)
    if said_in == "tokenizer.json":
        tokenizer.enable_truncation(MOST, direction="left")
    else:
        told = {"tokenizer_class": "PreTrainedTokenizerFast", "truncation_side": "left"}
        (folder / said_in).write_text(json.dumps(told))
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(RecipeError, match=f"(?s)cuts long texts at their beginning.*{said_in}"):
        served(folder)


def served(folder: Path, rows: int = len(VOCABULARY)) -> ServedTokenizer:
    """Return what would be served of a folder."""
    return served_tokenizer(open_model(str(folder)), rows=rows, max_length=MOST)


def ids(found: ServedTokenizer, text: str) -> list[int]:
    """Return the tokens that the encoder of a served tokenizer makes of a text."""
    encoder = WordPieceEncoder(found.content, max_length=MOST)
    return [int(number) for number in encoder.encode([text]).arrays[INPUT_IDS][0]]


def write(folder: Path, name: str, value: Any) -> None:
    """Write JSON beside the configuration."""
    (folder / name).write_text(json.dumps(value))


def test_lower_casing_outside_tokenizer_json_is_served(folder: Path) -> None:
    """do_lower_case of tokenizer_config.json counts as in transformers, whatever tokenizer.json says."""
    for inside in (True, False):
        bert(lowercase=inside).save(str(folder / "tokenizer.json"))
        for said, wanted in ((True, "good"), (False, "Good")):
            write(
                folder, "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "do_lower_case": said}
            )
            found = served(folder)
            assert ids(found, "Good") == [2, VOCABULARY[wanted], 3]
            assert found.notes or inside == said


def test_lower_casing_by_sentence_transformers_is_served(folder: Path) -> None:
    """Texts are lower-cased before a cased tokenizer, as that library does, Greek's last sigma included."""
    bert(lowercase=False).save(str(folder / "tokenizer.json"))
    write(folder, "sentence_bert_config.json", {"do_lower_case": True, "max_seq_length": 12})
    assert ids(served(folder), "Good FILM") == [2, VOCABULARY["good"], VOCABULARY["film"], 3]
    write(folder, "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "do_lower_case": False})
    assert ids(served(folder), "Good FILM") == [2, VOCABULARY["good"], VOCABULARY["film"], 3]
    assert open_model(str(folder)).asked_length == 12


def test_lowered_texts_hold_no_special_token_in_capitals(folder: Path) -> None:
    """As in sentence-transformers, where [CLS] in a text has become [cls] before the tokenizer sees it."""
    tokenizer = bert(lowercase=True)
    tokenizer.add_special_tokens(["[CLS]", "[SEP]"])
    tokenizer.save(str(folder / "tokenizer.json"))
    write(folder, "sentence_bert_config.json", {"do_lower_case": True})
    assert ids(served(folder), "[CLS] good").count(2) == 1


def test_two_kinds_of_tokenizer_for_one_folder_are_refused(folder: Path) -> None:
    """Where transformers makes another kind than the file's, nobody knows which the model saw."""
    tokenizer = bert(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    write(folder, "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "do_lower_case": True})
    with pytest.raises(RecipeError, match="would be served reads") as caught:
        served(folder)
    assert "PreTrainedTokenizerFast" in str(caught.value.hint)
    write(folder, "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    assert ids(served(folder), "good") == [2, VOCABULARY["good"], 3]


@pytest.mark.parametrize("lower", [True, False])
def test_a_word_list_alone_becomes_a_tokenizer(lower: bool, folder: Path) -> None:
    """vocab.txt is converted by transformers, and every awkward text reads as it does there."""
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    write(folder, "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "do_lower_case": lower})
    from transformers import AutoTokenizer

    found, reference = served(folder), AutoTokenizer.from_pretrained(folder)
    for text in AWKWARD:
        assert ids(found, text) == reference(text, truncation=True, max_length=MOST)["input_ids"], text


def test_merges_of_bytes_become_a_tokenizer(folder: Path) -> None:
    """vocab.json and merges.txt, as RoBERTa was first published, are converted."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *alphabet, "go", "od", "good", "<mask>"]
    write(folder, "vocab.json", {piece: row for row, piece in enumerate(pieces)})
    (folder / "merges.txt").write_text("#version: 0.2\ng o\no d\ngo od\n")
    write(folder, "config.json", {"model_type": "roberta"})
    write(folder, "tokenizer_config.json", {"tokenizer_class": "RobertaTokenizer"})
    found = served(folder, rows=len(pieces))
    assert ids(found, "good") == [0, pieces.index("good"), 2]


def test_a_tokenizer_of_code_is_refused(folder: Path) -> None:
    """auto_map is named, and nothing of the folder is run."""
    bert(lowercase=True).save(str(folder / "tokenizer.json"))
    write(folder, "tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["t.T", None]}})
    with pytest.raises(RecipeError, match="auto_map"):
        served(folder)


@pytest.mark.parametrize("spoil", ["template", "unknown", "added", "truncation"])
def test_a_tokenizer_that_fails_on_some_text_is_refused(spoil: str, folder: Path) -> None:
    """The library panics on some files only when it reads a text, which would end a server's request."""
    raw = json.loads(bert(lowercase=True).to_str())
    if spoil == "template":
        raw["post_processor"]["special_tokens"].pop("[SEP]")
    elif spoil == "unknown":
        raw["model"]["unk_token"] = "[NOWHERE]"
    elif spoil == "added":
        raw["added_tokens"] = 3
    else:
        raw["truncation"] = 3
    write(folder, "tokenizer.json", raw)
    with pytest.raises(RecipeError, match="not a tokenizer that can be used"):
        served(folder)


def test_settings_that_are_no_mapping_are_refused(folder: Path) -> None:
    """A list in the place of the settings is named by its file."""
    bert(lowercase=True).save(str(folder / "tokenizer.json"))
    write(folder, "tokenizer_config.json", ["BertTokenizer"])
    with pytest.raises(RecipeError, match=r"tokenizer_config\.json is not a mapping"):
        served(folder)


def test_segments_that_are_not_zero_are_given(folder: Path) -> None:
    """A tokenizer whose first token stands in a segment of its own has it served, in batches too."""
    tokenizer = bert(lowercase=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:2 $A:0 [SEP]:0", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    content = tokenizer.to_str().encode()
    encoder = WordPieceEncoder(content, max_length=MOST, token_types=True)
    assert encoder.sha256 != WordPieceEncoder(content, max_length=MOST).sha256
    found = encoder.encode(["good film", "good", "", "[CLS] good"])
    for row, length in enumerate(found.lengths):
        expected = tokenizer.encode(["good film", "good", "", "[CLS] good"][row])
        assert found.arrays[INPUT_IDS][row, :length].tolist() == expected.ids
        assert found.arrays[TOKEN_TYPES][row, :length].tolist() == expected.type_ids
    assert encoder.encode(["good"]).arrays[TOKEN_TYPES].tolist() == [[2, 0, 0]]


def test_a_disagreement_names_the_text_and_both_readings(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where neither form gives the library's tokens, the first text that differs is told."""
    import transformers

    bert(lowercase=True).save(str(folder / "tokenizer.json"))
    write(folder, "tokenizer_config.json", {"tokenizer_class": "BertTokenizer"})
    real = transformers.BertTokenizer.__call__

    def other(self: Any, text: str, **options: Any) -> Any:
        return real(self, text.replace("Plain", ""), **options)

    monkeypatch.setattr(transformers.BertTokenizer, "__call__", other)
    with pytest.raises(
        RecipeError, match=r"'Plain words, in a row\.' as \[2, .*transformers reads it as \[2"
    ):
        served(folder)
