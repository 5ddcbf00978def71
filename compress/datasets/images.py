"""Readers of labelled images: each becomes a row whose text is the base64 of an image file."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from compress.datasets.sources import Row, columns_of, located, rows_of, source_records
from compress.recipes.data_part import DataPart
from contract.errors import DataError, EnvironmentProblem, RequestError
from runtime.pixels import open_image, png_text
from tables.disguises import refuse_disguised
from tables.files import Record
from tables.folders import by_class, class_of, files_below, split_of
from tables.problems import refuse

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif")
UNREAD = (".tif", ".tiff", ".heic", ".heif", ".avif", ".svg", ".jp2", ".jxl", ".psd", ".ico", ".raw", ".dng")
SKLEARN = "sklearn:"


def read_images(source: str, part: DataPart) -> list[Row]:
    """Read one source of images, and see that every one of them can be decoded.

    A source is a folder with one folder of image files per class, perhaps within one per split, also inside a
    package; a table (CSV,
    Parquet, JSONL, `hf:`) whose column `data.text` holds base64, bytes or what the `datasets` library makes
    of images; or `sklearn:digits`.

    Raises:
        DataError: naming file, row and rule.
        EnvironmentProblem: a package or the network is missing.
    """
    records = (
        Record(r.place, r.number, {**r.values, part.text: _as_text(r.values[part.text])})
        if part.text in r.values
        else r
        for r in _records(source, part)
    )
    rows = rows_of(records, columns_of(part), source, exact=True)
    problems = []
    for row in rows:
        try:
            open_image(row.text)
        except RequestError as problem:
            problems.append((row.place, f"`{part.text}` is not an image: {problem}"))
    refuse(problems, where=source)
    return rows


def _records(source: str, part: DataPart) -> Iterator[Record]:
    if source.startswith(SKLEARN):
        return _digits(source, part)
    path, _ = located(source)
    if path is not None and path.is_dir() and not (path / "dataset_info.json").exists():
        return _folder(path, part)
    return source_records(source, columns_of(part))


def _folder(path: Path, part: DataPart) -> Iterator[Record]:
    files = files_below(path)
    refuse(
        [(str(path / f), f"{f.suffix} images are not read") for f in files if f.suffix.lower() in UNREAD],
        where=path,
        hint="PIL.Image.open(FILE).save('name.png') converts what Pillow reads",
    )
    found = by_class(path, [file for file in files if file.suffix.lower() in SUFFIXES])
    if not found:
        raise DataError(f"the folder holds no CLASS/NAME image files ({', '.join(SUFFIXES)})", where=path)
    for number, inside in enumerate(found, start=1):
        split = {"split": split_of(inside.parts[0])} if len(inside.parts) == 3 else {}
        content = (path / inside).read_bytes()
        refuse_disguised(content, path / inside)
        yield Record(
            str(path / inside), number, {**split, part.text: content, str(part.label): class_of(inside)}
        )


def _digits(source: str, part: DataPart) -> Iterator[Record]:
    """Yield scikit-learn's 1,797 handwritten digits: 8 by 8 pixels, 17 greys (Alpaydin and Kaynak 1998)."""
    if source != f"{SKLEARN}digits":
        raise DataError(f"there is no image set {source!r}", hint=f"{SKLEARN}digits")
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise EnvironmentProblem(
            f"{source} needs the package scikit-learn", hint="pip install 'sluicegate[compress]'"
        ) from None
    found = load_digits()
    greys = np.rint(found.images * (255 / 16)).astype(np.uint8)
    for number, (image, label) in enumerate(zip(greys, found.target, strict=True), start=1):
        values = {part.text: png_text(image), str(part.label): str(label)}
        yield Record(f"{source}: row {number}", number, values)


def _as_text(value: Any) -> Any:
    """Return the base64 of bytes and of images as `datasets` gives them; anything else as it is."""
    if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
        value = value["bytes"]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if hasattr(value, "save") and hasattr(value, "mode"):
        target = io.BytesIO()
        value.save(target, "PNG")
        return base64.b64encode(target.getvalue()).decode("ascii")
    return value
