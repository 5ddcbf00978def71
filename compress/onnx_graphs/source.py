"""Where a given graph lies: its file, its data in other files, its configuration and tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from compress.datasets.sources import package_path
from compress.networks.folders import (
    BESIDE,
    CONFIG,
    INDEX,
    PICKLED,
    SENTENCES,
    TOKENIZER,
    TOKENIZER_CONFIG,
    VOCABULARIES,
    WEIGHTS,
    ModelFolder,
    local_folder,
    names_in,
)
from contract.errors import DataError, RecipeError
from contract.files import sha256_of_file, sha256_of_json

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

ENDING, RUNTIME_ALONE = ".onnx", ".ort"
# In the order in which a folder's graph is looked for.
USUAL = ("model.onnx", "onnx/model.onnx")
# A protocol buffer ends at 2 GiB, and a family keeps a graph in one file.
LARGEST = (2 << 30) - (16 << 20)
OTHER_PARTS = ("decoder_model", "decoder_with_past_model", "encoder_model")


@dataclass(frozen=True)
class GraphSource:
    """A graph as it was given.

    Attributes:
        folder: where configuration and tokenizer lie.
        graph: the file.
    """

    folder: ModelFolder
    graph: Path

    @property
    def source(self) -> str:
        """As the recipe names it."""
        return self.folder.source

    @property
    def has_config(self) -> bool:
        """Whether there is a configuration; without one rows are named by `teacher.labels`."""
        return self.folder.has(CONFIG)

    def skeleton(self) -> ModelProto:
        """Return the graph without the data that it keeps in other files.

        Raises:
            RecipeError: no ONNX graph, a pointer of Git LFS, or 2 GiB and more.
        """
        # Recipes are planned, and help is shown, where onnx may not be installed.
        import onnx

        size = self.graph.stat().st_size
        if size > LARGEST:
            raise self._too_large(size)
        content = self.graph.read_bytes()
        if content.startswith(b"version https://git-lfs"):
            raise RecipeError(
                f"{self.graph.name} is a pointer of Git LFS, not the graph itself",
                where=self.source,
                hint="`git lfs pull` in that folder fetches it",
            )
        try:
            model = onnx.load_model_from_string(content)
        except Exception:  # noqa: BLE001 (protobuf's errors come untyped)
            raise RecipeError(f"{self.graph.name} is not an ONNX graph", where=self.source) from None
        if not model.graph.node:
            raise RecipeError(f"{self.graph.name} is not an ONNX graph: it has no node", where=self.source)
        total = size + sum(_span(tensor)[1] for tensor in _external(model))
        if total > LARGEST:
            raise self._too_large(total)
        return model

    def whole(self) -> ModelProto:
        """Return the graph with all of its data inside. Raises as `skeleton`; data that are not there."""
        from onnx import TensorProto

        model = self.skeleton()
        total = model.ByteSize()
        for tensor in _external(model):
            path, (offset, length) = self._data_file(tensor), _span(tensor)
            length = length or path.stat().st_size - offset
            total += length
            if total > LARGEST:
                raise self._too_large(total)
            with path.open("rb") as file:
                file.seek(offset)
                tensor.raw_data = file.read(length)
            if length <= 0 or len(tensor.raw_data) != length:
                raise RecipeError(
                    f"{path.name} ends before the data of {tensor.name!r}",
                    where=self.source,
                    hint="fetch graph and data again: they belong to one export",
                )
            del tensor.external_data[:]
            tensor.data_location = TensorProto.DEFAULT
        return model

    def data_files(self, model: ModelProto) -> tuple[Path, ...]:
        """Return the other files that a skeleton keeps data in.

        Raises:
            RecipeError: one that is missing, or that lies elsewhere.
        """
        return tuple(sorted({self._data_file(tensor) for tensor in _external(model)}))

    def fingerprint(self) -> str:
        """Return a hash of everything that a teacher is made from. Raises as `skeleton`."""
        deciding = [CONFIG, TOKENIZER, TOKENIZER_CONFIG, SENTENCES, *BESIDE]
        deciding += [name for names in VOCABULARIES for name in names]
        beside = {name: self.folder.root / (self.folder.inner + name) for name in set(deciding)}
        hashes = {name: sha256_of_file(path) for name, path in beside.items() if self.folder.has(name)}
        files = self.data_files(self.skeleton())
        data = {path.relative_to(self.graph.parent).as_posix(): sha256_of_file(path) for path in files}
        return sha256_of_json({**hashes, "data": data, ENDING: sha256_of_file(self.graph)})

    def _data_file(self, tensor: TensorProto) -> Path:
        location = next((item.value for item in tensor.external_data if item.key == "location"), "")
        named = PurePosixPath(location.replace("\\", "/"))
        if not location or named.is_absolute() or ".." in named.parts or ":" in str(named).split("/")[0]:
            raise RecipeError(
                f"{self.graph.name} keeps data in {location!r}, outside its folder: not read",
                where=self.source,
                hint="onnx.save(onnx.load(GRAPH), NEW) with data of your own writes one file",
            )
        path = self.graph.parent / named
        if not _is_file(path):
            raise RecipeError(
                f"{self.graph.name} keeps data in {location}, which is not there",
                where=self.source,
                hint="fetch that file too, and leave it beside the graph under this name",
            )
        if not any(path.resolve().is_relative_to(place) for place in self._places()):
            raise RecipeError(
                f"{location} is a link to {path.resolve()}, outside the folder of the graph: not read",
                where=self.source,
                hint="put the file itself there",
            )
        return path

    def _places(self) -> Iterator[Path]:
        """Yield where data may lie: beside the graph, or among the blobs of the hub's cache."""
        yield self.graph.parent.resolve()
        yield self.folder.root.resolve()
        snapshots = next((one for one in self.graph.absolute().parents if one.name == "snapshots"), None)
        if snapshots is not None:
            yield (snapshots.parent / "blobs").resolve()

    def _too_large(self, size: int) -> RecipeError:
        return RecipeError(
            f"{self.graph.name} has {size / 2**30:.1f} GiB with its data; a family keeps it in one file, "
            "which holds less than 2 GiB",
            where=self.source,
            hint="take a smaller teacher, or distil from answers that it gave elsewhere",
        )


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


def tensors_of(model: ModelProto) -> Iterator[TensorProto]:
    """Yield every constant of a model, those of inner graphs and of functions among them."""
    yield from _of_graph(model.graph)
    for function in model.functions:
        yield from _of_nodes(function.node)


def _of_graph(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (attribute.g, *attribute.graphs):
                yield from _of_graph(inner)


def _is_file(path: Path) -> bool:
    """Whether there is a file; names that no file can have (too long, with a NUL) are none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _external(model: ModelProto) -> list[TensorProto]:
    from onnx import TensorProto

    return [tensor for tensor in tensors_of(model) if tensor.data_location == TensorProto.EXTERNAL]


def _span(tensor: TensorProto) -> tuple[int, int]:
    """Return where a tensor's data begin in their file, and how long they are; 0 for all of the file."""
    told = {item.key: item.value for item in tensor.external_data}
    try:
        offset, length = int(told.get("offset", 0)), int(told.get("length", 0))
    except ValueError:
        raise RecipeError(f"the place of the data of {tensor.name!r} is no number") from None
    if offset < 0 or length < 0:
        raise RecipeError(f"the place of the data of {tensor.name!r} is below 0")
    return offset, length
