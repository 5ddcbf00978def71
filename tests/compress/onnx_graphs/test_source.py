"""Where a graph lies: in which folders one is found, what is read of its data, and what never is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from compress.onnx_graphs import source
from compress.onnx_graphs.finding import find_graph
from contract.errors import RecipeError
from tests.compress.onnx_graphs.toys import toy_folder, toy_graph

DATA = "model.onnx_data"


def with_data(folder: Path, location: str | None = None) -> Path:
    """Write a graph that keeps its weights in another file, under a location of one's own."""
    graph = toy_folder(folder)
    onnx.save_model(toy_graph(), str(graph), save_as_external_data=True, location=DATA, size_threshold=0)
    if location is not None:
        model = onnx.load(graph, load_external_data=False)
        for tensor in model.graph.initializer:
            next(item for item in tensor.external_data if item.key == "location").value = location
        graph.write_bytes(model.SerializeToString())
    return graph


def of_optimum(folder: Path) -> Path:
    """A folder that holds graph, configuration and tokenizer."""
    return toy_folder(folder).parent


def of_the_hub(folder: Path) -> Path:
    """A repository with its graphs in a folder of their own."""
    graph = toy_folder(folder)
    (folder / "onnx").mkdir()
    (folder / "onnx/model_quantized.onnx").write_bytes(graph.read_bytes())
    graph.rename(folder / "onnx/model.onnx")
    return folder


def one_of_the_hub(folder: Path) -> Path:
    """A graph whose configuration and tokenizer lie above it."""
    return of_the_hub(folder) / "onnx/model_quantized.onnx"


def of_any_name(folder: Path) -> Path:
    """A folder with one graph of another name."""
    return toy_folder(folder).rename(folder / "classifier.onnx").parent


def of_the_cache(folder: Path) -> Path:
    """The hub's cache, where every file is a link to a blob."""
    with_data(folder)
    blobs, revision = folder / "blobs", folder / "snapshots/abc"
    blobs.mkdir()
    revision.mkdir(parents=True)
    for name in ("model.onnx", DATA, "config.json", "tokenizer.json"):
        (folder / name).rename(blobs / name)
        (revision / name).symlink_to(f"../../blobs/{name}")
    return folder


@pytest.mark.parametrize(
    "layout", [of_optimum, of_the_hub, one_of_the_hub, of_any_name, of_the_cache, with_data]
)
def test_a_graph_is_found_where_exporters_leave_it(tmp_path: Path, layout: Callable[[Path], Path]) -> None:
    """Folders of optimum, of the hub and of its cache are followed to a graph with all of its data."""
    found = find_graph(str(layout(tmp_path)))
    assert found is not None
    assert found.has_config
    wanted = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in toy_graph().graph.initializer}
    for tensor in found.whole().graph.initializer:
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), wanted[tensor.name])
    assert len(found.fingerprint()) == 64


def test_a_folder_with_weights_is_none_of_a_graph(tmp_path: Path) -> None:
    """Weights that can be trained come first; the graph beside them is taken by its own path."""
    graph = toy_folder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert find_graph(str(tmp_path)) is None
    assert find_graph(str(graph)) is not None


def test_a_fingerprint_is_that_of_graph_data_and_labels(tmp_path: Path) -> None:
    """Other data beside the same graph, or other labels, make the teacher anew."""
    graph = with_data(tmp_path)
    found = find_graph(str(graph))
    assert found is not None
    seen = {found.fingerprint()}
    data = (tmp_path / DATA).read_bytes()
    (tmp_path / DATA).write_bytes(bytes([data[0] ^ 1]) + data[1:])
    seen.add(found.fingerprint())
    (tmp_path / "config.json").write_text("{}")
    seen.add(found.fingerprint())
    assert len(seen) == 3


def test_data_files_of_one_name_in_two_folders_both_count(tmp_path: Path) -> None:
    """Weights in `a/w.bin` and `b/w.bin` are two files: a change in either makes the teacher anew."""
    graph = with_data(tmp_path)
    model = onnx.load(graph, load_external_data=False)
    for number, tensor in enumerate(model.graph.initializer):
        place = next(item for item in tensor.external_data if item.key == "location")
        place.value = f"{'ab'[number % 2]}/w.bin"
    graph.write_bytes(model.SerializeToString())
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "w.bin").write_bytes((tmp_path / DATA).read_bytes())
    found = find_graph(str(graph))
    assert found is not None
    seen = {found.fingerprint()}
    for name in "ab":
        (tmp_path / name / "w.bin").write_bytes(bytes(10_000))
        seen.add(found.fingerprint())
    assert len(seen) == 3


