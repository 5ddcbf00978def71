"""Vocabulary pruning: word pieces that no training text uses leave the tokenizer and the embedding table."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray

from compress.datasets.data import DATA, read_dataset
from compress.encoders import TOKENIZER, encoder_of, encoder_spec, write_tokenizer
from compress.learning.teacher import finish_network
from compress.learning.text_cnn import TextCnn
from compress.networks.models import Tokens, load_network
from compress.networks.network import Classifier
from compress.recipes.data_part import EXTRA, UNLABELLED
from compress.recipes.parts import VocabularyPart
from compress.steps import Context, Result
from contract.errors import RecipeError, SluiceError
from runtime.encoders import load_encoder

MODELS = ("WordPiece", "WordLevel")

Reader = TypeVar("Reader", Classifier, TextCnn)


def prune_vocabulary(context: Context) -> Result:
    """Write a copy of the parent with the word pieces that its training texts use, and a tokenizer of these.

    Nothing is trained: a text that uses no other pieces gets the same logits, and any other is spelt in
    smaller pieces.

    Raises:
        RecipeError: when the parent has no word pieces, or of a type that cannot be taken out.
    """
    part = VocabularyPart.model_validate(context.step.config["variant"])
    parent = context.inputs["parent"]
    network, spec = load_network(parent.folder), encoder_spec(parent)
    if not isinstance(network, Classifier | TextCnn):
        raise RecipeError(f"variant {part.name!r}: its parent {part.parent!r} reads no word pieces")
    texts = read_dataset(context.inputs["data"].file(DATA)).of("train", EXTRA, UNLABELLED).texts
    context.update(0.0, "counting word pieces")
    pieces = Pieces.of(parent.file(TOKENIZER).read_bytes())
    before = Tokens.of(encoder_of(parent).encode(texts))
    counts = before.counts(network.shape.vocabulary)
    kept = pieces.kept(counts, part.min_count)
    smaller = keep_pieces(network, kept)
    made = write_tokenizer(context.folder, pieces.only(kept), max_length=spec.max_length or 0)
    context.update(0.5, "comparing the tokenizers")
    after = Tokens.of(load_encoder(context.folder, made).encode(texts))
    require_same(before, after, kept, network.shape.vocabulary)
    return {
        **finish_network(context, smaller, made),
        "pieces_before": network.shape.vocabulary,
        "pieces_after": len(kept),
        "summary": f"{len(kept):,} of {network.shape.vocabulary:,} word pieces",
        "pieces_seen": int((counts > 0).sum()),
        "tokens_per_text_before": float(before.lengths.mean()),
        "tokens_per_text_after": float(after.lengths.mean()),
    }


def require_same(before: Tokens, after: Tokens, kept: NDArray[np.int64], size: int) -> None:
    """Raise SluiceError unless the texts of kept pieces alone are read as before.

    Args:
        before, after: the same texts by the larger and the smaller tokenizer.
        kept: ids that stay, in their new order.
        size: how many ids there were.
    """
    new = np.full(size, -1)
    new[kept] = np.arange(len(kept))
    for row, length in enumerate(before.lengths):
        wanted = new[before.ids[row, :length]]
        if (wanted >= 0).all() and not np.array_equal(wanted, after.ids[row, : after.lengths[row]]):
            raise SluiceError(
                f"the smaller tokenizer reads training text {row} otherwise, though it has all of its pieces:"
                " leave the `vocabulary` variant out for this tokenizer"
            )


def keep_pieces(network: Reader, kept: NDArray[np.int64]) -> Reader:
    """Return a copy whose embedding table has only the rows of some ids, in that order."""
    table = network.words.weight.shape[0]
    if kept[-1] >= table:
        raise SluiceError(f"the tokenizer knows id {kept[-1]}, the embedding table has {table} rows")
    pad = np.flatnonzero(kept == network.shape.pad_id)
    changes = {"vocabulary": len(kept), "pad_id": int(pad[0]) if len(pad) else 0}
    state = network.state_dict()
    state["words.weight"] = state["words.weight"][torch.from_numpy(kept)]
    smaller = type(network)(replace(network.shape, **changes))  # type: ignore[arg-type]
    smaller.load_state_dict(state)
    smaller.eval()
    return smaller


@dataclass(frozen=True)
class Pieces:
    """The pieces of a tokenizer.json, and which of them may never go.

    Attributes:
        raw: the parsed file.
        ids: id by piece, added tokens included.
        always: ids of special and added tokens, and of all single characters, continued or not: with these
            a word whose pieces are gone is still spelt out.
    """

    raw: dict[str, Any]
    ids: dict[str, int]
    always: frozenset[int]

    @classmethod
    def of(cls, tokenizer: bytes) -> Pieces:
        """Return the pieces of a tokenizer's file. Raises RecipeError for a model of another type."""
        raw = json.loads(tokenizer)
        model, added = raw["model"], raw.get("added_tokens") or []
        if model.get("type") not in MODELS:
            raise RecipeError(
                f"a vocabulary of type {model.get('type')!r} cannot be pruned; known are {', '.join(MODELS)}",
                hint="leave the `vocabulary` variant out: other types build their pieces from smaller ones",
            )
        prefix = model.get("continuing_subword_prefix") or ""
        ids = {**model["vocab"], **{token["content"]: token["id"] for token in added}}
        always = {token["id"] for token in added} | {ids[piece] for piece in _named(raw) if piece in ids}
        always |= {place for piece, place in ids.items() if len(piece.removeprefix(prefix)) == 1}
        return cls(raw, ids, frozenset(always))

    def kept(self, counts: NDArray[np.int64], min_count: int) -> NDArray[np.int64]:
        """Return the ids that stay, ascending: those of `always`, and those counted often enough.

        Args:
            counts: [V] occurrences by id.
            min_count: occurrences that keep a piece.
        """
        stay = [
            i for i in self.ids.values() if i in self.always or (i < len(counts) and counts[i] >= min_count)
        ]
        return np.array(sorted(set(stay)), dtype=np.int64)

    def only(self, kept: NDArray[np.int64]) -> bytes:
        """Return a tokenizer's file with only the pieces of some ids; each one's place is its new id."""
        new = {int(old): place for place, old in enumerate(kept)}
        raw = _renumbered(self.raw, new)
        vocab = {piece: new[old] for piece, old in self.raw["model"]["vocab"].items() if old in new}
        raw["model"]["vocab"] = dict(sorted(vocab.items(), key=lambda item: item[1]))
        return json.dumps(raw, ensure_ascii=False).encode()


