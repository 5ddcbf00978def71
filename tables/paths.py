"""What is at a path: a file or folder that can be read, or the reason and the next step."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

from contract.errors import DataError
from contract.urls import without_password

CHANGED = "it changed while it was read"
CHANGED_HINT = "give a copy that nobody writes to meanwhile"
_ELSEWHERE = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+:/(?!/)")


def state_of(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Return name, size and time of change of a file, or of every file below a folder."""
    try:
        files = [path, *sorted(path.rglob("*"))] if path.is_dir() else [path]
        known = [(str(file), file.stat()) for file in files if file.is_file()]
    except (OSError, ValueError):
        return ()
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in known)


def require_readable(path: Path) -> None:
    """Raise DataError unless there is a folder, or a file that can be read more than once."""
    try:
        known = path.stat()
    except (OSError, ValueError):
        raise DataError("there is no such file", where=shown_path(path), hint=_remedy(path)) from None
    if not (path.is_dir() or path.is_file()):
        raise DataError(
            "this is a pipe or a device, which gives its rows once",
            where=path,
            hint="write the rows to a file first",
        )
    if not os.access(path, os.R_OK):
        raise DataError(
            f"this user may not read it (its mode is {known.st_mode & 0o777:o})", where=path, hint="chmod a+r"
        )


def shown_path(path: Path) -> str:
    """Return a path for messages, an address that was given in its place without what gives access."""
    written = str(path)
    # A path keeps one of the two slashes of an address.
    return (
        without_password(_ELSEWHERE.sub(r"\g<0>/", written), "…@") if _ELSEWHERE.match(written) else written
    )


def _remedy(path: Path) -> str | None:
    written = str(path)
    if path.is_symlink():
        return "this is a link that leads nowhere: fetch the file again"
    if written == "-":
        return "rows are read more than once: write them to a file first"
    if _ELSEWHERE.match(written):
        return "files of this machine are read: download it first"
    if written.startswith("~"):
        return f"the shell did not replace ~: {path.expanduser()}"
    if "\\" in written:
        return f"folders are parted by /: {written.replace(chr(92), '/')}"
    if re.search(r"[*?]|\[.+\]", written):
        return "patterns are not read: give the folder, whose files are read as one table"
    try:
        beside = [other.name for other in path.parent.iterdir()]
    except OSError:
        return f"there is no folder {path.parent} either" if not path.parent.exists() else None
    alike = difflib.get_close_matches(path.name, beside, n=3, cutoff=0.7)
    return f"in that folder are: {', '.join(sorted(alike))}" if alike else None
