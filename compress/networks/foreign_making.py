"""Making a classifier of any architecture that transformers loads, from weights or from what one wrote."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compress.networks.foreign import ForeignNetwork, ForeignShape, Pooled
from compress.networks.heads import Head, match_head
from compress.networks.models import filling, read_shape
from compress.networks.padding import NO_TOKEN, padding_changes, settle_padding
from compress.networks.weights import Bundle
from contract.errors import RecipeError

UNLIMITED = 8192

# Parameters inside a numbered layer, and the causal masks that old checkpoints keep among them.
_OF_A_LAYER = re.compile(r"\.\d+\..*(weight|bias)$")
_MASKS = re.compile(r"attn\.(bias|masked_bias)$|attention\.(bias|masked_bias)$")

_OWN: Pooled = "own"


def foreign_network(
    bundle: Bundle,
    labels: Sequence[str],
    *,
    seed: int,
    dropout: float,
    said: Mapping[str, str] | None = None,
    token_types: bool = False,
) -> tuple[ForeignNetwork, Head]:
    """Return a classifier of whatever architecture a bundle has, and what became of its trained head.

    Args:
        bundle: a model that transformers knows.
        labels: of the data.
        seed: of a new head.
        dropout: share dropped in training.
        said: `teacher.labels`.
        token_types: whether its texts have more than one segment.

    Raises:
        RecipeError: an architecture that transformers does not know or needs code for; weights that do not
            fit it; and as `match_head`.
    """
    config = _config_of(bundle)
    whole, missing = _loaded(bundle, config, classifier=True)
    trained = whole is not None and not missing
    head = match_head(bundle.config, int(config.num_labels) if trained else None, labels, said, bundle.source)
    if head.order is not None and whole is not None:
        model, pooled = whole, _OWN
        settle_padding(model, config)
    else:
        base, missing = _loaded(bundle, config, classifier=False)
        missing = [name for name in missing if not name.startswith("pooler.")]
        if base is None or missing:
            lack = f"the weights lack {missing[0]} (and {len(missing) - 1} more)" if missing else "no encoder"
            raise RecipeError(lack, where=bundle.source)
        model, pooled = base, bundle.folder.pooling[0]
    order = head.order or ()
    shape = ForeignShape(
        config=config.to_dict(),
        vocabulary=int(model.get_input_embeddings().weight.shape[0]),
        longest=_longest(model, config),
        classes=len(labels),
        pooled=pooled,
        order=() if order == tuple(range(len(order))) else order,
        token_types=token_types,
        dropout=dropout,
        pad_id=max(0, int(config.pad_token_id or 0)),
    )
    torch.manual_seed(seed)
    network = ForeignNetwork(shape, model)
    if network.classify is not None:
        torch.nn.init.normal_(network.classify.weight, std=0.02)
        torch.nn.init.zeros_(network.classify.bias)
    network.eval()
    network.shape = replace(shape, alone=padding_changes(network))
    return network, head


def read_foreign(folder: Path) -> ForeignNetwork:
    """Return the network that `ForeignNetwork.save` wrote. Raises FamilyError where weights do not fit."""
    raw = read_shape(folder)
    shape = ForeignShape(**{**raw, "order": tuple(raw["order"])})
    with _silent():
        from transformers import CONFIG_MAPPING

        config = CONFIG_MAPPING[shape.config["model_type"]].from_dict(shape.config)
        model = _class_of(config, classifier=shape.pooled == "own")._from_config(config)
    network = ForeignNetwork(shape, model)
    with filling(folder) as weights:
        network.load_state_dict(weights)
    network.set_dropout(shape.dropout)
    return network


def _config_of(bundle: Bundle) -> Any:
    import transformers

    kind = bundle.config.get("model_type")
    if kind is None:
        raise RecipeError(
            "config.json has no `model_type`, which says how the weights are read",
            where=bundle.source,
            hint="take config.json as the model was published, or name the type in it, such as bert",
        )
    if kind not in transformers.CONFIG_MAPPING:
        own_code = bool(bundle.config.get("auto_map"))
        raise RecipeError(
            f"models of type {kind!r} are not read: "
            + (
                "they bring code of their own (auto_map, trust_remote_code), which is not run"
                if own_code
                else f"transformers {transformers.__version__} does not know them"
            ),
            where=bundle.source,
            hint="export it to ONNX with its own library, and give the .onnx file as teacher.weights",
        )
    kept = {
        key: value for key, value in bundle.config.items() if key not in {"auto_map", "torch_dtype", "dtype"}
    }
    try:
        config = transformers.CONFIG_MAPPING[kind].from_dict(kept)
    except Exception as problem:  # noqa: BLE001 (every class checks its configuration in its own way)
        raise RecipeError(f"config.json: transformers refuses it: {problem}", where=bundle.source) from None
    if getattr(config, "use_cache", False):
        config.use_cache = False
    pad, vocabulary = getattr(config, "pad_token_id", None), getattr(config, "vocab_size", None)
    if isinstance(pad, int) and isinstance(vocabulary, int) and pad >= vocabulary:
        config.pad_token_id = NO_TOKEN  # a token that was added to the tokenizer alone
    return config


def _class_of(config: Any, *, classifier: bool) -> Any:
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, MODEL_MAPPING

    known = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING if classifier else MODEL_MAPPING
    found = known.get(type(config), None)
    return found[0] if isinstance(found, list | tuple) else found


def _loaded(bundle: Bundle, config: Any, *, classifier: bool) -> tuple[Any, list[str]]:
    """Return a model filled with a bundle's tensors, and the names that they lack; None where none exists."""
    made = _class_of(config, classifier=classifier)
    if made is None:
        if classifier:
            raise RecipeError(
                f"transformers has no text classifier of type {config.model_type!r}", where=bundle.source
            )
        return None, []
    try:
        with _silent():
            model, info = made.from_pretrained(
                None, config=config, state_dict=dict(bundle.tensors), output_loading_info=True
            )
    except Exception as problem:  # noqa: BLE001 (any mismatch of shapes; ImportError of an optional part)
        raise RecipeError(
            f"the weights do not fit their config.json: {str(problem).strip().splitlines()[-1]}",
            where=bundle.source,
        ) from None
    _require_all_read(sorted(info["unexpected_keys"]), config, bundle)
    return model.float(), sorted(info["missing_keys"])


def _require_all_read(unread: Sequence[str], config: Any, bundle: Bundle) -> None:
    """Refuse weights of layers that transformers would leave out: the model was trained with them."""
    for name in unread:
        if _OF_A_LAYER.search(name) and not _MASKS.search(name):
            raise RecipeError(
                f"the weights hold {name}, which this transformers does not read in a {config.model_type}: "
                "it would give other answers than it was trained to",
                where=bundle.source,
                hint="export it to ONNX with its own library, and give the .onnx file as teacher.weights",
            )


def _longest(model: nn.Module, config: Any) -> int:
    """Return how many tokens a model has places for."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            skipped = 0 if module.padding_idx is None else module.padding_idx + 1
            return int(module.num_embeddings) - skipped
    for key in ("max_position_embeddings", "n_positions", "max_seq_len"):
        # Some compute it and some say -1 for no limit.
        try:
            limit = getattr(config, key, None)
        except NotImplementedError:
            limit = None
        if isinstance(limit, int) and limit > 0:
            return min(limit, UNLIMITED)
    return UNLIMITED


@contextmanager
def _silent() -> Iterator[None]:
    """Keep transformers' reports of what it loads to itself: what matters of them is checked here."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
