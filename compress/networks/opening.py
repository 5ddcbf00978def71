"""Opening a model as people publish it: finding its folder, and refusing what no teacher can be made from."""

from __future__ import annotations

import zipfile
from pathlib import Path

from compress.datasets.sources import package_path
from compress.networks.folders import (
    CONFIG,
    MODULES,
    TOKENIZER,
    VOCABULARIES,
    ModelFolder,
    modules_of,
)
from compress.networks.refusals import require_config
from contract.errors import DataError, RecipeError

_SAVE = "save model and tokenizer into it with save_pretrained(FOLDER)"


def open_model(source: str) -> ModelFolder:
    """Return what a weights source holds, once it is clear that a classifier can be made of it.

    Sentence-transformers layouts and folders of the hub's cache are followed to the encoder. Configuration
    and names decide; no tensor is read.

    Raises:
        RecipeError: no such folder, a file that is missing, a model that answers something else than one
            label of several.
        EnvironmentProblem: the package is not installed.
    """
    root = _archive(source) if source.startswith("package:") else local_folder(source)
    names = names_in(root, source)
    folder = ModelFolder(source, root, _inner(root, source, names), names)
    if not folder.has(CONFIG):
        _ = folder.weights  # says better what the folder is, if it is something else
        raise RecipeError(f"teacher.weights: the folder has no {CONFIG}", where=source, hint=_SAVE)
    require_config(folder.config, names, source)
    for name in folder.weights:
        _require_content(folder, name)
    if not (folder.has(TOKENIZER) or any(all(map(folder.has, files)) for files in VOCABULARIES)):
        raise RecipeError(
            f"teacher.weights: the folder has no {TOKENIZER}, nor a vocabulary that one can be made from",
            where=source,
            hint="AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER) writes it beside the weights",
        )
    return folder


def _archive(source: str) -> Path:
    name, _, inner = source.removeprefix("package:").partition("/")
    try:
        return package_path(f"package:{name}/{inner or 'model.zip'}")
    except DataError as problem:
        raise RecipeError(problem.rule, where=source, hint=problem.hint) from None


def local_folder(source: str) -> Path:
    """Return the folder of a model, that of the one revision in the hub's cache. Raises RecipeError."""
    folder = Path(source)
    if not folder.exists():
        raise RecipeError(
            "teacher.weights: there is no such folder",
            where=folder,
            hint="weights are local: `hf download ORGANISATION/NAME --local-dir FOLDER` fetches a model",
        )
    if not folder.is_dir():
        raise RecipeError(
            "teacher.weights: this is a file; give the folder that holds config.json", where=folder
        )
    # The hub's cache keeps one folder for each revision.
    revisions = sorted((folder / "snapshots").glob("*")) if (folder / "snapshots").is_dir() else []
    if len(revisions) > 1:
        raise RecipeError(
            f"teacher.weights: the cache holds {len(revisions)} revisions of this model",
            where=folder,
            hint=f"give one of them, such as {revisions[0]}",
        )
    return revisions[0] if revisions else folder


def names_in(root: Path, source: str) -> frozenset[str]:
    """Return the files of a folder, two levels deep, or of an archive. Raises RecipeError."""
    if root.is_dir():
        found = (path for depth in ("*", "*/*") for path in root.glob(depth) if path.is_file())
        return frozenset(path.relative_to(root).as_posix() for path in found)
    try:
        with zipfile.ZipFile(root) as archive:
            return frozenset(name for name in archive.namelist() if not name.endswith("/"))
    except zipfile.BadZipFile as problem:
        raise RecipeError(f"not an archive of a model: {problem}", where=source) from None


def _inner(root: Path, source: str, names: frozenset[str]) -> str:
    """Return where the encoder of a sentence-transformers layout lies, "" in any other layout."""
    if MODULES not in names:
        return ""
    modules = modules_of(ModelFolder(source, root, "", names).json(MODULES))
    if not modules:
        return ""
    kind, place = modules[0]
    if kind != "Transformer":
        raise RecipeError(
            f"teacher.weights: {MODULES} begins with a module {kind}, which is no transformer", where=source
        )
    return f"{place}/" if place else ""


def _require_content(folder: ModelFolder, name: str) -> None:
    """Raise RecipeError where a file of weights is the pointer that git keeps in its place."""
    path = folder.root / (folder.inner + name)
    if not folder.root.is_dir() or path.stat().st_size > 1024:
        return
    if path.read_bytes().startswith(b"version https://git-lfs"):
        raise RecipeError(
            f"{name} is a pointer of Git LFS, not the weights themselves",
            where=folder.source,
            hint="`git lfs pull` in that folder fetches them",
        )
