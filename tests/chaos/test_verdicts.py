"""What the harm suite and the soak hold against a gateway, told apart from what they let pass."""

from __future__ import annotations

import json
import socket
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.chaos.client import PatientClients, TwoAnswersError, ask
from tests.chaos.load import Tally
from tests.chaos.parts import wait_until
from tests.chaos.record import Case, Record
from tests.chaos.soak_page import Soaked, growths, page, verdict

REPLY = b'HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{"id":"patient-0"}'


@pytest.fixture
def answering(request: pytest.FixtureRequest) -> Callable[[bytes], str]:
    """Make a server that gives every connection the same bytes and closes it."""

    def make(said: bytes) -> str:
        listening = socket.create_server(("127.0.0.1", 0))
        request.addfinalizer(lambda: listening.shutdown(socket.SHUT_RDWR))

        def serve() -> None:
            with listening:
                while True:
                    try:
                        connection, _ = listening.accept()
                    except OSError:
                        return
                    with connection:
                        while b"inputs" not in connection.recv(65536):
                            pass
                        connection.sendall(said)

        threading.Thread(target=serve, daemon=True).start()
        return f"http://127.0.0.1:{listening.getsockname()[1]}"

    return make


def test_a_second_answer_is_seen(answering: Callable[[bytes], str]) -> None:
    """A client reads on after its answer, and counts what follows as wrong."""
    url = answering(REPLY + REPLY)
    with pytest.raises(TwoAnswersError):
        ask(url, b'{"inputs": []}')
    with PatientClients(url, clients=1, pause_s=0.01) as clients:
        assert wait_until(lambda: bool(clients.wrong), 10) is not None
    assert "patient-0 was answered twice" in clients.wrong[0]


def test_one_answer_is_read_as_it_is(answering: Callable[[bytes], str]) -> None:
    """Status, body and Retry-After of a reply that is alone on its connection."""
    assert ask(answering(REPLY), b'{"inputs": []}') == (200, b'{"id":"patient-0"}', "")
    assert ask(
        answering(b"HTTP/1.1 503 No\r\nRetry-After: 1\r\nContent-Length: 2\r\n\r\n{}"), b'{"inputs": []}'
    ) == (503, b"{}", "1")


def kept(folder: Path) -> Record:
    """A record that writes its page there."""
    return Record("make chaos", 100.0, page=folder / "chaos.md")


@pytest.mark.parametrize(
    ("tally", "against"),
    [
        (Tally(sent=10, answered=9, late=1), "1 requests got no answer in time"),
        (Tally(sent=10, answered=7, resets=3), "3 requests were lost, not 2 at most"),
        (Tally(sent=10, answered=7, refused=Counter({503: 3})), "3 requests were lost, not 2 at most"),
        (Tally(sent=10, answered=10, counted=11), "the gateway has counted 11 texts, not 10"),
        (Tally(sent=10, answered=10, malformed=["no label"]), "no label"),
    ],
)
def test_what_fails_a_case(tmp_path: Path, tally: Tally, against: str) -> None:
    """Late, more lost than may be, counted otherwise by the gateway, or malformed."""
    with pytest.raises(AssertionError, match=against):
        kept(tmp_path).add(Case("a case", tally, may_lose=2))


def test_a_case_that_fails_leaves_no_row_of_an_earlier_day(tmp_path: Path) -> None:
    """Its row of an earlier run goes, the page names the test, and the rows of other cases stay."""
    good = Tally(sent=10, answered=10, counted=10)
    before = kept(tmp_path)
    before.add(Case("broken now", good, remark="a remark on it"))
    before.add(Case("not run again", good))
    before.write()
    assert "| broken now |" in before.page.read_text()
    after = kept(tmp_path)
    with pytest.raises(AssertionError):
        after.add(Case("broken now", Tally(sent=10, answered=9, late=1)))
    after.failed.append("test_that_broke")
    after.write()
    page = after.page.read_text()
    assert "broken now" not in page
    assert "**Failed in the last run: test_that_broke.**" in page
    assert "| not run again |" in page
    assert set(json.loads(after.page.with_suffix(".json").read_text())["rows"]) == {"not run again"}


@pytest.mark.parametrize(
    ("killed", "tally", "against"),
    [
        (
            False,
            Tally(sent=3000, answered=2999, resets=1),
            ["piece 1, without a kill, lost 1, not 0 at most"],
        ),
        (True, Tally(sent=3000, answered=2990, resets=10), []),
        (
            True,
            Tally(sent=3000, answered=2900, resets=100),
            ["piece 2, with a gateway replica killed, lost 100, not 10 at most"],
        ),
        (True, Tally(sent=3000, answered=2999, late=1), ["piece 2 has 1 without an answer in time"]),
    ],
)
def test_a_soak_bounds_what_a_kill_costs(killed: bool, tally: Tally, against: list[str]) -> None:
    """Nothing may be lost without a kill, a little with one, and nobody may wait for ever."""
    whole = Tally(sent=3000, answered=3000)
    tallies = [whole, tally] if killed else [tally, whole]
    assert verdict(Soaked("make soak", None, 100.0, 200.0, 60.0, 30.0, tallies, {}), []) == against


def grows(start_s: float, until_s: float, mb_per_min: float) -> list[tuple[float, float]]:
    """Seconds and MB of a process that is looked at every 2 s."""
    return [(at, 250 + mb_per_min * (at - start_s) / 60) for at in np.arange(start_s, until_s, 2.0)]


@pytest.mark.parametrize(("start_s", "judged"), [(0.0, True), (290.0, True), (310.0, False)])
def test_a_soak_judges_those_that_lived_half_of_it(start_s: float, judged: bool) -> None:
    """What took the place of a killed process fills its caches first: it is shown and not judged."""
    memory = {"a gateway replica": grows(start_s, 600.0, 2.0), "a stage": grows(0.0, 600.0, 0.1)}
    soaked = Soaked("make soak", None, 100.0, 200.0, 600.0, 30.0, [Tally(sent=9, answered=9)], memory)
    grown = growths(memory, least_s=120.0)
    assert verdict(soaked, grown) == ["a gateway replica grows by 2.00 MB a minute"] * judged
    rows = [line for line in page(soaked, grown).splitlines() if line.startswith("| a gateway replica")]
    assert [row.endswith("| yes |") for row in rows] == [judged]
