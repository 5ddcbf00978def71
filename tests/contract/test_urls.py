"""How a gateway's address is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import InputError
from contract.urls import BaseUrl, parse_base_url, without_password


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000//", "http://127.0.0.1:8000"),
        (" http://127.0.0.1:8000 \n", "http://127.0.0.1:8000"),
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("localhost:8000/", "http://localhost:8000"),
        ("localhost", "http://localhost"),
        ("//localhost:8000", "http://localhost:8000"),
        ("HTTP://LocalHost:80/", "http://localhost"),
        ("https://gate.example:443", "https://gate.example"),
        ("https://gate.example:8443/a/b/", "https://gate.example:8443/a/b"),
        ("http://gate.example//a//b", "http://gate.example/a/b"),
        ("http://[::1]:8000/", "http://[::1]:8000"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("http://[FD00::1]/x", "http://[fd00::1]/x"),
        ("http://[fe80::1%25eth0]:8000", "http://[fe80::1%25eth0]:8000"),
        ("[fe80::1%eth0]:8000", "http://[fe80::1%25eth0]:8000"),
        ("http://my_gate-1.svc.cluster.local.:8000", "http://my_gate-1.svc.cluster.local.:8000"),
        ("http://bücher.example/", "http://xn--bcher-kva.example"),
        ("http://gate.example/v1", "http://gate.example/v1"),
    ],
)
def test_what_users_write_is_read(given: str, read: str) -> None:
    """Slashes, schemes, prefixes, brackets and capitals; and what was read is read as itself."""
    found = parse_base_url(given)
    assert str(found) == read
    assert parse_base_url(read) == found


def test_the_parts() -> None:
    """Host without brackets, the scheme's own port, Host with what a server expects there."""
    assert parse_base_url("https://[::1]/m/") == BaseUrl("https", "::1", 443, "/m")
    assert parse_base_url("https://[::1]/").netloc == "[::1]"
    assert parse_base_url("http://a:8000").netloc == "a:8000"
    assert parse_base_url("http://[fe80::1%25eth0]:8000").host == "fe80::1%eth0"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("", "no host"),
        ("http://", "no host"),
        ("http:///v1", "no host"),
        ("http://a b:8000", "no host"),
        ("http://-a:80", "no host"),
        ("ftp://a", "ftp://"),
        ("grpc://a:8001", "grpc://"),
        ("http:/a:8000", "slashes"),
        ("http:a:8000", "slashes"),
        ("http://a:99999", "not a URL"),
        ("http://a:b", "not a URL"),
        ("http://a:0", "port 0"),
        ("http://::1:8000", "brackets"),
        ("::1", "brackets"),
        ("http://[::1:8000", "not a URL"),
        ("http://user:pw@a:8000", "--api-key"),
        ("http://key@a", "--api-key"),
        ("http://user:pw@a:port", "--api-key"),
        ("http://user:p/w@a:8000", "--api-key"),
        ("user:p#w@a", "--api-key"),
        ("http:user:pw@a", "slashes"),
        ("http://a:8000?model=x", "query"),
        ("http://a:8000/#x", "fragment"),
        ("http://a:8000/?", "query"),
        ("http://a:8000/v1/classify", "before /v1/classify"),
        ("http://a:8000/v2/models/cascade/infer/", "before /infer"),
        ("http://a:8000/metrics", "before /metrics"),
        ("http://a:8000/a b", "%XX"),
        ("http://a:8000/é", "%XX"),
    ],
)
def test_what_is_no_address_is_refused_with_the_next_step(given: str, words: str) -> None:
    """The refusal names the option, never the password."""
    with pytest.raises(InputError, match=words) as caught:
        parse_base_url(given, where="--admin-url")
    assert str(caught.value).startswith("--admin-url: ")
    assert "pw" not in str(caught.value)


@given(st.text(max_size=30) | st.from_regex(r"(https?://)?[a-z0-9.:\[\]@/?#-]{0,25}", fullmatch=True))
def test_anything_is_read_or_refused(text: str) -> None:
    """No other error; what is read makes a URL that reads the same."""
    try:
        found = parse_base_url(text)
    except InputError:
        return
    assert parse_base_url(str(found)) == found
    assert not str(found).endswith("/")


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://ann:pa@ss@host:5000/x", "https://host:5000/x"),
        ("postgresql://ann:secret@db/mlflow", "postgresql://db/mlflow"),
        ("http://ann:se/c#ret@host:5000/x", "http://host:5000/x"),
        ("http://host:8000/a@b", "http://host:8000/a@b"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
        ("https://host/x.csv?sig=abc&se=2", "https://host/x.csv?…"),
        ("https://ann:p?w@host:5000/x?sig=abc", "https://host:5000/x?…"),
        ("what?now", "what?now"),
    ],
)
def test_an_address_is_shown_without_its_user(address: str, shown: str) -> None:
    """User, password and query go, wherever the address stands in a message."""
    assert without_password(f"cannot reach {address} now") == f"cannot reach {shown} now"
