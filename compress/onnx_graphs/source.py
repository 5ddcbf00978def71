"""Where a given graph lies: its file, its data in other files, its configuration and tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from compress.networks.folders import (
    BESIDE,
    CONFIG,
    SENTENCES,
    TOKENIZER,
    TOKENIZER_CONFIG,
    VOCABULARIES,
    ModelFolder,
)
from contract.errors import RecipeError
from contract.files import sha256_of_file, sha256_of_json

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

ENDING = ".onnx"
# A protocol buffer ends at 2 GiB, and a family keeps a graph in one file.
LARGEST = (2 << 30) - (16 << 20)


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
