"""Small real models and data that the tests of compress share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from compress.networks.network import Architecture, Classifier, LayerShape
from compress.recipes.recipe import Recipe, parse_recipe

torch.set_num_threads(1)

WORDS = {
    "sport": ("goal", "match", "coach", "team", "league"),
    "tech": ("chip", "software", "phone", "network", "laptop"),
    "money": ("bank", "profit", "shares", "market", "tax"),
}
FILLERS = tuple(
    [
        "the",
        "a",
        "of",
        "in",
        "on",
        "with",
        "for",
        "and",
        "said",
        "new",
        "old",
        "big",
        "small",
        "day",
        "week",
        "year",
    ]
)


def toy_texts(n: int, *, seed: int = 0) -> list[tuple[str, str]]:
    """Return n different texts whose class is decided by the words in them."""
    rng = np.random.default_rng(seed)
    labels = list(WORDS)
    found: dict[str, str] = {}
    while len(found) < n:
        label = labels[len(found) % len(labels)]
        words = [*rng.choice(FILLERS, rng.integers(4, 14)), *rng.choice(WORDS[label], 2)]
        rng.shuffle(words)
        found[" ".join(words)] = label
    return list(found.items())


def write_csv(path: Path, rows: list[tuple[str, str]]) -> Path:
    """Write text,label rows."""
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows), encoding="utf-8")
    return path


def toy_tokenizer() -> Tokenizer:
    """Return a word-level tokenizer with the special tokens of BERT."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *FILLERS, *(w for group in WORDS.values() for w in group)]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def toy_shape(**changes: Any) -> Architecture:
    """Return a small architecture of three layers."""
    settings: dict[str, Any] = {
        "vocabulary": toy_tokenizer().get_vocab_size(),
        "hidden": 32,
        "head_size": 8,
        "positions": 64,
        "layers": (LayerShape(4, 48),) * 3,
        "classes": 3,
        "dropout": 0.0,
    }
    return Architecture(**{**settings, **changes})


@pytest.fixture
def network() -> Classifier:
    """A small network with random weights, in evaluation mode."""
    return random_network()


def random_network() -> Classifier:
    """Return a small network, the same at every call."""
    torch.manual_seed(0)
    made = Classifier(toy_shape())
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    made.eval()
    return made


@pytest.fixture(scope="session")
def weights_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder of a small BERT encoder with random weights."""
    folder = tmp_path_factory.mktemp("weights")
    tokenizer = toy_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    hidden, neurons, depth, places = 32, 48, 3, 64
    config = {
        "model_type": "bert", "hidden_size": hidden, "num_attention_heads": 4, "intermediate_size": neurons,
        "num_hidden_layers": depth, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "pad_token_id": 0,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(0)

    def linear(name: str, out: int, into: int) -> dict[str, torch.Tensor]:
        return {
            f"{name}.weight": torch.randn(out, into, generator=generator) * 0.15,
            f"{name}.bias": torch.zeros(out),
        }

    def norm(name: str) -> dict[str, torch.Tensor]:
        return {f"{name}.weight": torch.ones(hidden), f"{name}.bias": torch.zeros(hidden)}

    size = tokenizer.get_vocab_size()
    state = {
        "embeddings.word_embeddings.weight": torch.randn(size, hidden, generator=generator),
        "embeddings.position_embeddings.weight": torch.randn(places, hidden, generator=generator) * 0.1,
        "embeddings.token_type_embeddings.weight": torch.zeros(2, hidden),
        **norm("embeddings.LayerNorm"),
    }
    for index in range(depth):
        place = f"encoder.layer.{index}."
        for name in ("query", "key", "value"):
            state |= linear(f"{place}attention.self.{name}", hidden, hidden)
        state |= linear(f"{place}attention.output.dense", hidden, hidden)
        state |= norm(f"{place}attention.output.LayerNorm")
        state |= linear(f"{place}intermediate.dense", neurons, hidden)
        state |= linear(f"{place}output.dense", hidden, neurons)
        state |= norm(f"{place}output.LayerNorm")
    save_file(state, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="session")
def toy_recipe(tmp_path_factory: pytest.TempPathFactory, weights_folder: Path) -> Recipe:
    """A recipe with every kind of variant on 400 toy texts, made in seconds."""
    folder = tmp_path_factory.mktemp("recipe")
    write_csv(folder / "data.csv", toy_texts(400))
    return parse_recipe(
        {
            "name": "toy",
            "data": {
                "file": "data.csv",
                "slices": {"teams": {"matches": "team"}},
                "max_words": 12,
                "stretches": 1,
            },
            "teacher": {
                "weights": str(weights_folder),
                "max_length": 24,
                "training": {"epochs": 4, "learning_rate": 0.003, "precision": "fp32"},
            },
            "variants": [
                {
                    "name": "student", "kind": "distil", "parent": "teacher", "layers": [0],
                    "training": {"epochs": 2, "learning_rate": 0.003, "precision": "fp32"},
                },
                {
                    "name": "pruned", "kind": "prune", "parent": "teacher", "heads": 0.5, "neurons": 0.5,
                    "training": {"epochs": 1, "learning_rate": 0.001, "precision": "fp32"},
                },
                {"name": "student-int8", "kind": "quantize", "parent": "student"},
                {"name": "linear", "kind": "linear", "parent": "teacher", "bits": 12},
            ],
            "limits": {"accuracy_drop": 0.5},
            "target": {"calls": 20, "seconds": 0.2},
        },
        folder=folder,
    )  # fmt: skip
