"""The tokenizer of a published folder as it is served: the same tokens as transformers, or refused."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.networks.folders import TOKENIZER, TOKENIZER_CONFIG, ModelFolder
from compress.networks.settings import require_tokenizer
from compress.recipes.recipe import TeacherPart
from contract.errors import RecipeError
from runtime.wordpiece import INPUT_IDS, WordPieceEncoder

# Every text here has told two tokenizers apart somewhere: case, accents, forms of one character, spaces,
# what looks like a special token, other scripts, words too long for a vocabulary.
AWKWARD = (
    "",
    " ",
    "Plain words, in a row.",
    "  Two  spaces\tand a tab\nand a line  ",
    "ALL CAPITALS and MixedCase",
    "Émile Zola à Besançon, naïve Ångström",
    "cafe\u0301 and caf\u00e9",
    "İstanbul'da ILIK, ıslak",
    "Straße, STRASSE, ẞ",
    "ΟΔΟΣ Σίσυφος ΣΑΣ.",
    "ﬁne ﬂow ½ ² ①",
    "don't can't 'quoted' \u201cquotes\u201d it\u2019s",
    "non\u00a0breaking, zero\u200bwidth, soft\u00adhyphen, \ufeffmark",
    "numbers 1,234.56 10e-3 2026-11-28 €5",
    "https://example.org/a_b?c=d&e#f user@example.org",
    "日本語のテキスト 中文字符 한국어 텍스트",
    "العربية עברית हिन्दी ไทย",
    "👍🏽 👩\u200d👩\u200d👧 🇫🇷 :-)",
    "[CLS] and [SEP] and [MASK] and [UNK]",
    "<s> and </s> and <mask> and <pad> and <unk>",
    "control\u0001char and \u0000 null and \ufffd",
    "x" * 150,
    "#hash @at a/b c\\d e_f g-h i--j ... !!! ???",
    "word " * 600,
)
SHOWN_IDS = 12


@dataclass(frozen=True)
class ServedTokenizer:
    """A tokenizer as it is served.

    Attributes:
        content: of a `tokenizer.json`.
        token_types: whether the ids of a text's segments are not all 0, so that a model must be given them.
        notes: what a person must be told of it.
    """

    content: bytes
    token_types: bool = False
    notes: tuple[str, ...] = ()


def kept_length(
    part: TeacherPart, longest: int, asked: int | None, source: str
) -> tuple[int, tuple[str, ...]]:
    """Return the tokens kept of each text, and a note where that is fewer than the default.

    Raises:
        RecipeError: more than a model knows, asked for by the recipe.
    """
    if "max_length" in part.model_fields_set:
        if part.max_length > longest:
            raise RecipeError(
                f"teacher.max_length is {part.max_length}, these weights know {longest} positions",
                where=source,
            )
        return part.max_length, ()
    kept = min(part.max_length, longest, asked or part.max_length)
    notes = (
        () if kept == part.max_length else (f"{kept} tokens are kept of each text: its folder knows no more",)
    )
    return kept, notes


def served_tokenizer(
    folder: ModelFolder, *, rows: int, max_length: int, texts: Sequence[str] = ()
) -> ServedTokenizer:
    """Return what reads texts as transformers reads them with this folder.

    A `tokenizer.json` is taken as it is where it gives the tokens of AutoTokenizer, else what AutoTokenizer
    makes of the folder; both are compared on AWKWARD texts, in the encoder that serves. Beside no
    `tokenizer_config.json` it is the whole truth.

    Args:
        folder: of the model.
        rows: of the model's word embeddings; no token may be beyond.
        max_length: tokens kept of each text.
        texts: to compare besides.

    Raises:
        RecipeError: a tokenizer that is code, that cuts texts at their beginning or that transformers cannot
            load, more pieces than `rows`, or
            other tokens than AutoTokenizer's, with the text and both.
    """
    own = folder.read(TOKENIZER) if folder.has(TOKENIZER) else None
    if own is not None:
        require_tokenizer(own, AWKWARD, folder.source)
    if own is not None and not folder.has(TOKENIZER_CONFIG):
        content = _known_only(own, rows, folder.source)
        if (json.loads(content).get("truncation") or {}).get("direction") == "Left":
            raise _cuts_beginnings(f'"truncation": null in {TOKENIZER}', folder.source)
        types = _has_segments(content)
        if not folder.lowered:
            return ServedTokenizer(content, types)
        plain = WordPieceEncoder(content, max_length=max_length)
        served = _lowered(content)
        _require_same(served, lambda text: _ids(plain, text.lower()), rows, max_length, texts, folder.source)
        return ServedTokenizer(served, types)
    reference = _reference(folder)
    backend = getattr(reference, "backend_tokenizer", None)
    if backend is None:
        raise RecipeError(
            f"teacher.weights: its tokenizer {type(reference).__name__} is Python code, not served",
            where=folder.source,
            hint="take a model with a fast tokenizer (tokenizer.json)",
        )

    if getattr(reference, "truncation_side", "right") == "left":
        raise _cuts_beginnings(f'"truncation_side": "right" in {TOKENIZER_CONFIG}', folder.source)

    def told(text: str) -> dict[str, Any]:
        text = text.lower() if folder.lowered else text
        return dict(reference(text, truncation=True, max_length=max_length))

    backend.no_truncation()
    backend.no_padding()
    made = str(backend.to_str()).encode()
    candidates = [content for content in (own, made) if content is not None]
    problem: RecipeError | None = None
    for content in candidates:
        if problem is not None and not _one_kind(own, content):
            break
        try:
            served = _known_only(content, rows, folder.source)
            served = _lowered(served) if folder.lowered else served
            _require_same(
                served, lambda text: list(told(text)[INPUT_IDS]), rows, max_length, texts, folder.source
            )
        except RecipeError as found:
            problem = found
            continue
        segments = told("a text").get("token_type_ids")
        notes: tuple[str, ...] = ()
        if own is not None and content is made:
            notes = (
                f"{TOKENIZER} alone reads other tokens than transformers does with {TOKENIZER_CONFIG} beside "
                "it; the latter's are served",
            )
        return ServedTokenizer(served, segments is not None and any(segments), notes)
    assert problem is not None
    raise problem


def _has_segments(content: bytes) -> bool:
    """Return whether a tokenizer puts a text's tokens, or some of them, in another segment than 0."""
    from tokenizers import Tokenizer

    try:
        return any(Tokenizer.from_buffer(content).encode("a text").type_ids)
    except Exception:  # noqa: BLE001 (what is no tokenizer is told where it is served from)
        return False


