"""Request ids: what may be repeated in a header and a log, and that new ones are never the same."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.types.current import REQUEST_ID
from serve.wire.request_ids import request_id, request_id_in


@pytest.mark.parametrize("given_id", [b"a", b"7f3c-1", b"Root=1-67891233-abc/x:y@z+=._", b"x" * 128])
def test_a_fit_id_is_kept(given_id: bytes) -> None:
    """What a client or another proxy chose stays, and what the task logs knows it."""
    assert request_id(given_id) == given_id
    assert REQUEST_ID.get() == given_id


@given(st.binary(max_size=200))
def test_whatever_is_given_the_id_is_fit(given_id: bytes) -> None:
    """No blank, quote or line end, and no more than 128 characters, reach a header or a log."""
    assert re.fullmatch(rb"[A-Za-z0-9._:/+=@-]{1,128}", request_id(given_id))


def test_new_ids_differ_between_requests_and_processes() -> None:
    """One process counts, and another has another prefix."""
    ours = {request_id(None) for _ in range(1000)}
    line = "from serve.wire.request_ids import request_id; print(request_id(None).decode())"
    others = subprocess.run([sys.executable, "-c", line], check=True, capture_output=True).stdout.strip()
    assert len(ours) == 1000
    assert others.partition(b"-")[0] not in {own.partition(b"-")[0] for own in ours}


def test_of_several_the_last_counts() -> None:
    """As with every other header that the gateway reads."""
    assert request_id_in([(b"x-request-id", b"one"), (b"host", b"x"), (b"x-request-id", b"two")]) == b"two"
