"""What a file really holds, where its first bytes say that it is not what its name says."""

from __future__ import annotations

from contract.errors import DataError

_SIGNS = (
    (
        b"version https://git-lfs",
        "a Git LFS pointer in the place of the file",
        "git lfs pull, which fetches the file itself",
    ),
    (b"PAR1", "a Parquet file", "let its name end in .parquet"),
    (b"ARROW1", "an Arrow file", "let its name end in .arrow"),
    (b"FEA1", "a Feather file of version 1", "pandas.read_feather(FILE).to_parquet('data.parquet')"),
    (b"ORC\x0a", "an ORC file", "pandas.read_orc(FILE).to_parquet('data.parquet')"),
    (b"PK\x03\x04", "a zip archive or an Excel sheet", "unpack it, or save the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "an Excel sheet of the old kind", "save the sheet as CSV"),
    (b"SQLite format 3\0", "an SQLite database", "export the table as CSV"),
    (b"%PDF", "a PDF", None),
    (b"\x80\x04\x95", "a pickle", "pandas.read_pickle(FILE).to_parquet('data.parquet')"),
)
_PAGES = (b"<!doctype html", b"<html", b"<?xml")
_NUL_SHARE = 0.2


def refuse_disguised(head: bytes, where: object) -> None:
    """Raise DataError where the first bytes of a file are those of another kind of file."""
    for sign, what, remedy in _SIGNS:
        if head.startswith(sign):
            raise DataError(f"this is {what}", where=where, hint=remedy)
    if head[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGES):
        raise DataError(
            "this is a web page or XML, not a table",
            where=where,
            hint="open it in a browser: most often it says that the download needs a login, or has moved",
        )


def unmarked_encoding(head: bytes) -> str | None:
    """Return the kind of UTF-16 that text without a byte-order mark is in, None where it seems to be none.

    In UTF-16 every second byte of what Europeans write is NUL.
    """
    for encoding, offset in (("utf-16le", 1), ("utf-16be", 0)):
        half = head[offset::2]
        if half and half.count(0) > _NUL_SHARE * len(half) and not head[1 - offset :: 2].count(0):
            return encoding
    return None
