"""The text of a file: uncompressed, decoded by its byte-order mark, UTF-8 without one."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import re
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from contract.errors import DataError
from tables.disguises import refuse_disguised, unmarked_encoding

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
_HEAD = 4096
_LINE_MARKS = re.compile("(^|[\r\n])\ufeff+")
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

    Marks at the start of later lines, which joined files leave there, and the end that DOS wrote, go.

    Raises:
        DataError: another kind of file, another encoding or a NUL byte, named with the line; broken
            compression.
    """
    raw = _unpacked(path.read_bytes(), path)
    refuse_disguised(raw[:_HEAD], path)
    mark, encoding = next(((m, e) for m, e in _MARKS if raw.startswith(m)), (b"", "utf-8"))
    raw = raw[len(mark) :].removesuffix(b"\x1a")
    utf16 = None if mark else unmarked_encoding(raw[:_HEAD])
    command = f"iconv -f {utf16 or 'windows-1252'} -t utf-8 {path.name} > utf8-{path.name}"
    try:
        content = raw.decode(encoding)
    except UnicodeDecodeError as problem:
        line = raw[: problem.start].count(b"\n") + 1
        raise DataError(
            f"line {line} is not {encoding.upper()} text (byte 0x{raw[problem.start]:02x})",
            where=path,
            hint=f"write it as UTF-8: {command}"
            + ("" if utf16 else ", if it was made on Windows in Western Europe"),
        ) from None
    at = content.find("\0")
    if at >= 0:
        raise DataError(
            f"line {content.count(chr(10), 0, at) + 1} holds a NUL byte",
            where=path,
            hint=f"this is UTF-16 without its byte-order mark: {command}"
            if utf16
            else f"tr -d '\\000' < {path.name} > clean-{path.name}, if nothing else is wrong with it",
        )
    return _LINE_MARKS.sub(r"\1", content) if "\ufeff" in content else content


def _unpacked(raw: bytes, where: Path) -> bytes:
    """Return what is inside compressed bytes, and other bytes as they are.

    The first bytes tell, not the name: servers and browsers unpack `.gz` and leave the name.
    """
    unpack = next((unpack for sign, unpack in _UNPACK if raw.startswith(sign)), None)
    if unpack is None:
        return raw
    try:
        return unpack(raw)
    except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError) as problem:
        raise DataError(f"its compression is broken: {problem}", where=where) from None


def _unpacked_zstd(raw: bytes) -> bytes:
    with pa.CompressedInputStream(pa.BufferReader(raw), "zstd") as stream:
        found: bytes = stream.read()
        return found


_UNPACK: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = (
    (b"\x1f\x8b", gzip.decompress),
    (b"BZh", bz2.decompress),
    (b"\xfd7zXZ\0", lzma.decompress),
    (b"\x28\xb5\x2f\xfd", _unpacked_zstd),
)
