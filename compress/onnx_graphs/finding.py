"""Finding the graph that a recipe names: a file, a folder's or a package's, and the tokenizer beside it."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from compress.datasets.sources import package_path
from compress.networks.folders import (
    CONFIG,
    INDEX,
    PICKLED,
    TOKENIZER,
    VOCABULARIES,
    WEIGHTS,
    ModelFolder,
)
from compress.networks.opening import local_folder, names_in
from compress.onnx_graphs.source import ENDING, GraphSource
from contract.errors import DataError, RecipeError

RUNTIME_ALONE = ".ort"
# In the order in which a folder's graph is looked for.
USUAL = ("model.onnx", "onnx/model.onnx")
OTHER_PARTS = ("decoder_model", "decoder_with_past_model", "encoder_model")


def find_graph(source: str) -> GraphSource | None:
    """Return the graph that a weights source is, or None where it is none: a folder with weights, or other.

    Raises:
        RecipeError: a graph that is not there, several of which none has the usual name, or no tokenizer.
    """
    if source.startswith("package:"):
        return _beside(source, _packaged(source)) if source.endswith(ENDING) else None
    path = Path(source)
    if path.suffix == RUNTIME_ALONE:
        raise _runtime_alone(source)
    if path.suffix == ENDING and not path.is_dir():
        if not path.is_file():
            raise RecipeError("teacher.weights: there is no such file", where=source)
        return _beside(source, path)
    if not path.is_dir():
        return None
    root = local_folder(source)
    names = names_in(root, source)
    found = _graph_in(names, source)
    return None if found is None else _with_tokenizer(ModelFolder(source, root, "", names), root / found)


def _graph_in(names: frozenset[str], source: str) -> str | None:
    """Return the graph of a folder that has no weights."""
    weights = {WEIGHTS, PICKLED, WEIGHTS + INDEX, PICKLED + INDEX}
    if any(PurePosixPath(name).name in weights for name in names):
        return None
    graphs = sorted(name for name in names if name.endswith(ENDING))
    for name in USUAL:
        if name in graphs:
            return name
    if any(PurePosixPath(name).stem in OTHER_PARTS for name in graphs):
        raise RecipeError(
            f"teacher.weights: {graphs[0]} is a part of a model that writes text; a teacher here says which "
            "one of several labels a text has",
            where=source,
            hint="optimum-cli export onnx --task text-classification",
        )
    if len(graphs) > 1:
        raise RecipeError(
            f"teacher.weights: the folder has {len(graphs)} graphs ({', '.join(graphs[:4])}), none of them "
            f"{USUAL[0]}",
            where=source,
            hint="give the path of one of them",
        )
    if not graphs and any(name.endswith(RUNTIME_ALONE) for name in names):
        raise _runtime_alone(source)
    return graphs[0] if graphs else None


def _runtime_alone(source: str) -> RecipeError:
    return RecipeError(
        f"teacher.weights: {RUNTIME_ALONE} is a form of ONNX Runtime alone, which cannot be looked into",
        where=source,
        hint=f"give the {ENDING} file that it was made from",
    )


def _packaged(source: str) -> Path:
    try:
        return package_path(source)
    except DataError as problem:
        raise RecipeError(problem.rule, where=source, hint=problem.hint) from None


def _beside(source: str, graph: Path) -> GraphSource:
    """Return a graph with the folder that its tokenizer lies in: its own, or the one above."""
    own = ModelFolder(source, graph.parent, "", names_in(graph.parent, source))
    above = graph.parent.absolute().parent
    if not _has_tokenizer(own) and any((above / name).is_file() for name in (TOKENIZER, CONFIG)):
        own = ModelFolder(source, above, "", names_in(above, source))
    return _with_tokenizer(own, graph)


def _with_tokenizer(folder: ModelFolder, graph: Path) -> GraphSource:
    if not _has_tokenizer(folder):
        raise RecipeError(
            f"teacher.weights: there is no {TOKENIZER} beside {graph.name}",
            where=folder.source,
            hint="AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER) writes it beside the graph",
        )
    return GraphSource(folder, graph)


def _has_tokenizer(folder: ModelFolder) -> bool:
    return folder.has(TOKENIZER) or any(all(map(folder.has, files)) for files in VOCABULARIES)
