"""The kinds of steps there are: what runs each, and what of this code and machine its result depends on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Protocol, cast

from compress.recipe import Recipe
from compress.store import Finished
from runtime.energy import EnergyMeter

Result = dict[str, Any]


class Update(Protocol):
    """Told how far a step has come."""

    def __call__(self, share: float, words: str = "") -> None:
        """Take the share done (0 to 1) and a few words."""
        ...


@dataclass(frozen=True)
class Step:
    """One piece of work of a plan.

    Attributes:
        name: unique in the plan.
        kind: which of KINDS.
        title: for people.
        config: the part of the recipe that decides the result: JSON values.
        inputs: finished steps it needs, by the role they play.
        outside: hashes of what it reads from outside the plan (weights, data files).
    """

    name: str
    kind: str
    title: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str] = field(default_factory=dict)
    outside: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """What a step may use while it works: everything it writes goes into `folder`."""

    recipe: Recipe
    step: Step
    folder: Path
    inputs: Mapping[str, Finished]
    update: Update
    meter: Callable[[], EnergyMeter]


@dataclass(frozen=True)
class Kind:
    """How steps of one kind are run.

    Attributes:
        run: "module:function", imported when a step of the kind has to be run and not before.
        code: modules whose code decides the result.
        packages: distributions whose version decides it.
        machine: whether it depends on the machine, as measurements do.
        trains: whether its time and energy count as training.
    """

    run: str
    code: tuple[str, ...]
    packages: tuple[str, ...] = ()
    machine: bool = False
    trains: bool = False

    def function(self) -> Callable[[Context], Result]:
        """Import and return what runs it."""
        module, _, name = self.run.partition(":")
        return cast(Callable[[Context], Result], getattr(import_module(module), name))


_TORCH_CODE = ("compress.network", "compress.training", "runtime.api", "runtime.wordpiece")
_DISTIL_CODE = ("compress.distil", "compress.teacher", "compress.weights", *_TORCH_CODE)
_VERIFY_CODE = ("compress.export", "compress.verify", "compress.weights", "runtime.onnx_model", *_TORCH_CODE)
_LINEAR_CODE = ("compress.predict", "runtime.api", "runtime.ngrams", "runtime.linear")
_SERVING_CODE = (*_LINEAR_CODE, "runtime.load", "runtime.onnx_model", "runtime.wordpiece")

KINDS: dict[str, Kind] = {
    "data": Kind(
        "compress.making:prepare_data",
        ("compress.data", "compress.duplicates", "compress.sources"),
    ),
    "teacher": Kind(
        "compress.teacher:train_teacher",
        ("compress.teacher", "compress.weights", *_TORCH_CODE),
        ("torch", "tokenizers"),
        trains=True,
    ),
    "distil": Kind(
        "compress.distil:distil_student",
        _DISTIL_CODE,
        ("torch", "tokenizers"),
        trains=True,
    ),
    "prune": Kind(
        "compress.prune:prune_network",
        ("compress.prune", *_DISTIL_CODE),
        ("torch", "tokenizers"),
        trains=True,
    ),
    "export": Kind(
        "compress.export:export_step",
        _VERIFY_CODE,
        ("torch", "onnx", "onnxscript", "onnxruntime", "tokenizers"),
    ),
    "quantize": Kind(
        "compress.quantize:quantize_step",
        ("compress.quantize", *_VERIFY_CODE),
        ("torch", "onnx", "onnxruntime", "tokenizers"),
    ),
    "linear": Kind(
        "compress.making:train_linear_step",
        ("compress.making", "compress.linear", "router.calibrate", *_LINEAR_CODE, *_TORCH_CODE),
        ("numpy", "scipy", "torch", "tokenizers"),
        trains=True,
    ),
    "measure": Kind(
        "compress.making:measure_step",
        (
            "compress.making",
            "compress.measure",
            "compress.peak_memory",
            "contract.formulas",
            "router.calibrate",
            "runtime.energy",
            *_SERVING_CODE,
        ),
        ("onnxruntime", "tokenizers", "numpy", "scipy"),
        machine=True,
    ),
}


def versions_of(packages: tuple[str, ...]) -> dict[str, str]:
    """Return the installed version of some distributions, "" where one is missing; nothing is imported."""
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ""
    return found
