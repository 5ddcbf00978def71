"""The names of models in paths: `NAME`, or `NAME/variant` where the family is named too."""

from __future__ import annotations

from starlette.convertors import Convertor, register_url_convertor

_OTHERS = "infer|ready|config|stats|versions"
"""Parts of paths that follow a model's name, and so are no variant of one."""


class _ModelName(Convertor[str]):
    regex = f"[^/]+(?:/(?!(?:{_OTHERS})(?:/|$))[^/]+)?"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


def know_model_names() -> None:
    """Let routes have `{model:model}` in their paths."""
    register_url_convertor("model", _ModelName())
