"""The kinds of steps there are: what runs each, and what of this code and machine its result depends on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Protocol, cast

from compress.code_version import code_of
from compress.network_kinds import NETWORKS
from compress.recipes.recipe import Recipe
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
    """What a step may use while it works: everything it writes goes into `folder`.

    `update` says how far it is, `tell` what a person should be able to read afterwards.
    """

    recipe: Recipe
    step: Step
    folder: Path
    inputs: Mapping[str, Finished]
    update: Update
    meter: Callable[[], EnergyMeter]
    tell: Callable[[str], None] = field(default=lambda _: None)


@dataclass(frozen=True)
class Kind:
    """How steps of one kind are run.

    Attributes:
        run: "module:function", imported when a step of the kind has to be run and not before.
        also: modules whose code decides the result, beyond those that the function's module imports.
        packages: distributions whose version decides it.
        machine: whether it depends on the machine, as measurements do.
    """

    run: str
    also: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    machine: bool = False

    @property
    def code(self) -> tuple[str, ...]:
        """Modules whose code decides the result."""
        return code_of(self.run.partition(":")[0], *self.also)

    @property
    def computes(self) -> bool:
        """Whether it computes with torch, whose precision may follow from the instruction set."""
        return "torch" in self.packages

    def function(self) -> Callable[[Context], Result]:
        """Import and return what runs it."""
        module, _, name = self.run.partition(":")
        return cast(Callable[[Context], Result], getattr(import_module(module), name))


# Networks are read by name, so no import says that a step which reads one depends on how.
_NETWORKS = tuple(sorted({place.partition(":")[0] for place in NETWORKS.values()}))
_IMAGES = ("torch", "numpy", "pillow")
_TRAINED = ("torch", "numpy", "tokenizers")
_EXPORTED = ("torch", "numpy", "onnx", "onnxscript", "onnxruntime", "tokenizers")
_READ = ("numpy", "pyarrow", "pillow", "scikit-learn", "datasets")

KINDS: dict[str, Kind] = {
    "data": Kind(
        "compress.datasets.preparation:prepare_data",
        ("compress.datasets.data", "compress.datasets.sources"),
        _READ,
    ),
    "teacher": Kind("compress.learning.teacher:train_teacher", packages=_TRAINED),
    "onnx-teacher": Kind("compress.onnx_graphs.teacher:take_graph", packages=_EXPORTED),
    "answers": Kind(
        "compress.learning.answers_step:record_answers",
        ("compress.datasets.sources", "tables.labelled", "tables.sources", "tables.files"),
        _READ,
    ),
    "ask": Kind(
        "compress.asking.teacher_step:ask_teacher",
        ("compress.datasets.sources", "tables.labelled", "tables.sources", "tables.files"),
        ("numpy", "pyarrow"),
    ),
    "answered-data": Kind("compress.asking.rows_step:keep_answered", packages=("numpy", "pyarrow")),
    "measure-asked": Kind("compress.asking.measure_step:measure_asked", packages=("numpy", "scipy")),
    "image-teacher": Kind("compress.learning.image_teacher:train_image_teacher", packages=_IMAGES),
    "distil": Kind("compress.learning.distil:distil_student", _NETWORKS, _TRAINED),
    "cnn": Kind("compress.learning.text_cnn:distil_cnn", _NETWORKS, _TRAINED),
    "twin": Kind("compress.learning.twin:train_twin", _NETWORKS, _TRAINED),
    "prune": Kind("compress.pruning.prune:prune_network", _NETWORKS, _TRAINED),
    "magnitude": Kind("compress.pruning.magnitude:prune_weights", _NETWORKS, _TRAINED),
    "channels": Kind("compress.pruning.channels:prune_channels", _NETWORKS, (*_IMAGES, "torch-pruning")),
    "vocabulary": Kind("compress.pruning.vocabulary:prune_vocabulary", _NETWORKS, _TRAINED),
    "latency-table": Kind(
        "compress.pruning.table_step:table_step", _NETWORKS, (*_EXPORTED, "scipy"), machine=True
    ),
    "latency": Kind("compress.pruning.latency:prune_to_latency", _NETWORKS, _TRAINED),
    "qat": Kind("compress.graphs.qat:train_quantized", _NETWORKS, _TRAINED),
    "export": Kind("compress.graphs.export:export_step", _NETWORKS, _EXPORTED),
    "quantize": Kind("compress.graphs.quantize:quantize_step", _NETWORKS, _EXPORTED),
    "image-quantize": Kind(
        "compress.graphs.image_quantize:quantize_image_step", also=_NETWORKS, packages=(*_EXPORTED, "pillow")
    ),
    "linear": Kind(
        "compress.learning.linear_step:train_linear_step",
        _NETWORKS,
        ("numpy", "scipy", "torch", "tokenizers"),
    ),
    "deep_table": Kind(
        "compress.learning.deep_table_step:train_deep_table_step",
        _NETWORKS,
        ("numpy", "scipy", "torch", "tokenizers"),
    ),
    "candidate": Kind(
        "compress.exploration.candidate:evaluate_candidate",
        (
            "compress.learning.distil",
            "compress.pruning.prune",
            "compress.graphs.export",
            "compress.graphs.quantize",
            *_NETWORKS,
        ),
        _EXPORTED,
        machine=True,
    ),
    "comparison": Kind(
        "compress.exploration.comparison:comparison_step",
        packages=("onnxruntime", "tokenizers", "numpy"),
        machine=True,
    ),
    "measure": Kind(
        "compress.measurement.measure_step:measure_step",
        packages=("onnxruntime", "tokenizers", "numpy", "scipy"),
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
