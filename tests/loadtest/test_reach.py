"""Where a load test goes: addresses as users write them, and what is said when something is not there."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator

import psutil
import pytest

from contract.errors import InputError
from contract.run import Summary
from loadtest.generator import Generator
from loadtest.reach import check_answers_at, on_this_machine
from loadtest.reference import Behaviour, serving
from loadtest.runner import LoadPlan, drive
from loadtest.scrape import read_metrics, what_is_missing
from sluicegate.load_options import unknowns
from tables.labelled import from_rows

TEXTS = from_rows([(f"l{i % 3} text {i}", f"l{i % 3}") for i in range(9)])


@pytest.fixture(scope="module")
def generator() -> Iterator[Generator]:
    """One generator for all."""
    with Generator() as started:
        yield started


def _drive(generator: Generator, url: str) -> Summary:
    plan = LoadPlan(url, TEXTS, 40.0, 0.3, warmup_s=0.0, meter=False)
    return drive(plan, generator=generator).summary


def test_every_way_to_write_the_address_measures_the_same(generator: Generator) -> None:
    """A slash at the end, no scheme, a name, a prefix: the path is right, cost and energy are known."""
    with serving(Behaviour(cpu_seconds=0.001, joules=1.0, prefix="/models/one")) as server:
        port = server.url.rsplit(":", 1)[1]
        for url in (f"{server.url}/models/one//", f"localhost:{port}/models/one/"):
            summary = _drive(generator, url)
            assert (summary.errors, summary.accuracy) == (0, 1.0)
            assert summary.cpu_seconds_per_1k == pytest.approx(1.0)
            assert summary.energy_wh_per_1k is not None
            assert summary.usd_per_1k is not None
            assert summary.url.endswith("/models/one")
            assert unknowns(summary) == []


def test_ipv6_is_driven(generator: Generator) -> None:
    """Brackets in the URL and in the header Host, none where the socket connects."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with serving(host="::1") as server:
        assert _drive(generator, f"{server.url}/").errors == 0


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (Behaviour(metrics=False), "/metrics cannot be read .*404"),
        (Behaviour(joules=1.0), "no CPU time: .* does not count it"),
        (Behaviour(cpu_seconds=1.0), "no energy: .* does not count it .*--watts-per-core"),
        (Behaviour(), "no energy: .* does not count it .*; no CPU time: .* does not count it"),
        (Behaviour(cpu_seconds=1.0, idle_watts=5.0, energy_step_s=60.0), "no energy: .* did not move"),
    ],
)
def test_what_is_not_known_is_said(generator: Generator, behaviour: Behaviour, words: str) -> None:
    """Energy and CPU time do not vanish without a word: the summary says why, and the commands print it."""
    with serving(behaviour) as server:
        summary = _drive(generator, server.url)
    (said,) = unknowns(summary)
    assert said == summary.unmetered_reason
    assert re.search(words, said)


def test_a_page_that_is_none_and_a_server_that_is_gone_are_told_apart() -> None:
    """The reason names what happened to the scrape."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        assert "refused" in (what_is_missing(None, url) or "")
        with pytest.raises(InputError, match="nothing answers"):
            check_answers_at(f"{url}/")
    with serving() as server:
        assert "started anew" in (what_is_missing(None, server.url) or "")


def test_no_proxy_of_the_environment_stands_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """The generator goes straight to the server, and so do the questions around it."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with serving(Behaviour(joules=1.0)) as server:
        check_answers_at(server.url)
        assert read_metrics(f"{server.url}/") is not None


def test_https_asked_of_a_plain_server_says_so() -> None:
    """The hint is the scheme, not to start a gateway."""
    with socket.socket() as plain:
        plain.bind(("127.0.0.1", 0))
        plain.listen()
        plain.settimeout(10)
        port = plain.getsockname()[1]

        def answer() -> None:
            with plain.accept()[0] as one:
                one.recv(4096)
                one.sendall(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(InputError, match="http:// where"):
            check_answers_at(f"https://127.0.0.1:{port}")
        thread.join()


def test_the_addresses_of_its_network_cards_are_this_machine() -> None:
    """Whatever psutil finds on the cards, loopback or not, counts as here."""
    for card in psutil.net_if_addrs().values():
        for found in card:
            if found.family == socket.AF_INET:
                assert on_this_machine(f"http://{found.address}:8000"), found.address


def test_addresses_of_this_machine_are_known() -> None:
    """Loopback in every form and the machine's own name; a documentation address is not ours."""
    for url in ("http://127.0.0.1:1", "localhost:1", "[::1]:1", "http://127.8.9.1:1", "http://0.0.0.0:1"):
        assert on_this_machine(url), url
    assert not on_this_machine("http://203.0.113.77:1")