def _cuts_beginnings(remedy: str, source: str) -> RecipeError:
    return RecipeError(
        "its tokenizer cuts long texts at their beginning (truncation on the left); what serves cuts them at "
        "their end",
        where=source,
        hint=f"{remedy}, if the model may read the beginnings of texts",
    )


def _one_kind(own: bytes | None, made: bytes) -> bool:
    """Return whether two tokenizers split and number texts alike, so that settings alone part them.

    Releases of transformers have made tokenizers of another kind than the file's of some folders; which of
    the two a model was trained with nobody can tell.
    """
    if own is None:
        return True
    mine, theirs = json.loads(own), json.loads(made)
    same_model = mine["model"].get("type") == theirs["model"].get("type")
    return bool(same_model and mine.get("pre_tokenizer") == theirs.get("pre_tokenizer"))


def _require_same(
    content: bytes,
    wanted: Callable[[str], list[int]],
    rows: int,
    max_length: int,
    texts: Sequence[str],
    source: str,
) -> None:
    """Raise RecipeError unless the encoder that serves gives the ids that are wanted."""
    encoder = WordPieceEncoder(content, max_length=max_length)
    for text in (*AWKWARD, *texts):
        expected, found = wanted(text), _ids(encoder, text)
        if not expected or max(expected) >= rows:
            continue  # the library would fail here: the model has no such row, or nothing to read
        if found != expected:
            raise RecipeError(
                f"the tokenizer that would be served reads {text[:60]!r} as {found[:SHOWN_IDS]}, "
                f"transformers reads it as {expected[:SHOWN_IDS]}",
                where=source,
                hint=f'"tokenizer_class": "PreTrainedTokenizerFast" in {TOKENIZER_CONFIG} lets {TOKENIZER} '
                "alone count, if that is what the model was trained with",
            )


