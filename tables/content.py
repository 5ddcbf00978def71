"""The text of a file: uncompressed, decoded by its byte-order mark, UTF-8 without one."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import zlib
from pathlib import Path

import pyarrow as pa

from contract.errors import DataError

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
_GZIP = b"\x1f\x8b"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def kind_of(path: Path) -> str:
    """Return the ending that tells what a file holds, in lower case, without that of its compression."""
    name = path.name.lower()
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    return Path(name).suffix


def text_of(path: Path) -> str:
    """Return the text of a file: UTF-8, or UTF-16 and UTF-32 with a byte-order mark.

    Raises:
        DataError: another encoding or a NUL byte, named with the line; broken compression.
    """
    raw = _bytes_of(path)
    mark, encoding = next(((m, e) for m, e in _MARKS if raw.startswith(m)), (b"", "utf-8"))
    raw = raw[len(mark) :]
    try:
        content = raw.decode(encoding)
    except UnicodeDecodeError as problem:
        line = raw[: problem.start].count(b"\n") + 1
        raise DataError(
            f"line {line} is not {encoding.upper()} text (byte 0x{raw[problem.start]:02x})",
            where=path,
            hint=f"write it as UTF-8: iconv -f windows-1252 -t utf-8 {path.name} > utf8-{path.name}",
        ) from None
    at = content.find("\0")
    if at >= 0:
        raise DataError(
            f"line {content.count(chr(10), 0, at) + 1} holds a NUL byte",
            where=path,
            hint="write it as UTF-8; UTF-16 needs its byte-order mark",
        )
    return content


def _bytes_of(path: Path) -> bytes:
    raw = path.read_bytes()
    try:
        match path.suffix.lower():
            case ".bz2":
                return bz2.decompress(raw)
            case ".xz":
                return lzma.decompress(raw)
            case ".zst":
                with pa.CompressedInputStream(pa.BufferReader(raw), "zstd") as stream:
                    found: bytes = stream.read()
                    return found
            case _:
                return gzip.decompress(raw) if raw.startswith(_GZIP) or path.suffix.lower() == ".gz" else raw
    except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError) as problem:
        raise DataError(f"its compression is broken: {problem}", where=path) from None
