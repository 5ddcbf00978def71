"""Logs: one line per event with ids, and never what a client sent."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from contract.errors import FamilyError, RequestError
from serve.settings.logs import LogSettings
from serve.storage.objects import StoreUnreachable
from serve.telemetry.logs import PACKAGES, Lines, set_up_logs
from serve.telemetry.request_log import RequestLog
from serve.types.current import REQUEST_ID, Observed

SECRET = "the patient says that"


@pytest.fixture(autouse=True)
def outside_of_requests() -> Iterator[None]:
    """No id is left over from a test that worked on a request here."""
    token = REQUEST_ID.set(b"")
    yield
    REQUEST_ID.reset(token)


@pytest.fixture
def as_before() -> Iterator[None]:
    """Loggers are as they were afterwards."""
    loggers = [logging.getLogger(name) for name in PACKAGES]
    kept = [(logger, list(logger.handlers), logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, handlers, level, propagate in kept:
        for handler in logger.handlers:
            if handler not in handlers:
                handler.close()
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


def raised(problem: Exception) -> tuple[type[BaseException], BaseException, Any]:
    """What logging hands on of an exception that was raised here."""
    try:
        raise problem
    except Exception as caught:  # noqa: BLE001 - whatever it is
        return type(caught), caught, caught.__traceback__


def line(record: logging.LogRecord, **how: bool) -> dict[str, Any]:
    """The JSON line of a record."""
    written = Lines(json=True, whole=how.get("whole", False)).format(record)
    assert "\n" not in written
    return dict(json.loads(written))


def record_of(event: str, problem: Exception | None = None, **more: Any) -> logging.LogRecord:
    """A record as a logger makes it."""
    record = logging.LogRecord(
        "serve.x", logging.ERROR, "x.py", 1, event, (), None if problem is None else raised(problem)
    )
    record.__dict__.update(more)
    return record


def test_a_line_says_when_how_grave_what_and_for_which_request() -> None:
    """The request is the one that the running task works on."""
    token = REQUEST_ID.set(b"order-7")
    try:
        value = line(record_of("a stage failed", fields={"variant": "teacher"}))
    finally:
        REQUEST_ID.reset(token)
    assert datetime.fromisoformat(value["at"]).tzinfo is not None
    assert {k: v for k, v in value.items() if k != "at"} == {
        "level": "error", "event": "a stage failed", "logger": "serve.x", "request_id": "order-7",
        "variant": "teacher",
    }  # fmt: skip


@pytest.mark.parametrize("problem", [ValueError(SECRET), RequestError(SECRET), KeyError(SECRET)])
def test_words_of_exceptions_that_may_quote_a_text_are_left_out(problem: Exception) -> None:
    """Kind and place stay, of causes too; the words come back only where they are asked for."""
    outer = RuntimeError(f"while reading {SECRET}")
    outer.__cause__ = raised(problem)[1]
    value = line(record_of("failed", outer))
    assert SECRET not in json.dumps(value)
    assert value["problem"][0] == "builtins.RuntimeError"
    assert any(type(problem).__qualname__ in entry for entry in value["problem"])
    assert any("test_logs.py" in entry for entry in value["problem"])
    assert SECRET in json.dumps(line(record_of("failed", outer), whole=True))


def test_words_of_our_own_errors_stay() -> None:
    """What is wrong with a file is about no request."""
    value = line(record_of("failed", FamilyError("the hash is wrong", where="family.json")))
    assert "family.json: the hash is wrong" in value["problem"][0]


def test_text_lines_say_the_same() -> None:
    """For people: words first, then the fields, then an exception's places."""
    text = Lines(json=False, whole=False).format(record_of("failed", ValueError(SECRET), fields={"a": 1}))
    first, *rest = text.splitlines()
    assert first.endswith("error   serve.x: failed a=1")
    assert rest[0].strip() == "builtins.ValueError"
    assert SECRET not in text


@given(st.text(max_size=40), st.text(max_size=40))
def test_every_line_is_json_whatever_is_in_it(event: str, value: str) -> None:
    """No field can end a line early."""
    record = record_of("x", fields={"value": value})
    record.msg = event.encode("utf-8", "replace").decode()
    assert line(record)["value"] == value


def test_a_file_per_process_with_the_level_that_is_set(tmp_path: Path, as_before: None) -> None:
    """Below the level nothing is written; the folder is made."""
    set_up_logs(LogSettings(format="json", level="WARNING", folder=str(tmp_path / "logs")), "gateway")
    logging.getLogger("serve.x").info("not this")
    logging.getLogger("runtime.y").warning("but this")
    [file] = (tmp_path / "logs").iterdir()
    assert file.name.startswith("gateway-")
    [value] = [json.loads(entry) for entry in file.read_text().splitlines()]
    assert (value["event"], value["level"], value["logger"]) == ("but this", "warning", "runtime.y")


def lines_of(settings: LogSettings, caplog: pytest.LogCaptureFixture, statuses: list[int]) -> list[int]:
    """Statuses of the lines that requests with these statuses left."""
    log = RequestLog(settings)
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="serve.requests"):
        for status in statuses:
            log.write(Observed("cascade", ["small", "large"], "shop"), status, 0.0123, failed=status >= 400)
    return [record.fields["status"] for record in caplog.records]  # type: ignore[attr-defined]


def test_requests_get_the_lines_that_are_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    """Errors alone, all, or a share of the answered ones with all errors."""
    asked = [200, 429] * 500
    assert lines_of(LogSettings(requests="errors"), caplog, asked) == [429] * 500
    assert lines_of(LogSettings(requests="all"), caplog, asked) == asked
    drawn = lines_of(LogSettings(requests="all", requests_share=0.1), caplog, asked)
    assert drawn.count(429) == 500
    assert 10 < drawn.count(200) < 120


def test_the_line_of_a_request_has_the_fields_that_are_promised(caplog: pytest.LogCaptureFixture) -> None:
    """Names, counts and times; no text, no label."""
    lines_of(LogSettings(requests="all"), caplog, [200])
    assert caplog.records[0].fields == {  # type: ignore[attr-defined]
        "key": "shop", "model": "cascade", "variant": "large,small", "texts": 2, "status": 200,
        "latency_ms": 12.3,
    }  # fmt: skip


def test_a_relative_folder_is_refused() -> None:
    """Replicas do not run where the command was given."""
    with pytest.raises(ValidationError, match="absolute path"):
        LogSettings(folder="logs")


def test_the_words_of_a_store_that_is_away_are_shown() -> None:
    """They name a place and a reason, and are about no request."""
    record = logging.LogRecord("serve.x", logging.ERROR, "x.py", 1, "away", (), None)
    record.exc_info = raised(StoreUnreachable("s3://b/keys: no credentials"))
    assert "s3://b/keys: no credentials" in json.dumps(line(record)["problem"])
