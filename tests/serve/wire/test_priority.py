"""The header x-sluice-priority."""

from __future__ import annotations

import pytest

from contract.errors import BadRequest
from serve.wire.common import priority_of


@pytest.mark.parametrize(
    ("header", "level"), [(None, 5), (b"0", 5), (b" 1 ", 1), (b"9", 9), (b"18446744073709551615", 9)]
)
def test_the_header_means_what_the_parameter_does(header: bytes | None, level: int) -> None:
    """None and 0 are the default, 1 the highest, large numbers the lowest."""
    assert priority_of(header) == level


@pytest.mark.parametrize("header", [b"", b"-1", b"1.5", b"high", b"1, 2", b"\xb2", b"9" * 40])
def test_a_header_that_is_no_priority_is_refused(header: bytes) -> None:
    """The text names the header."""
    with pytest.raises(BadRequest, match="x-sluice-priority"):
        priority_of(header)
