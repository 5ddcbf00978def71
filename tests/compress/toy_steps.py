"""A step of its own over toy data and a given parent, without the pipeline around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compress.datasets.data import DATA, Dataset, write_dataset
from compress.encoders import write_tokenizer
from compress.networks.models import Network
from compress.recipes.data_part import DataPart
from compress.recipes.recipe import Recipe, TeacherPart
from compress.steps import Context, Step
from compress.store import Finished
from runtime.energy import EnergyMeter
from tests.compress.conftest import WORDS, toy_texts, toy_tokenizer

MAX_LENGTH = 24


def toy_dataset(n: int = 120, *, validation: int = 20) -> Dataset:
    """Return n toy texts, the last of them for validation, the others for training."""
    rows = toy_texts(n)
    return Dataset(
        labels=tuple(sorted(WORDS)),
        texts=tuple(text for text, _ in rows),
        label=tuple(label for _, label in rows),
        split=("train",) * (n - validation) + ("validation",) * validation,
        slices=((),) * n,
    )


def finished_network(folder: Path, network: Network, tokenizer: bytes | None = None) -> Finished:
    """Write a network and its tokenizer (by default the toy one) as a step that is done."""
    folder.mkdir(parents=True)
    file = tokenizer or toy_tokenizer().to_str().encode()
    spec = write_tokenizer(folder, file, max_length=MAX_LENGTH)
    network.save(folder)
    result = {**network.summary(), "encoder": spec.model_dump(mode="json")}
    return Finished(folder.name, folder.name, folder, {}, result, {})


def toy_context(
    folder: Path, part: dict[str, Any], data: Dataset, told: list[str] | None = None, **inputs: Finished
) -> Context:
    """Return the context of the step that makes a part from its inputs; what it tells goes to `told`."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / part["name"]).mkdir(exist_ok=True)
    write_dataset(folder / "data" / DATA, data)
    words = [] if told is None else told
    return Context(
        recipe=Recipe(schema=1, name="toy", data=DataPart(file="none"), teacher=TeacherPart(weights="none")),
        step=Step(part["name"], part["kind"], part["name"], {"variant": part}),
        folder=folder / part["name"],
        inputs={"data": Finished("data", "data", folder / "data", {}, {}, {}), **inputs},
        update=lambda share, said="": words.append(said),
        meter=EnergyMeter,
    )
