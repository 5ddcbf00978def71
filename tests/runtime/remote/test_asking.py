"""Asking for whole tables: never twice, within a price, resumable after whatever stopped it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from compress.asking.figures import untold_note, usd_per_1k_of
from contract.errors import EnvironmentProblem
from runtime.remote.asking import NONE, ask_texts
from runtime.remote.estimate import estimate, most_usd_of
from runtime.remote.kept import Kept, KeptAnswers
from tests.ports import free_port
from tests.support.known_model import LABELS, Fault, KnownModel, asking, shared

TEXTS = [f"story {i}" for i in range(30)]

serving, known, url = shared(KnownModel)


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


def test_an_answer_of_one_server_is_not_anothers(url: str, tmp_path: Path) -> None:
    """Another address is another file, unless the record says that the model has moved from there."""
    old, new = asking("http://127.0.0.1:9"), asking(url)
    assert asking(url, "oip").identity(LABELS) != asking("http://127.0.0.1:9", "oip").identity(LABELS)
    with KeptAnswers(tmp_path, old, LABELS) as kept:
        kept.add(TEXTS[0], Kept(3, None, 0.5, 0.1))
    assert estimate(new, LABELS, TEXTS[:1], tmp_path).kept == 0
    moved = asking(url, answers_of="http://127.0.0.1:9/v1")
    assert moved.identity(LABELS) == old.identity(LABELS)
    found = ask_texts(moved, LABELS, TEXTS[:1], tmp_path)
    assert (found.calls, found.labels.tolist()) == (0, [3])


def test_a_reply_that_tells_no_tokens_counts_as_the_most_that_it_may_cost(
    known: KnownModel, url: str, tmp_path: Path
) -> None:
    """Money stops it all the same, and the price of an answer is not nothing."""
    model = asking(url, "chat", usd_per_call=None, usd_per_1k_tokens_in=1.0, max_concurrency=4)
    most = most_usd_of(model, LABELS)(TEXTS[0])
    known.usage = {"prompt_tokens": None}
    found = ask_texts(model, LABELS, TEXTS[:8], tmp_path, max_usd=3.5 * most)
    assert (found.capped, found.unanswered, len(known.asked)) == (True, 5, 3)
    assert found.usd == pytest.approx(3 * most)
    with KeptAnswers(tmp_path, model, LABELS) as kept:
        replies = [one for text in TEXTS if (one := kept.get(text)) is not None]
    assert usd_per_1k_of(model, replies) == pytest.approx(1000 * most)
    assert untold_note(model, replies) == [
        "3 replies do not tell their tokens: each counts as the most that it may cost"
    ]


def test_a_model_that_thinks_does_not_go_far_beyond_the_price(
    known: KnownModel, url: str, tmp_path: Path
) -> None:
    """The first answer goes alone; what it took beyond what was foreseen is set aside for the next ones."""
    known.usage = {"prompt_tokens": 100, "completion_tokens": 4000}
    model = asking(url, "chat", usd_per_call=None, usd_per_1k_tokens_out=0.008)
    found = ask_texts(model, LABELS, TEXTS, tmp_path, max_usd=0.05)
    assert (found.capped, len(known.asked)) == (True, 1)
    expected = estimate(model, LABELS, TEXTS, tmp_path)
    assert expected.most_usd >= 29 * 0.032
    enough = ask_texts(model, LABELS, TEXTS, tmp_path, max_usd=expected.usd_spent + expected.most_usd)
    assert (enough.stopped, enough.unanswered) == (None, 0)


def test_money_that_went_on_no_answer_is_remembered(known: KnownModel, url: str, tmp_path: Path) -> None:
    """A second call at the same price asks nothing, whether replies could not be read or were refusals."""
    model = asking(url, usd_per_call=0.01, max_concurrency=1)
    known.faults.extend([Fault(200, body=b'{"answers": []}')] * 3)
    first = ask_texts(model, LABELS, TEXTS, tmp_path, max_usd=0.03)
    assert (first.capped, first.unanswered, len(known.asked)) == (True, 30, 3)
    second = ask_texts(model, LABELS, TEXTS, tmp_path, max_usd=0.03)
    assert (second.capped, second.calls) == (True, 0)
    assert (first.usd, second.usd, estimate(model, LABELS, TEXTS, tmp_path).usd_spent) == pytest.approx(
        (0.03, 0.03, 0.03)
    )
    chat = asking(url, "chat", usd_per_call=None, usd_per_1k_tokens_in=1.0, max_concurrency=1)
    refusal = {"choices": [{"message": {"refusal": "no"}}], "usage": {"prompt_tokens": 120}}
    known.faults.append(Fault(200, body=json.dumps(refusal).encode()))
    assert ask_texts(chat, LABELS, TEXTS[:1], tmp_path).usd == pytest.approx(0.12)
    again = ask_texts(chat, LABELS, TEXTS[:1], tmp_path)
    assert again.calls == 0
    assert again.usd == pytest.approx(0.12)


def test_of_repeated_requests_those_that_were_answered_are_paid_for(
    known: KnownModel, url: str, tmp_path: Path
) -> None:
    """Where one of three fails the text has no answer, and the others' price is kept."""
    model = asking(url, usd_per_call=0.01, repeats=3, max_concurrency=1, retries=0)
    known.faults.extend([Fault(200, body=b'{"answers": []}')])
    ask_texts(model, LABELS, TEXTS[:1], tmp_path)
    assert estimate(model, LABELS, TEXTS[:1], tmp_path).usd_spent >= 0.01


def test_what_a_model_says_in_place_of_a_label_is_written_nowhere(
    known: KnownModel, url: str, tmp_path: Path
) -> None:
    """It may quote the text: the file has a reason of our own, and a few examples are for the terminal."""
    said = {"choices": [{"message": {"content": "The message 'my card 4111' is about"}}]}
    known.faults.append(Fault(200, body=json.dumps(said).encode()))
    model = asking(url, "chat", chat={"constrain": "none"})
    found = ask_texts(model, LABELS, TEXTS[:1], tmp_path)
    assert found.declined == {"it names no label that was offered": 1}
    assert found.examples == ("The message 'my card 4111' is about",)
    (path,) = tmp_path.iterdir()
    assert b"4111" not in path.read_bytes()


def test_errors_that_another_try_may_mend_are_told_from_others(
    known: KnownModel, url: str, tmp_path: Path
) -> None:
    """A server's own error may pass; a text that it will not have stays one."""
    known.faults.extend([Fault(500), Fault(400)])
    found = ask_texts(asking(url, max_concurrency=1, retries=0), LABELS, TEXTS[:3], tmp_path)
    assert (found.errors, found.may_come) == ({"broken (HTTP 500)": 1, "rejected (HTTP 400)": 1}, 1)
