"""Readers of labelled images: each becomes a row whose text is the base64 of an image file."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from compress.datasets.sources import Record, Row, checked, package_path, records_of
from compress.recipes.data_part import DataPart
from contract.errors import DataError, EnvironmentProblem, RequestError
from runtime.pixels import open_image, png_text

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
SKLEARN = "sklearn:"


def read_images(source: str, part: DataPart) -> list[Row]:
    """Read one source of images, and see that every one of them can be decoded.

    A source is a folder with one folder of image files per class, also inside a package; a table (CSV,
    Parquet, JSONL, `hf:`) whose column `data.text` holds base64, bytes or what the `datasets` library makes
    of images; or `sklearn:digits`.

    Raises:
        DataError: naming file, row and rule.
        EnvironmentProblem: a package or the network is missing.
    """
    return [_checked(place, record, part) for place, record in _records(source, part)]


def _checked(place: str, record: dict[str, Any], part: DataPart) -> Row:
    value = record.get(part.text)
    row = checked(place, record if value is None else {**record, part.text: _as_text(value)}, part)
    try:
        open_image(row.text)
    except RequestError as problem:
        raise DataError(f"`{part.text}` is not an image: {problem}", where=place) from None
    return row


def _records(source: str, part: DataPart) -> Iterator[Record]:
    if source.startswith(SKLEARN):
        return _digits(source, part)
    path = package_path(source) if source.startswith("package:") else Path(source)
    return _folder(path, part) if path.is_dir() else records_of(source, part)


def _folder(path: Path, part: DataPart) -> Iterator[Record]:
    files = sorted(file for file in path.glob("*/*") if file.suffix.lower() in SUFFIXES)
    if not files:
        raise DataError(f"the folder holds no CLASS/NAME image files ({', '.join(SUFFIXES)})", where=path)
    for file in files:
        yield str(file), {part.text: file.read_bytes(), part.label: file.parent.name}


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
        yield f"{source}: row {number}", {part.text: png_text(image), part.label: str(label)}


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