def _named(raw: dict[str, Any]) -> set[str]:
    """Return the pieces that other parts of the file name: unknown, padding and template tokens."""
    found = {raw["model"].get("unk_token"), (raw.get("padding") or {}).get("pad_token"), "[PAD]"}
    for part in _processors(raw.get("post_processor")):
        found |= {part[role][0] for role in ("sep", "cls") if role in part}
        for token in (part.get("special_tokens") or {}).values():
            found |= set(token["tokens"])
    return found - {None}


def _processors(part: dict[str, Any] | None) -> list[dict[str, Any]]:
    if part is None:
        return []
    if part["type"] == "Sequence":
        return [inner for item in part["processors"] for inner in _processors(item)]
    return [part]


def _renumbered(raw: dict[str, Any], new: dict[int, int]) -> dict[str, Any]:
    """Return a copy of the file, its vocabulary aside, in which every id is the new one."""
    model = {key: value for key, value in raw["model"].items() if key != "vocab"}
    changed = cast(dict[str, Any], json.loads(json.dumps({**raw, "model": model})))
    for token in changed.get("added_tokens") or []:
        token["id"] = new[token["id"]]
    if changed.get("padding"):
        changed["padding"]["pad_id"] = new.get(changed["padding"]["pad_id"], 0)
    for part in _processors(changed.get("post_processor")):
        for role in ("sep", "cls"):
            if role in part:
                part[role][1] = new[part[role][1]]
        for token in (part.get("special_tokens") or {}).values():
            token["ids"] = [new[old] for old in token["ids"]]
    return changed
