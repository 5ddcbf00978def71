"""Reading bodies from ASGI."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import zlib
from collections.abc import MutableMapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import BadRequest, TooLarge
from serve.wire.body import BodyReader, ClientLeft, Receive, TooSlow, UnsupportedMedia, read_body, unpack
from serve.wire.headers import read_headers

pytestmark = pytest.mark.anyio
LIMIT = 100
PACKED = gzip.compress(b"{}", mtime=0)


def receiver(*parts: bytes, left: bool = False) -> Receive:
    """An ASGI receive that gives the body in parts, then says that the client left if it did."""
    messages: list[MutableMapping[str, Any]] = [
        {"type": "http.request", "body": part, "more_body": left or index < len(parts) - 1}
        for index, part in enumerate(parts)
    ]
    messages.append({"type": "http.disconnect"})
    feed = iter(messages)

    async def receive() -> MutableMapping[str, Any]:
        return next(feed)

    return receive


async def test_a_body_in_parts_is_put_together() -> None:
    """Chunks are joined, and the header of the binary extension is handed on."""
    headers = [(b"inference-header-content-length", b"3"), (b"content-type", b"application/json")]
    assert await read_body(read_headers(headers), receiver(b"ab", b"", b"c"), LIMIT) == b"abc"
    assert read_headers(headers).inference_header_content_length == b"3"


@pytest.mark.parametrize("stated", [b"101", b"9" * 60])
async def test_a_body_that_says_it_is_too_large_is_not_read(stated: bytes) -> None:
    """The stated length alone is enough to refuse."""

    async def never() -> MutableMapping[str, Any]:
        pytest.fail("the body was read")

    with pytest.raises(TooLarge):
        await read_body(read_headers([(b"content-length", stated)]), never, LIMIT)


async def test_a_body_that_grows_too_large_is_cut_off() -> None:
    """Chunked bodies, and those whose stated length lies, are counted as they come."""
    for parts in ((b"a" * 101,), (b"a" * 60, b"a" * 60, b"never read")):
        with pytest.raises(TooLarge):
            await read_body(read_headers([(b"content-length", b"1")]), receiver(*parts), LIMIT)


async def test_a_body_that_does_not_come_is_not_waited_for_for_ever() -> None:
    """A body that stays away, or stops half-way, is refused once the time is up."""

    async def never() -> MutableMapping[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    first = iter([{"type": "http.request", "body": b"a", "more_body": True}])

    async def half() -> MutableMapping[str, Any]:
        return next(first, None) or await never()

    bodies = BodyReader(LIMIT, 0.01)
    ends = await asyncio.gather(
        *(bodies.read(read_headers([]), receive) for receive in (never, receiver(b"ab"), half)),
        return_exceptions=True,
    )
    assert [type(end) for end in ends] == [TooSlow, bytes, TooSlow]
    with pytest.raises(TooSlow, match=r"0\.01 s"):
        await bodies.read(read_headers([]), never)


async def test_a_task_that_is_cancelled_while_it_reads_ends_as_cancelled() -> None:
    """Only the reader's own cancelling is turned into a refusal."""
    waiting = asyncio.Event()

    async def never() -> MutableMapping[str, Any]:
        waiting.set()
        await asyncio.Event().wait()
        raise AssertionError

    reading = asyncio.create_task(BodyReader(LIMIT, 60).read(read_headers([]), never))
    await waiting.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


async def test_a_client_that_leaves_early_gets_no_reply() -> None:
    """A connection that closes before the body is whole raises ClientLeft."""
    for receive in (receiver(), receiver(b"a", left=True)):
        with pytest.raises(ClientLeft):
            await read_body(read_headers([]), receive, LIMIT)


@pytest.mark.parametrize(
    "kind",
    [b"", b"application/json; charset=utf-8", b"APPLICATION/JSON", b"text/plain", b"application/x+json"],
)
async def test_types_that_clients_send_with_json_are_taken(kind: bytes) -> None:
    """curl and others do not say application/json; the body decides."""
    assert await read_body(read_headers([(b"content-type", kind)]), receiver(b"{}"), LIMIT) == b"{}"


@pytest.mark.parametrize("kind", [b"multipart/form-data; boundary=x", b"application/xml", b"image/png"])
async def test_other_types_are_refused(kind: bytes) -> None:
    """Forms and documents are another media type: 415."""
    with pytest.raises(UnsupportedMedia):
        await read_body(read_headers([(b"content-type", kind)]), receiver(b"{}"), LIMIT)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        (b"gzip", PACKED),
        (b"GZIP ", PACKED),
        (b"deflate", zlib.compress(b"{}")),
        (b"deflate", zlib.compress(b"{}", wbits=-15)),
        (b"identity", b"{}"),
    ],
)
async def test_packed_bodies_are_unpacked(encoding: bytes, body: bytes) -> None:
    """gzip, and deflate with and without its zlib frame."""
    assert await read_body(read_headers([(b"content-encoding", encoding)]), receiver(body), LIMIT) == b"{}"


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_a_small_body_that_unpacks_to_a_large_one_is_refused(pack: Any) -> None:
    """A thousandfold growth stops at the limit."""
    packed = pack(b"a" * 100_000)
    assert len(packed) < 200
    with pytest.raises(TooLarge):
        unpack(packed, b"gzip", LIMIT)


@pytest.mark.parametrize("body", [b"", b"plain", PACKED[:-3], PACKED + b"x", PACKED[:5]])
@pytest.mark.parametrize("encoding", [b"gzip", b"deflate"])
def test_broken_packed_bodies_are_refused(body: bytes, encoding: bytes) -> None:
    """Cut, lengthened or plain bodies under a Content-Encoding are a bad request."""
    with pytest.raises(BadRequest):
        unpack(body, encoding, LIMIT)


def test_unknown_encodings_are_refused() -> None:
    """What is not unpacked here is another media type: 415."""
    with pytest.raises(UnsupportedMedia):
        unpack(b"", b"br", LIMIT)


@given(st.binary(max_size=300), st.sampled_from([b"gzip", b"deflate"]))
def test_no_packed_bytes_break_the_reader(body: bytes, encoding: bytes) -> None:
    """Any bytes unpack within the limit or are refused."""
    with contextlib.suppress(BadRequest, TooLarge):
        assert len(unpack(body, encoding, LIMIT)) <= LIMIT


async def test_a_first_part_that_is_too_large_is_enough() -> None:
    """The verdict does not wait for a second part that may never come."""
    with pytest.raises(TooLarge):
        await read_body(read_headers([]), receiver(b"a" * 101, left=True), LIMIT)
