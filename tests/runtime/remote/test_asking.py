"""Asking for whole tables: never twice, within a price, resumable after whatever stopped it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from contract.errors import EnvironmentProblem
from runtime.remote.asking import NONE, ask_texts
from runtime.remote.estimate import estimate
from runtime.remote.kept import Kept, KeptAnswers
from tests.ports import free_port
from tests.support.known_model import LABELS, Fault, KnownModel, asking, known_model

TEXTS = [f"story {i}" for i in range(30)]


@pytest.fixture(scope="module")
def serving() -> Iterator[tuple[KnownModel, str]]:
    """One server for all tests here."""
    model = KnownModel()
    with known_model(model) as url:
        yield model, url


@pytest.fixture
def known(serving: tuple[KnownModel, str]) -> KnownModel:
    """The server's model, as new."""
    model, _ = serving
    model.__init__()  # type: ignore[misc] # as new
    return model


@pytest.fixture
def url(serving: tuple[KnownModel, str]) -> str:
    """The server's root address."""
    return serving[1]


@pytest.mark.parametrize("form", ["decisions", "oip"])
def test_a_table_is_asked_once_and_kept(known: KnownModel, url: str, tmp_path: Path, form: str) -> None:
    """Equal texts are asked once, a second call asks nothing, and both give the model's answers."""
    model = asking(url, form, usd_per_call=0.01)
    before = estimate(model, LABELS, [*TEXTS, TEXTS[0]], tmp_path)
    assert (before.texts, before.kept, before.exact) == (30, 0, True)
    assert before.usd_left == pytest.approx(0.3)
    first = ask_texts(model, LABELS, [*TEXTS, TEXTS[0]], tmp_path)
    asked = len(known.asked)
    again = ask_texts(model, LABELS, TEXTS, tmp_path)
    assert len(known.asked) == asked
    assert first.labels.tolist() == known.labels_of([*TEXTS, TEXTS[0]])
    assert again.labels.tolist() == first.labels[:-1].tolist()
    assert again.probabilities == pytest.approx(known.probabilities(TEXTS), abs=1e-5)
    assert (first.usd, first.usd_now, again.usd, again.usd_now) == pytest.approx((0.3, 0.3, 0.3, 0.0))
    assert first.unanswered == 0
    assert np.isfinite(again.seconds).all()
    assert estimate(model, LABELS, TEXTS, tmp_path).told.startswith("0 texts to ask")


def test_it_stops_at_the_price_and_goes_on_from_there(known: KnownModel, url: str, tmp_path: Path) -> None:
    """Ten cents buy ten answers, and with twenty more the rest is asked."""
    model = asking(url, usd_per_call=0.01)
    first = ask_texts(model, LABELS, TEXTS, tmp_path, max_usd=0.10)
    assert first.stopped is not None
    assert (first.unanswered, len(known.asked)) == (20, 10)
    second = ask_texts(model, LABELS, TEXTS, tmp_path, max_usd=0.30)
    assert (second.stopped, second.unanswered, len(known.asked)) == (None, 0, 30)


def test_a_price_by_tokens_is_guessed_at_first_and_then_known(
    known: KnownModel, url: str, tmp_path: Path
) -> None:
    """What was seen takes the guess's place, and the cap holds to within what is out at a time."""
    model = asking(url, "chat", usd_per_call=None, usd_per_1k_tokens_in=1.0, max_concurrency=2)
    guessed = estimate(model, LABELS, TEXTS, tmp_path)
    assert not guessed.exact
    assert guessed.usd_left > 0
    found = ask_texts(model, LABELS, TEXTS, tmp_path, max_usd=1.2)
    assert found.stopped is not None
    assert 0.5 < found.usd <= 1.2 + 1e-9
    assert estimate(model, LABELS, TEXTS, tmp_path).usd_left == pytest.approx(found.unanswered * 0.12)


def test_what_the_model_declines_is_kept_and_leaves_a_hole(
    known: KnownModel, url: str, tmp_path: Path
) -> None:
    """A refusal is no answer, is paid for, and is not asked again."""
    known.faults.append(Fault(200, body=b'{"answers": [{"type": "refusal"}]}'))
    model = asking(url, max_concurrency=1)
    found = ask_texts(model, LABELS, TEXTS[:3], tmp_path)
    assert found.labels[0] == NONE
    assert (found.unanswered, found.failures) == (1, {"declined": 1})
    assert ask_texts(model, LABELS, TEXTS[:3], tmp_path).calls == 0


def test_what_fails_for_good_is_asked_again_the_next_time(
    known: KnownModel, url: str, tmp_path: Path
) -> None:
    """A row of errors leaves a hole, which the same call fills once the server is well."""
    known.faults.extend([Fault(500)] * 2)
    model = asking(url, max_concurrency=1, retries=1)
    assert ask_texts(model, LABELS, TEXTS[:3], tmp_path).unanswered == 1
    found = ask_texts(model, LABELS, TEXTS[:3], tmp_path)
    assert (found.unanswered, found.calls) == (0, 1)


