"""The record of a model behind HTTP: strict, priced, and without a secret in it."""

from __future__ import annotations

from typing import Any

import pytest

from contract.errors import InputError
from contract.remote import parse_remote

GOOD: dict[str, Any] = {
    "form": "chat", "url": "https://models.example/v1/", "model": "large", "usd_per_1k_tokens_in": 0.5,
}  # fmt: skip


def test_a_record_reads_back_equal() -> None:
    """What is written is what was given, defaults left out."""
    model = parse_remote(GOOD | {"labels": {"sport": "games", "tech": None}, "credentials": {"env": "KEY"}})
    assert parse_remote(model.dump()) == model
    assert model.url == "https://models.example/v1"
    assert model.labels["sport"].description == "games"
    assert "timeout_s" not in model.dump()


def test_prices_add_up() -> None:
    """By the call and by the thousand tokens, in and out."""
    model = parse_remote(GOOD | {"usd_per_call": 0.1, "usd_per_1k_tokens_out": 2.0})
    assert model.usd(2, 1000, 500) == pytest.approx(0.2 + 0.5 + 1.0)
    assert not model.priced_by_call
    assert parse_remote(
        {k: v for k, v in GOOD.items() if "tokens" not in k} | {"usd_per_call": 0}
    ).priced_by_call


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"usd_per_1k_tokens_in": None}, "say what it costs"),
        ({"form": "grpc"}, "form"),
        ({"url": "https://user:pass@models.example/v1"}, "password"),
        ({"url": "https://models.example/v1?key=secret"}, "query"),
        ({"url": "https://models.example/v1/chat/completions"}, "leave out"),
        ({"timeout": 3}, "timeout"),
        ({"credentials": {"env": "sk-abc123"}}, "never the key"),
        ({"credentials": {"env": "A", "file": "/b"}}, "not both"),
        ({"credentials": {"file": "key"}}, "absolute"),
        ({"chat": {"extra": {"model": "other"}}}, "set by Sluicegate"),
        ({"form": "oip"}, "tokens"),
        ({"form": "oip", "usd_per_call": 0, "repeats": 2}, "repeats"),
        ({"oip": {"values": "label", "columns": ["a"]}}, "columns"),
        ({"schema": 2}, "schema"),
    ],
)
def test_a_record_that_breaks_a_rule_is_refused_by_name(change: dict[str, Any], words: str) -> None:
    """The file, the key and the rule are named; what was given as a secret is not repeated."""
    with pytest.raises(InputError, match=words) as found:
        parse_remote(GOOD | change, where="remote.json")
    assert "remote.json" in str(found.value)
    assert "pass@" not in str(found.value)
    assert "=secret" not in str(found.value)
