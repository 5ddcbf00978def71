"""Files on disk: atomic writes, content hashes, canonical JSON, and paths that stay inside their folder."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from contract.errors import FamilyError, InputError


def canonical_json(value: Any) -> bytes:
    """Return the one byte form of a JSON value: sorted keys, no spaces, UTF-8, no NaN."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def sha256_of_json(value: Any) -> str:
    """Return the hex sha256 of `canonical_json(value)`."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def sha256_of_bytes(data: bytes) -> str:
    """Return the hex sha256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: Path) -> str:
    """Return the hex sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_folder(path: Path) -> str:
    """Return one hash for every file below a folder, names and contents."""
    files = sorted(p for p in path.rglob("*") if p.is_file())
    return sha256_of_json({p.relative_to(path).as_posix(): sha256_of_file(p) for p in files})


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; it takes its place only if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a JSON value atomically, indented for people, ending in a newline."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, *, error: Callable[..., InputError] = InputError) -> Any:
    """Read a JSON file.

    Raises:
        InputError: (of the kind given) when the file is missing or not JSON, naming file and place.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors on Windows begin with a mark
    except FileNotFoundError:
        raise error("there is no such file", where=path) from None
    except (OSError, UnicodeDecodeError) as problem:
        raise error(f"the file cannot be read as UTF-8 text: {problem}", where=path) from None
    try:
        return json.loads(text)
    except json.JSONDecodeError as problem:
        raise error(f"not JSON: {problem.msg}", where=f"{path}:{problem.lineno}:{problem.colno}") from None
    except RecursionError:
        raise error("not JSON that can be read: nested too deeply", where=path) from None


def inside(folder: Path, relative: str) -> Path:
    """Return `folder/relative`, refusing every path that would leave the folder.

    Raises:
        FamilyError: for absolute paths, `..`, backslashes, links that lead outside, and what is no path.
    """
    pure = PurePosixPath(relative)
    if pure.is_absolute() or ".." in pure.parts or "\\" in relative or not pure.parts:
        raise FamilyError(f"the path {relative!r} leaves the folder", where=folder)
    path = folder / pure
    try:
        real = path.resolve()
        path.exists()
    except RuntimeError:
        raise FamilyError(f"{relative!r} is a link that leads back to itself", where=folder) from None
    except (ValueError, OSError):
        raise FamilyError(f"{relative[:80]!r} is no path that a file can have", where=folder) from None
    if not real.is_relative_to(folder.resolve()):
        raise FamilyError(f"the path {relative!r} leads outside the folder", where=folder)
    return path


def check_sha256(path: Path, expected: str) -> None:
    """Raise FamilyError unless the file exists and has the expected hex sha256."""
    if not path.is_file():
        raise FamilyError(
            "the file is missing", where=path, hint="build the family again with `sluice compress`"
        )
    actual = sha256_of_file(path)
    if actual != expected:
        raise FamilyError(
            f"its sha256 is {actual[:12]}…, the manifest says {expected[:12]}…: altered or incomplete",
            where=path,
            hint="build the family again with `sluice compress`, or fetch it again",
        )
