"""The tensors of published weights, under the names that they have today."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

from compress.networks.folders import ModelFolder
from contract.errors import RecipeError

if TYPE_CHECKING:
    from torch import Tensor

# Wrappers of a model leave their names: data parallelism, torch.compile, DeepSpeed.
_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_forward_module|_fsdp_wrapped_module)\.|^(?:module\.)+")
# TensorFlow's names of a normalisation's two.
_OLD_NORM = re.compile(r"(LayerNorm|layer_norm|layernorm)\.(gamma|beta)$", re.IGNORECASE)
_NEW_NORM = {"gamma": "weight", "beta": "bias"}
HALF = 2
_NESTED = ("state_dict", "model_state_dict", "model")


def read_tensors(folder: ModelFolder) -> dict[str, Tensor]:
    """Return every tensor of a model by its present name, floating-point ones as float32.

    Names that wrappers and conversions gave are put right. A pickle is read with torch's reader that
    unpickles tensors and nothing else.

    Raises:
        RecipeError: a file that is damaged, holds code, or holds quantized numbers, NaN or infinity; two
            tensors of one name.
    """
    found: dict[str, Tensor] = {}
    for name in folder.weights:
        read = _pickled if name.endswith(".bin") else _safe
        for old, tensor in read(folder, name).items():
            new = present_name(old)
            if new in found:
                raise RecipeError(f"two tensors are named {new}, the second in {name}", where=folder.source)
            whole = not tensor.is_floating_point()
            if (whole and new.endswith(".weight")) or (not whole and tensor.element_size() < HALF):
                raise RecipeError(
                    f"{new} holds {str(tensor.dtype).removeprefix('torch.')} numbers: quantized weights",
                    where=folder.source,
                    hint="take the folder that it was made from",
                )
            found[new] = tensor if whole else tensor.float()
            if not whole and not found[new].isfinite().all():
                raise RecipeError(
                    f"{new} holds NaN or infinite numbers: the model was saved after its training diverged, "
                    "or in a precision too small for it",
                    where=folder.source,
                    hint="an earlier checkpoint, or weights in bfloat16 or float32",
                )
    return found


def present_name(name: str) -> str:
    """Return the name that transformers gives a tensor today."""
    name = _WRAPPERS.sub("", name)
    return _OLD_NORM.sub(lambda found: f"{found[1]}.{_NEW_NORM[found[2].lower()]}", name)


def _safe(folder: ModelFolder, name: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load, load_file

    try:
        if folder.root.is_dir():
            return dict(load_file(folder.root / (folder.inner + name)))
        return dict(load(folder.read(name)))
    except (SafetensorError, OSError) as problem:
        raise RecipeError(
            f"{name} is damaged or no safetensors file: {problem}",
            where=folder.source,
            hint="fetch it again, and compare its size with the published one",
        ) from None


def _pickled(folder: ModelFolder, name: str) -> dict[str, Tensor]:
    import torch

    try:
        raw = torch.load(io.BytesIO(folder.read(name)), map_location="cpu", weights_only=True)
    except Exception as problem:  # noqa: BLE001 (damage and code show themselves in many kinds)
        said = _code_in(str(problem))
        raise RecipeError(
            f"{name} is a pickle that holds more than tensors{said}, or is damaged",
            where=folder.source,
            hint="where you trust it: AutoModel...from_pretrained(FOLDER).save_pretrained(NEW) "
            "writes safetensors",
        ) from None
    for key in _NESTED:
        if isinstance(raw, dict) and isinstance(raw.get(key), dict):
            raw = raw[key]
    if not isinstance(raw, dict) or not all(isinstance(item, torch.Tensor) for item in raw.values()):
        raise RecipeError(f"{name} is not a mapping of names to tensors", where=folder.source)
    return dict(raw)


def _code_in(problem: str) -> str:
    """Return the name of the code that torch's reader met in a pickle, in brackets; "" where it met none."""
    found = re.search(r"Unsupported global: GLOBAL (\S+)", problem)
    return f" ({found[1]})" if found else ""