def _ids(encoder: WordPieceEncoder, text: str) -> list[int]:
    return [int(number) for number in encoder.encode([text]).arrays[INPUT_IDS][0]]


def _known_only(content: bytes, rows: int, source: str) -> bytes:
    """Return a tokenizer without added tokens that a model has no embedding for; RecipeError for others."""
    try:
        raw = json.loads(content)
        vocabulary = raw["model"].get("vocab") or {}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RecipeError(f"{TOKENIZER} is not a tokenizer", where=source) from None
    highest = max(vocabulary.values(), default=-1) if isinstance(vocabulary, dict) else len(vocabulary) - 1
    if highest >= rows:
        raise RecipeError(
            f"its tokenizer has pieces up to number {highest}, its embeddings {rows} rows: a text with "
            "such a piece would fail",
            where=source,
            hint="model.resize_token_embeddings(len(tokenizer)), then save both again",
        )
    added = raw.get("added_tokens") or []
    kept = [token for token in added if token["id"] < rows]
    if len(kept) == len(added):
        return content
    return json.dumps({**raw, "added_tokens": kept}, ensure_ascii=False).encode()


def _lowered(content: bytes) -> bytes:
    """Return a tokenizer that first does what `str.lower` does, the last sigma of a Greek word included.

    Lowered texts hold no special token that is written in capitals.
    """
    raw = json.loads(content)
    raw["added_tokens"] = [
        token for token in raw.get("added_tokens") or [] if token["content"] == token["content"].lower()
    ]
    first = [
        {"type": "Replace", "pattern": {"Regex": r"(?<=\p{L})Σ(?!\p{L})"}, "content": "ς"},
        {"type": "Lowercase"},
    ]
    then = [raw["normalizer"]] if raw.get("normalizer") else []
    normalizer = {"type": "Sequence", "normalizers": [*first, *then]}
    return json.dumps({**raw, "normalizer": normalizer}, ensure_ascii=False).encode()


def _reference(folder: ModelFolder) -> Any:
    """Return what transformers makes of a folder's tokenizer. Raises RecipeError."""
    from transformers import AutoTokenizer

    if "AutoTokenizer" in (folder.settings(TOKENIZER_CONFIG).get("auto_map") or {}):
        raise RecipeError(
            "teacher.weights: its tokenizer is code of its own (auto_map), which is not run",
            where=folder.source,
            hint="take a model whose tokenizer transformers knows",
        )
    with _unpacked(folder) as place:
        try:
            return AutoTokenizer.from_pretrained(place, local_files_only=True, trust_remote_code=False)
        except Exception as problem:  # noqa: BLE001 (every tokenizer fails in its own way)
            first = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
            named = folder.settings(TOKENIZER_CONFIG).get("tokenizer_class")
            raise RecipeError(
                f"transformers cannot load its tokenizer{f' ({named})' if named else ''}: {first}",
                where=folder.source,
                hint="pip install sentencepiece protobuf (for Japanese words fugashi unidic-lite), where it "
                "needs them; a folder saved with tokenizer.json needs none",
            ) from None


@contextmanager
def _unpacked(folder: ModelFolder) -> Iterator[str]:
    """Give a folder of the small files that say how texts and weights are read."""
    if folder.root.is_dir():
        yield str(folder.root / folder.inner)
        return
    with tempfile.TemporaryDirectory() as place:
        for path in folder.names:
            name = path.removeprefix(folder.inner)
            if path.startswith(folder.inner) and "/" not in name and name.endswith((".json", ".txt")):
                (Path(place) / name).write_bytes(folder.read(name))
        yield place
