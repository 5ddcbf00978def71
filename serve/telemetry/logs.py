"""Logs of the gateway's own processes: text or JSON lines, with ids, and never a text of a request.

What a client sent can reach a log only by the words of an unexpected exception (a library that quotes its
input), so these are left out unless asked for; type and place stay.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import traceback
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from contract.errors import RequestError, SluiceError
from serve.settings.logs import LogSettings
from serve.types.current import REQUEST_ID, SPAN

PACKAGES = ("serve", "runtime", "router", "tables", "contract")
FIELDS = "fields"
"""Attribute of a record with what stands beside its event: logging's `extra={FIELDS: {...}}`."""
_OLDER = 3

Problem = tuple[type[BaseException], BaseException, TracebackType | None]


class Lines(logging.Formatter):
    """One line per record.

    Args:
        json: a JSON object instead of words.
        whole: with the words of exceptions that are not ours.
    """

    def __init__(self, *, json: bool, whole: bool) -> None:
        super().__init__()
        self._json = json
        self._whole = whole

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        value: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
        }
        identity = REQUEST_ID.get()
        if identity:
            value["request_id"] = identity.decode()
        span = SPAN.get()
        if span is not None:
            value["trace_id"] = f"{span.get_span_context().trace_id:032x}"
        fields: Mapping[str, Any] = getattr(record, FIELDS, None) or {}
        value.update(fields)
        if record.exc_info and record.exc_info[0] is not None:
            value["problem"] = list(described(record.exc_info, whole=self._whole))
        if self._json:
            return orjson.dumps(value, default=str).decode()
        return _words(value)


def _words(value: dict[str, Any]) -> str:
    head = f"{value.pop('at')} {value.pop('level'):7} {value.pop('logger')}: {value.pop('event')}"
    problem = value.pop("problem", ())
    more = " ".join(f"{name}={field}" for name, field in value.items())
    return "\n    ".join([f"{head} {more}".rstrip(), *problem])


def described(problem: Problem, *, whole: bool) -> Iterator[str]:
    """Yield lines that say what an exception is and where it was raised, its causes after it.

    Words are shown of errors that are ours and about no request, and of all with `whole`.
    """
    value: BaseException | None = problem[1]
    seen: set[int] = set()
    while value is not None and id(value) not in seen:
        seen.add(id(value))
        ours = isinstance(value, SluiceError) and not isinstance(value, RequestError)
        name = f"{type(value).__module__}.{type(value).__qualname__}"
        if isinstance(value, OSError) and value.strerror:
            name = f"{name}: {value.strerror}"
        yield f"{name}: {value}" if whole or ours else name
        for frame in traceback.extract_tb(value.__traceback__):
            yield f"  {frame.filename}:{frame.lineno} in {frame.name}"
        value = value.__cause__ or (None if value.__suppress_context__ else value.__context__)


def set_up_logs(settings: LogSettings, process: str) -> None:
    """Have this process's own packages log as set; once per process, and again replaces what was set.

    Args:
        settings: form, level, place.
        process: what this process is, for the name of its file.
    """
    handler: logging.Handler
    if settings.folder is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        folder = Path(settings.folder)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{process}-{socket.gethostname()}-{os.getpid()}.log"
        handler = RotatingFileHandler(file, maxBytes=settings.max_mib << 20, backupCount=_OLDER, delay=True)
    handler.setFormatter(Lines(json=settings.format == "json", whole=settings.exceptions == "whole"))
    for package in PACKAGES:
        logger = logging.getLogger(package)
        logger.handlers[:] = [handler]
        logger.setLevel(settings.level)
        logger.propagate = False
