"""The settings of a published folder, checked before anything is made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from contract.errors import RecipeError

COUNTS = (
    "hidden_size",
    "dim",
    "num_attention_heads",
    "n_heads",
    "num_hidden_layers",
    "n_layers",
    "intermediate_size",
    "hidden_dim",
    "vocab_size",
    "max_position_embeddings",
    "num_labels",
)
MOST = 1 << 31


def require_settings(config: Mapping[str, Any], source: str) -> None:
    """Refuse a configuration that holds something else under a name than its readers expect there.

    Null is a name that was left out. Raises RecipeError.
    """

    def refuse(key: str, wanted: str) -> RecipeError:
        return RecipeError(f"config.json: `{key}` must be {wanted}, not {config[key]!r:.60}", where=source)

    for key in COUNTS:
        value = config.get(key)
        if value is not None and not (_whole(value) and 0 < value < MOST):
            raise refuse(key, "a whole number above 0")
    pad = config.get("pad_token_id")
    if pad is not None and not (_whole(pad) and -1 <= pad < MOST):
        raise refuse("pad_token_id", "the number of a token")
    epsilon = config.get("layer_norm_eps")
    if epsilon is not None and (isinstance(epsilon, bool) or not isinstance(epsilon, int | float)):
        raise refuse("layer_norm_eps", "a number")
    if not isinstance(config.get("model_type") or "", str):
        raise refuse("model_type", "a name")
    heads = config.get("architectures")
    if heads is not None and not (isinstance(heads, list) and all(isinstance(name, str) for name in heads)):
        raise refuse("architectures", "a list of names")
    if not isinstance(config.get("id2label") or {}, Mapping | Sequence) or isinstance(
        config.get("id2label"), str
    ):
        raise refuse("id2label", "a mapping of rows to names")
    if not isinstance(config.get("label2id") or {}, Mapping):
        raise refuse("label2id", "a mapping of names to rows")


def require_tokenizer(content: bytes, texts: Sequence[str], source: str) -> None:
    """Raise RecipeError unless the library of fast tokenizers reads a file, and with it some texts."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_buffer(content)
        for text in texts:
            tokenizer.encode(text)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as problem:  # noqa: BLE001 (the library panics, which is no Exception)
        raise RecipeError(
            f"tokenizer.json is not a tokenizer that can be used: {problem}",
            where=source,
            hint="fetch it again, or write it with save_pretrained(FOLDER) of the tokenizer",
        ) from None


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