def test_a_batch_that_is_refused_is_asked_one_by_one(known: KnownModel, url: str, tmp_path: Path) -> None:
    """One text that a server will not have does not cost its neighbours their answers."""
    known.faults.append(Fault(400))
    found = ask_texts(asking(url, "oip", max_concurrency=1), LABELS, TEXTS[:4], tmp_path)
    assert (found.unanswered, found.calls) == (0, 5)


def test_a_server_that_will_not_have_us_stops_it_at_once(known: KnownModel, url: str, tmp_path: Path) -> None:
    """A wrong key is not tried thirty times."""
    known.key = "another"
    found = ask_texts(asking(url, max_concurrency=1), LABELS, TEXTS, tmp_path)
    assert found.stopped is not None
    assert "credentials" in found.stopped
    assert found.calls == 1


def test_a_server_that_is_not_there_is_given_up(tmp_path: Path) -> None:
    """After ten questions in a row that reached nobody the rest is not asked."""
    model = asking(f"http://127.0.0.1:{free_port()}", retries=0, max_concurrency=1)
    found = ask_texts(model, LABELS, TEXTS, tmp_path)
    assert found.stopped is not None
    assert (found.calls, found.unanswered) == (10, 30)


def test_a_busy_server_is_waited_for(known: KnownModel, url: str, tmp_path: Path) -> None:
    """However often it is busy, all is answered in the end, and no faster than it said."""
    known.faults.extend([Fault(429, headers={"retry-after": "0.05"})] * 6)
    found = ask_texts(asking(url, max_concurrency=2, retries=1), LABELS, TEXTS[:5], tmp_path)
    assert (found.stopped, found.unanswered, found.failures) == (None, 0, {"busy": 6})


def test_the_first_so_many_go_alone(known: KnownModel, url: str, tmp_path: Path) -> None:
    """They are marked, so that their time is known to be a request's own."""
    known.delay_s = 0.005
    found = ask_texts(asking(url), LABELS, TEXTS, tmp_path, alone=4)
    assert found.alone.tolist() == [True] * 4 + [False] * 26
    assert known.most > 1


def test_progress_is_told_up_to_the_end(known: KnownModel, url: str, tmp_path: Path) -> None:
    """Texts answered, all texts, and USD."""
    told: list[tuple[int, int, float]] = []
    model = asking(url, usd_per_call=1.0)
    ask_texts(model, LABELS, TEXTS[:3], tmp_path, progress=lambda *seen: told.append(seen))
    assert told[-1] == (3, 3, 3.0)


def test_answers_are_for_one_way_of_asking(tmp_path: Path) -> None:
    """Other instructions, labels or repeats are another file; waits, prices and keys are not."""
    url = "http://127.0.0.1:9"
    first = asking(url).identity(LABELS)
    assert asking(url, instructions="Which one?").identity(LABELS) != first
    assert asking(url, repeats=2).identity(LABELS) != first
    assert asking(url).identity(LABELS[::-1]) != first
    same = asking(url, timeout_s=1.0, usd_per_call=2.0, max_concurrency=1, credentials={"env": "KEY"})
    assert same.identity(LABELS) == first


def test_two_processes_do_not_ask_the_same_at_once(url: str, tmp_path: Path) -> None:
    """Whoever comes second is told to wait, and nothing is written before the first answer."""
    model = asking(url)
    with KeptAnswers(tmp_path / "kept", model, LABELS) as kept:
        assert not (tmp_path / "kept").exists()
        kept.open()
        with pytest.raises(EnvironmentProblem, match="another process is asking the same question"):
            ask_texts(model, LABELS, TEXTS[:1], tmp_path / "kept")
    assert ask_texts(model, LABELS, TEXTS[:1], tmp_path / "kept").unanswered == 0


def test_a_torn_line_is_left_out_and_written_after(tmp_path: Path) -> None:
    """What a killed process left half is not an answer, and does not spoil the next one."""
    model = asking("http://127.0.0.1:9")
    with KeptAnswers(tmp_path, model, LABELS) as kept:
        kept.add("a", Kept(1, None, 0.5, 0.1))
        kept.add("b", Kept(None, None, 0.0, 0.1))
        path = kept.path
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with KeptAnswers(tmp_path, model, LABELS) as kept:
        assert kept.get("a") == Kept(1, None, 0.5, 0.1)
        assert kept.get("b") is None
        kept.add("c", Kept(2, (0.1, 0.1, 0.6, 0.1, 0.1), 0.0, 0.2))
    with KeptAnswers(tmp_path, model, LABELS) as kept:
        found = kept.get("c")
    assert found is not None
    assert found.probabilities == (0.1, 0.1, 0.6, 0.1, 0.1)
    assert b"story" not in path.read_bytes()