@pytest.mark.parametrize(
    "location", ["../secret", "/etc/passwd", "a/../../secret", "C:\\secret", "..\\secret"]
)
def test_data_outside_the_folder_are_never_read(tmp_path: Path, location: str) -> None:
    """A path that leaves the folder of its graph is refused, whatever lies there."""
    (tmp_path / "secret").write_bytes(b"x" * 10_000)
    found = find_graph(str(with_data(tmp_path / "model", location)))
    assert found is not None
    for read in (found.whole, found.fingerprint):
        with pytest.raises(RecipeError, match="outside its folder"):
            read()


@pytest.mark.parametrize("location", [".", "./", "a" * 300, "nul\0byte"])
def test_data_in_what_can_be_no_file_are_missing(tmp_path: Path, location: str) -> None:
    """The folder itself, and names that no file can have, are told as a missing file is."""
    found = find_graph(str(with_data(tmp_path / "model", location)))
    assert found is not None
    with pytest.raises(RecipeError, match="which is not there"):
        found.whole()


def test_a_link_that_leaves_the_folder_is_never_followed(tmp_path: Path) -> None:
    """Data that are a link to a file elsewhere are refused by that file's name."""
    (tmp_path / "secret").write_bytes(b"x" * 10_000)
    found = find_graph(str(with_data(tmp_path / "model")))
    assert found is not None
    (tmp_path / "model" / DATA).unlink()
    (tmp_path / "model" / DATA).symlink_to(tmp_path / "secret")
    with pytest.raises(RecipeError, match=r"is a link to .*secret"):
        found.whole()


def test_data_that_are_cut_off_or_missing_are_named(tmp_path: Path) -> None:
    """Half a download is told from a whole one."""
    found = find_graph(str(with_data(tmp_path)))
    assert found is not None
    (tmp_path / DATA).write_bytes((tmp_path / DATA).read_bytes()[:50])
    with pytest.raises(RecipeError, match="ends before the data of 'table'"):
        found.whole()
    (tmp_path / DATA).unlink()
    with pytest.raises(RecipeError, match="which is not there"):
        found.whole()


def test_what_no_single_file_holds_is_refused_by_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Graphs beyond what one file takes are refused, their data counted, before these are read."""
    graph = with_data(tmp_path)
    monkeypatch.setattr(source, "LARGEST", graph.stat().st_size + 100)
    found = find_graph(str(graph))
    assert found is not None
    with pytest.raises(RecipeError, match="with its data"):
        found.skeleton()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not an ONNX graph"),
        (b"<!doctype html><title>Not found</title>", "is not an ONNX graph"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
    ],
)
def test_what_is_no_graph_is_told(tmp_path: Path, content: bytes, words: str) -> None:
    """An empty file, a page of a website and a pointer are no graphs."""
    graph = toy_folder(tmp_path)
    graph.write_bytes(content)
    found = find_graph(str(graph))
    assert found is not None
    with pytest.raises(RecipeError, match=words):
        found.skeleton()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("a.onnx", "b.onnx"), "2 graphs"),
        (("encoder_model.onnx", "decoder_model.onnx"), "writes text"),
        (("model.ort",), "ONNX Runtime alone"),
    ],
)
def test_a_folder_that_leaves_it_open_is_refused(tmp_path: Path, names: tuple[str, ...], words: str) -> None:
    """Several graphs, halves of one and forms that cannot be read are named."""
    graph = toy_folder(tmp_path)
    for name in names:
        (tmp_path / name).write_bytes(graph.read_bytes())
    graph.unlink()
    with pytest.raises(RecipeError, match=words):
        find_graph(str(tmp_path))


def test_a_graph_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    """What reads its texts must lie beside a graph."""
    graph = toy_folder(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(RecipeError, match=r"no tokenizer\.json beside model\.onnx"):
        find_graph(str(graph))
