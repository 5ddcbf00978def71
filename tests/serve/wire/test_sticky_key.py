"""The key of the client's choice that keeps it in one arm of a canary."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from contract.errors import BadRequest
from serve.settings.limits import RequestLimits
from serve.wire import oip, v1
from serve.wire.common import check_sticky_key
from serve.wire.headers import read_headers

TENSOR = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]}


def v1_key(**fields: Any) -> bytes:
    """The key of a request in the simple form."""
    return v1.parse(orjson.dumps({"inputs": "a", **fields}), RequestLimits(), 0.0).request.sticky_key


def oip_key(**parameters: Any) -> bytes:
    """The key of a request of the Open Inference Protocol."""
    body = orjson.dumps({"inputs": [TENSOR], "parameters": parameters})
    return oip.parse(body, None, "cascade", RequestLimits(), 0.0).request.sticky_key


def test_both_forms_and_the_header_give_the_same_key() -> None:
    """A key beyond ASCII too: in a header it is UTF-8 as it came."""
    header = read_headers([(b"x-sluice-sticky-key", "Zoë".encode())]).x_sluice_sticky_key
    assert v1_key(sticky_key="Zoë") == oip_key(sticky_key="Zoë") == check_sticky_key(header, "h")


def test_without_a_key_there_is_none() -> None:
    """Null and nothing are the same."""
    assert v1_key() == v1_key(sticky_key=None) == oip_key() == b""
    assert read_headers([]).x_sluice_sticky_key is None


@pytest.mark.parametrize("value", ["", "k" * 257, 7, ["k"], True])
def test_what_is_no_key_is_refused_by_name(value: Any) -> None:
    """Empty, too long, or no text."""
    with pytest.raises(BadRequest, match="sticky_key"):
        v1_key(sticky_key=value)
    with pytest.raises(BadRequest, match=r"parameters\.sticky_key"):
        oip_key(sticky_key=value)
