"""The store of collected rows: parts, rules, retention, and what a crash leaves."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from contract.collected import CollectedRow, KeepRules, Question, Redaction
from contract.errors import DataError
from contract.files import sha256_of_bytes
from tables.collected.parts import list_parts
from tables.collected.store import CollectedStore
from tables.collected.training import count, not_learnable, training_rows, write_training

DAY = 86400.0
QUESTION = Question(labels=("no", "yes"), instructions="Is it?")


def row(number: int, *, at_s: float = 1e9, text: str | None = None, **more: object) -> CollectedRow:
    """Return an answer to a text."""
    key = sha256_of_bytes(str(text or number).encode())
    told = {
        "id": f"r{number}", "at_s": at_s, "question": QUESTION.sha256, "text_sha256": key,
        "text": text, "answer": "yes", "probabilities": (0.25, 0.75),
    }  # fmt: skip
    return CollectedRow.model_validate({**told, **more})


def store_in(folder: Path, **rules: object) -> CollectedStore:
    """Return a store with the question in it."""
    store = CollectedStore.create(folder, KeepRules.model_validate(rules))
    store.remember(QUESTION)
    return store


def test_rows_of_all_writers_are_read_once_each(tmp_path: Path) -> None:
    """Parts of several writers are one table; a row that stands in two parts comes once."""
    store = store_in(tmp_path)
    store.add([row(1), row(2)], "a_0")
    store.add([row(2), row(3)], "b_0")

    assert sorted(CollectedStore.open(tmp_path).rows(QUESTION.sha256)["id"].to_pylist()) == ["r1", "r2", "r3"]
    assert store.question(QUESTION.sha256) == QUESTION


def test_what_was_being_written_when_a_writer_died_is_not_read(tmp_path: Path) -> None:
    """A temporary file beside the parts is none of them."""
    store = store_in(tmp_path)
    store.add([row(1)], "a_0")
    (store.parts_folder / ".part-1-2-x.parquet.ab.tmp").write_bytes(b"PAR1 half")

    assert len(store.rows()) == 1


def test_old_rows_go_and_newer_ones_of_the_same_part_stay(tmp_path: Path) -> None:
    """Retention is to the row, also inside a part."""
    store = store_in(tmp_path, texts=True, retention_days=2)
    store.add([row(1, at_s=0.0, text="a"), row(2, at_s=3 * DAY, text="b")], "a_0")
    store.add([row(3, at_s=0.5 * DAY, text="c")], "a_1")

    assert store.tidy(4 * DAY) == 2
    assert store.rows()["id"].to_pylist() == ["r2"]
    assert store.tidy(4 * DAY) == 0


def test_texts_go_once_the_rules_keep_none(tmp_path: Path) -> None:
    """Whoever takes back the consent to texts loses no counts, only the texts."""
    store_in(tmp_path, texts=True).add([row(1, text="a secret")], "a_0")

    store = store_in(tmp_path, texts=False)
    store.tidy(1e9)

    assert store.rows()["text"].to_pylist() == [None]
    assert all(b"a secret" not in part.path.read_bytes() for part in list_parts(store.parts_folder))


def test_many_small_parts_become_few(tmp_path: Path) -> None:
    """Joining keeps every row."""
    store = store_in(tmp_path, texts=True)
    for number in range(40):
        store.add([row(number, at_s=1e9 + number)], f"a_{number}")

    store.tidy(1e9)

    assert len(list_parts(store.parts_folder)) < 4
    assert len(store.rows()) == 40


def test_a_crash_between_joining_and_removing_counts_no_row_twice(tmp_path: Path) -> None:
    """Rows that stand in the joined part and in their own are read once."""
    store = store_in(tmp_path, texts=True)
    store.add([row(1), row(2)], "a_0")
    rows = store.rows()
    pq.write_table(rows, store.parts_folder / "part-1000000000000-1000000000000-j1.parquet")

    assert len(store.rows()) == 2


def test_equal_texts_have_one_hash_in_a_store_and_another_elsewhere(tmp_path: Path) -> None:
    """The hash is keyed, so that a list of likely texts finds nothing."""
    first, second = store_in(tmp_path / "a"), store_in(tmp_path / "b")

    assert first.hash_of("x") == CollectedStore.open(tmp_path / "a").hash_of("x")
    assert first.hash_of("x") != second.hash_of("x")
    assert (tmp_path / "a").stat().st_mode & 0o077 == 0


def test_a_folder_without_a_store_and_a_broken_part_are_named(tmp_path: Path) -> None:
    """Refusals say the file and what to do."""
    with pytest.raises(DataError, match="nothing was collected"):
        CollectedStore.open(tmp_path)
    store = store_in(tmp_path)
    store.add([row(1)], "a_0")
    next(store.parts_folder.glob("part-*")).write_bytes(b"no parquet")
    with pytest.raises(DataError, match="move it away"):
        store.rows()


def test_rules_survive_and_can_be_changed(tmp_path: Path) -> None:
    """A store opened again has the rules it was last given, and its key."""
    before = store_in(tmp_path, redact=(Redaction(pattern="x"),))
    after = store_in(tmp_path, texts=True)

    assert CollectedStore.open(tmp_path).rules == KeepRules(texts=True)
    assert after.record.salt == before.record.salt


def test_training_rows_have_one_answer_a_text(tmp_path: Path) -> None:
    """Probabilities of several answers are averaged; without them most votes win, then the newest."""
    store = store_in(tmp_path, texts=True)
    store.add(
        [
            row(1, text="mean", probabilities=(0.9, 0.1), answer="no"),
            row(2, text="mean", probabilities=(0.3, 0.7)),
            row(3, text="votes", probabilities=None, answer="no"),
            row(4, text="votes", probabilities=None, at_s=1e9 + 1),
            row(5, text=None),
        ],
        "a_0",
    )

    rows = training_rows(store, QUESTION.sha256)

    said = dict(zip(rows.texts, rows.answers.tolist(), strict=True))
    assert said == {"mean": 0, "votes": 1}
    np.testing.assert_allclose(rows.probabilities[rows.texts.index("mean")], [0.6, 0.4], atol=1e-6)
    assert np.isnan(rows.probabilities[rows.texts.index("votes")]).all()


def test_what_cannot_be_learnt_is_left_out(tmp_path: Path) -> None:
    """Blank texts, and what another upstream or model answered, keep nobody from learning the rest."""
    store = store_in(tmp_path, texts=True)
    old: dict[str, Any] = {"upstream": "http://old", "model": "big"}
    new: dict[str, Any] = {"upstream": "http://new", "model": "big"}
    store.add(
        [row(1, text="an old one", **old)]
        + [row(n, text=text, at_s=1e9 + n, **new) for n, text in enumerate([" ", "a\0", "one", "two"], 2)]
        + [row(9, text="of another model", at_s=1e9 + 9, upstream="http://new", model="small")],
        "a_0",
    )

    assert set(training_rows(store, QUESTION.sha256).texts) == {"one", "two"}
    assert training_rows(store, QUESTION.sha256).model == "big"
    assert count(store, QUESTION.sha256).kept_texts == 2


def test_what_all_answers_name_is_the_label(tmp_path: Path) -> None:
    """Where the probabilities say another, they are not kept: what a model names is its answer."""
    store = store_in(tmp_path, texts=True)
    store.add([row(1, text="a", probabilities=(0.5, 0.5), answer="yes")], "a_0")

    rows = training_rows(store, QUESTION.sha256)
    assert rows.answers.tolist() == [1]
    assert np.isnan(rows.probabilities).all()


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"labels": ("False", "True")}, "'False'"),
        ({"labels": ("a", "b ")}, "'b '"),
        ({"kind": "predicate"}, "only choices"),
        ({"booleans": ("yes",)}, "only choices"),
        ({"reworded": True}, "redaction"),
        ({}, "^$"),
    ],
)
def test_a_question_that_no_family_can_be_made_for_says_why(more: dict[str, object], why: str) -> None:
    """Labels that files write otherwise, and words that are not what was asked, are not learnt."""
    assert re.search(why, not_learnable(QUESTION.model_copy(update=more)))


def test_parts_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    """They say no upstream."""
    store = store_in(tmp_path, texts=True)
    store.add([row(1, text="a")], "a_0")
    part = next(store.parts_folder.glob("part-*"))
    pq.write_table(pq.read_table(part).drop(["upstream"]), part)

    assert store.rows()["upstream"].to_pylist() == [None]
    assert training_rows(store, QUESTION.sha256).texts == ("a",)


def test_questions_and_halves_of_parts_do_not_stay_for_ever(tmp_path: Path) -> None:
    """A question goes once its rows have gone and nobody asks it; what a killed writer left goes too."""
    store = store_in(tmp_path, texts=True, retention_days=2)
    other = Question(labels=("a", "b"))
    store.remember(other)
    store.add([row(1, at_s=time.time())], "a_0")
    left = store.parts_folder / ".part-1-2-x.parquet.ab.tmp"
    left.write_bytes(b"PAR1 a text")
    for path in (*(tmp_path / "questions").glob("*.json"), left):
        os.utime(path, (0, 0))

    store.tidy(time.time())

    assert list(store.questions()) == [QUESTION.sha256]
    assert not left.exists()
    store.remember(other)
    store.tidy(time.time())
    assert len(store.questions()) == 2


def test_an_export_holds_texts_answers_and_probabilities(tmp_path: Path) -> None:
    """What is exported can be read as labelled data, with null where no probabilities came."""
    store = store_in(tmp_path, texts=True)
    store.add([row(1, text="a"), row(2, text="b", probabilities=None)], "a_0")

    write_training(tmp_path / "rows.parquet", training_rows(store, QUESTION.sha256))

    assert pq.read_table(tmp_path / "rows.parquet").to_pylist() == [
        {"text": "a", "answer": "yes", "probabilities": [0.25, 0.75]},
        {"text": "b", "answer": "yes", "probabilities": None},
    ]


def test_counts_say_how_much_there_is(tmp_path: Path) -> None:
    """Rows, texts, kept texts, contradictions and prices are counted."""
    store = store_in(tmp_path, texts=True)
    store.add(
        [row(1, text="a", usd=0.1), row(2, text="a", answer="no", usd=0.3, at_s=1e9 + DAY), row(3)], "a_0"
    )

    found = count(store, QUESTION.sha256)

    assert (found.rows, found.texts, found.kept_texts, found.contradicted) == (3, 2, 1, 1)
    assert found.usd_per_1k == pytest.approx(200)
    assert found.days == pytest.approx(1)


def test_without_texts_nothing_can_learn(tmp_path: Path) -> None:
    """The refusal says which option keeps texts."""
    store = store_in(tmp_path)
    store.add([row(1)], "a_0")

    with pytest.raises(DataError, match="--keep-texts"):
        training_rows(store, QUESTION.sha256)
