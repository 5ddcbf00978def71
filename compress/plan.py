"""From a recipe to its steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from compress.datasets.sources import located
from compress.feasibility import require_all_layers
from compress.networks.image_weights import image_fingerprint
from compress.networks.weights import fingerprint
from compress.onnx_graphs.finding import find_graph
from compress.onnx_graphs.source import GraphSource
from compress.recipes.data_part import SOURCES, DataPart
from compress.recipes.learning_parts import Part
from compress.recipes.parts import (
    RANDOM,
    DeepTablePart,
    LatencyPart,
    LinearPart,
    QatPart,
    QuantizePart,
    VariantPart,
    made_by,
)
from compress.recipes.recipe import Recipe
from compress.steps import Step
from contract.errors import RecipeError
from contract.files import sha256_of_file, sha256_of_folder, sha256_of_json
from contract.prices import load_prices
from tables.paths import require_readable

DATA_STEP = "data"
TEXTS_STEP = "data.texts"
# Keys of a teacher that came later, and leave the steps of older recipes as they were.
_LATER = ("answers", "reference", "remote")


def plan_steps(recipe: Recipe) -> tuple[Step, ...]:
    """Return the steps of a recipe in an order that can be run.

    Every variant ends in a step `NAME.measure` that reads the artifact of `NAME.export` or of `NAME`; what
    the recipe has `unlisted` is not measured.

    Raises:
        RecipeError: for two steps of one name, or a layer that a parent will not have.
        RecipeError, DataError, EnvironmentProblem: for weights or data that are not there.
    """
    require_all_layers(recipe)
    teacher, hashes = recipe.teacher, _data_hashes(recipe.data)
    if teacher.remote is not None:
        steps = _asked(recipe, hashes)
    else:
        steps = [
            _data(recipe, hashes),
            *(_heard(recipe, hashes) if teacher.answers is not None else _run(recipe)),
        ]
    for part in recipe.variants:
        steps += steps_of(recipe, part)
    twice = sorted(name for name, count in Counter(step.name for step in steps).items() if count > 1)
    if twice:
        raise RecipeError(f"two steps are named {', '.join(twice)}", hint="rename one of the variants")
    unlisted = {f"{name}.measure" for name in recipe.unlisted}
    return tuple(step for step in steps if step.name not in unlisted)


def steps_of(recipe: Recipe, part: VariantPart) -> list[Step]:
    """Return the steps that one part of a recipe becomes, in an order that can be run."""
    return _EXPANSIONS.get(type(part), _network)(recipe, part)


def _data(recipe: Recipe, hashes: dict[str, str], name: str = DATA_STEP) -> Step:
    config = {"data": recipe.data.model_dump(mode="json", exclude=set(hashes)), "seed": recipe.seed}
    remote = recipe.teacher.remote
    if recipe.data.label is None and remote is not None:
        config["labels"] = sorted(remote.labels)
    return Step(name, "data", f"{name}: {recipe.data.file or recipe.data.train}", config, outside=hashes)


def _asked(recipe: Recipe, hashes: dict[str, str]) -> list[Step]:
    """A teacher behind HTTP is asked for the texts; those that it answers are the data."""
    part, remote, answers = recipe.teacher, recipe.teacher.remote, recipe.teacher.answers
    assert remote is not None
    config: dict[str, Any] = {
        "remote": remote.model_dump(mode="json", exclude={"cache", "max_usd", "errors"}),
        "max_length": part.max_length,
    }
    outside: dict[str, str] = {}
    if answers is not None:
        (given,) = _heard(recipe, hashes)
        config["given"], outside = dict(given.config), dict(given.outside)
    return [
        _data(recipe, hashes, TEXTS_STEP),
        Step(part.name, "ask", f"{part.name}: ask {remote.model}", config, {"data": TEXTS_STEP}, outside),
        Step(
            DATA_STEP,
            "answered-data",
            "data: the texts with an answer",
            {"labelled": recipe.data.label is not None},
            {"texts": TEXTS_STEP, "teacher": part.name},
        ),
        Step(
            f"{part.name}.measure",
            "measure-asked",
            f"{part.name}.measure",
            {"labelled": recipe.data.label is not None},
            {"data": DATA_STEP, "artifact": part.name},
        ),
    ]


def _run(recipe: Recipe) -> list[Step]:
    """A teacher that is here is made, exported and measured."""
    name, images = recipe.teacher.name, recipe.data.input == "image"
    given = None if images else find_graph(recipe.teacher.weights)
    made = _teacher(recipe) if given is None else _taken(recipe, given)
    return [made, _export(name), _measure(recipe, name, f"{name}.export")]


def _teacher(recipe: Recipe) -> Step:
    """Weights are fine-tuned."""
    teacher, images = recipe.teacher, recipe.data.input == "image"
    left_out = {"weights", *_LATER} | (set() if images else {"image"})
    return Step(
        teacher.name,
        "image-teacher" if images else "teacher",
        f"{teacher.name}: fine-tune {Path(teacher.weights).name}",
        {"teacher": teacher.model_dump(mode="json", exclude=left_out), "seed": recipe.seed},
        {"data": DATA_STEP},
        {"weights": image_fingerprint(teacher.weights) if images else fingerprint(teacher.weights)},
    )


def _heard(recipe: Recipe, hashes: dict[str, str]) -> list[Step]:
    """Of a teacher that is elsewhere the answers are read."""
    part, data = recipe.teacher, recipe.data
    answers = part.answers
    assert answers is not None
    if answers.file is None:
        sources = {name: getattr(data, name) for name in SOURCES if getattr(data, name) is not None}
    else:
        sources, hashes = {"file": answers.file}, _hashes({"file": answers.file})
    config = {
        "answers": answers.model_dump(mode="json", exclude={"file"}),
        "sources": {name: source for name, source in sources.items() if name not in hashes},
        "labels": part.labels,
        "max_length": part.max_length,
        "text": data.text,
        "max_words": data.max_words,
    }
    title = f"{part.name}: read its answers"
    return [Step(part.name, "answers", title, config, {"data": DATA_STEP}, hashes)]


def _taken(recipe: Recipe, given: GraphSource) -> Step:
    """A graph is taken as it is."""
    teacher = recipe.teacher
    return Step(
        teacher.name,
        "onnx-teacher",
        f"{teacher.name}: take {given.graph.name} as it is",
        {"teacher": teacher.model_dump(mode="json", exclude={"weights", "image", "training", *_LATER})},
        {"data": DATA_STEP},
        {"weights": given.fingerprint()},
    )


def _inputs(part: VariantPart, **more: str) -> dict[str, str]:
    """Return what every part reads: the data, and the variants that it names."""
    named = {role: name for role in ("parent", "teacher") if (name := getattr(part, role, None)) is not None}
    return {"data": DATA_STEP, **named, **more}


def _making(
    recipe: Recipe, part: VariantPart, inputs: dict[str, str], *, name: str, kind: str, **more: Any
) -> Step:
    # A latency step reads its own speed-up alone: one more in the list makes none of the others again.
    of_others = {"speed_ups"} if isinstance(part, LatencyPart) else set()
    weights = getattr(part, "weights", None)
    outside = {} if weights in {None, RANDOM} else {"weights": fingerprint(str(weights))}
    # Keys that came later leave the steps of older recipes as they were.
    later = {"weights"} if outside or weights is None else set()
    variant = part.model_dump(mode="json", exclude=of_others | later)
    config = {"variant": variant, "seed": recipe.seed, **more}
    return Step(name, kind, f"{name}: {kind}", config, inputs, outside)


def _network(recipe: Recipe, part: VariantPart) -> list[Step]:
    """A network is trained, exported and measured; so is its twin."""
    steps = [
        _making(recipe, part, _inputs(part), name=part.name, kind=part.kind),
        _export(part.name),
        _measure(recipe, part.name, f"{part.name}.export"),
    ]
    for twin in made_by(part)[1:]:
        inputs = {"data": DATA_STEP, "like": part.name}
        steps += [
            _making(recipe, part, inputs, name=twin, kind="twin"),
            _export(twin),
            _measure(recipe, twin, f"{twin}.export"),
        ]
    return steps


def _latency(recipe: Recipe, part: LatencyPart) -> list[Step]:
    """One table of latencies, then every speed-up from the one before."""
    table = f"{part.name}.table"
    # A table decides widths, so it has the target as choices have it.
    config = {"precision": part.precision, "target": recipe.target.for_choices(), "seed": recipe.seed}
    inputs = {"data": DATA_STEP, "parent": part.parent}
    steps = [Step(table, "latency-table", f"{table}: what every width costs here", config, inputs)]
    before = part.parent
    for name, speed_up in zip(part.made, part.speed_ups, strict=True):
        inputs = _inputs(part, parent=before, origin=part.parent, table=table)
        steps += [
            _making(recipe, part, inputs, name=name, kind="latency", speed_up=speed_up),
            _export(name),
            _measure(recipe, name, f"{name}.export"),
        ]
        before = name
    return steps


def _quantized(recipe: Recipe, part: QuantizePart) -> list[Step]:
    """A graph is copied in lower precision."""
    inputs = _inputs(part, graph=f"{part.parent}.export")
    kind = "image-quantize" if recipe.data.input == "image" else "quantize"
    return [
        _making(recipe, part, inputs, name=part.name, kind=kind),
        _measure(recipe, part.name, part.name),
    ]


def _quantization_aware(recipe: Recipe, part: QatPart) -> list[Step]:
    """A network is trained as if quantized, exported, and quantized for real."""
    trained = f"{part.name}.train"
    copy = QuantizePart(kind="quantize", name=part.name, parent=part.parent, method=part.method)
    inputs = {"data": DATA_STEP, "parent": trained, "graph": f"{trained}.export"}
    return [
        _making(recipe, part, _inputs(part), name=trained, kind="qat"),
        _export(trained),
        _making(recipe, copy, inputs, name=part.name, kind="quantize"),
        _measure(recipe, part.name, part.name),
    ]


def _on_ngrams(recipe: Recipe, part: LinearPart | DeepTablePart) -> list[Step]:
    """A model over n-grams is its own artifact."""
    return [
        _making(recipe, part, _inputs(part), name=part.name, kind=part.kind),
        _measure(recipe, part.name, part.name),
    ]


_EXPANSIONS: dict[type[Part], Callable[[Recipe, Any], list[Step]]] = {
    LatencyPart: _latency,
    QuantizePart: _quantized,
    QatPart: _quantization_aware,
    LinearPart: _on_ngrams,
    DeepTablePart: _on_ngrams,
}


def _export(name: str) -> Step:
    return Step(
        f"{name}.export", "export", f"{name}: export and verify", {}, {"data": DATA_STEP, "parent": name}
    )


def _measure(recipe: Recipe, name: str, artifact: str) -> Step:
    config = {"target": recipe.target.model_dump(mode="json"), "seed": recipe.seed}
    return Step(
        f"{name}.measure",
        "measure",
        f"{name}: calibrate and measure",
        config,
        {"data": DATA_STEP, "artifact": artifact},
        # What a measurement holds in USD is at this price, so that a family has one price throughout.
        {"usd_per_core_hour": sha256_of_json(load_prices().usd_per_core_hour)},
    )


def _data_hashes(part: DataPart) -> dict[str, str]:
    return _hashes({name: getattr(part, name) for name in SOURCES})


def _hashes(sources: Mapping[str, str | None]) -> dict[str, str]:
    """Return the hash of every source that is a file or folder; DataError where one is not there."""
    found = {}
    for name, source in sources.items():
        path = None if source is None else located(source)[0]
        if path is None:
            continue
        require_readable(path)
        found[name] = sha256_of_folder(path) if path.is_dir() else sha256_of_file(path)
    return found
