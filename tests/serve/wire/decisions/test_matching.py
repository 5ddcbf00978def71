"""Who answers a question: by the settings' word on its name, by the model asked, by its labels."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.settings.decisions import DecisionSettings
from serve.types.messages import ModelInfo
from serve.wire.decisions.asked import Asked, Kind, Question
from serve.wire.decisions.matching import Match, Matcher, Unserved

NEWS = ModelInfo("news", ("business", "sport", "tech"), "cascade", "")
GAMES = ModelInfo("games", ("sport", "chess"), "cascade", "")
SPAM = ModelInfo("spam", ("ham", "spam"), "cascade", "")
STARS = ModelInfo("stars", ("1", "2", "3"), "cascade", "")
FACTS = ModelInfo("facts", ("false", "true"), "cascade", "")
STUDENT = ModelInfo("news/student", NEWS.labels, "distilled", "", "news", "student")
PICTURES = ModelInfo("pictures", ("cat", "dog"), "cascade", "", images=True)
ALL = (NEWS, GAMES, SPAM, STARS, FACTS, PICTURES, STUDENT)
SETTINGS: dict[str, Any] = {
    "models": {"spam": {"yes_label": "spam"}, "stars": {"levels": ["1", "2", "3"], "values": [1, 2, 3]}},
    "questions": {
        "junk": {"model": "spam", "yes_label": "ham"},
        "quick": {"model": "news/student"},
        "rating": {"model": "stars"},
        "renamed": {"model": "news", "labels": {"Sports": "sport", "Money": "business"}},
        "gone": {"model": "nobody"},
    },
}


def question(kind: Kind, *values: str | bool, name: str | None = None) -> Question:
    """A question."""
    return Question(kind, name, values, {"type": kind})


def match(
    asked_question: Question, model: str = "gpt", images: int = 0, settings: dict[str, Any] | None = None
) -> Match | Unserved:
    """Who answers it, of all the families above."""
    asked = Asked(model, "text", ("data:,",) * images, None, [asked_question], {}, None, b"", False)
    return Matcher(DecisionSettings.model_validate(settings or SETTINGS)).match(asked_question, asked, ALL)


def matched(*args: Any, **more: Any) -> Match:
    """The same, where somebody does."""
    found = match(*args, **more)
    assert isinstance(found, Match), found.reason
    return found


def unserved(*args: Any, **more: Any) -> str:
    """Why nobody does."""
    found = match(*args, **more)
    assert isinstance(found, Unserved), found.model
    return found.reason


def test_labels_tell_the_family_in_any_order() -> None:
    """The rows follow the question."""
    found = matched(question("choice", "tech", "business", "sport"))
    assert (found.model, found.rows.tolist(), found.whole) == ("news", [2, 0, 1], True)


def test_a_part_of_the_labels_is_enough_where_one_family_has_them() -> None:
    """It is said that the rest was not offered."""
    found = matched(question("choice", "tech", "sport"))
    assert (found.model, found.offered, found.whole) == ("news", 2, False)


def test_what_several_families_could_answer_is_left_unless_it_is_all_labels_of_one() -> None:
    """No family is guessed."""
    shared = ModelInfo("more", ("sport", "tech", "arts"), "cascade", "")
    asked = Asked("gpt", "t", (), None, [], {}, None, b"", False)
    found = Matcher(DecisionSettings()).match(question("choice", "sport", "tech"), asked, (NEWS, shared))
    assert isinstance(found, Unserved)
    assert "news, more" in found.reason
    assert matched(question("choice", "sport", "chess")).model == "games"


def test_of_families_with_the_same_labels_the_first_keeps_its_questions() -> None:
    """One that is loaded later changes nothing for them."""
    second = ModelInfo("news-2", NEWS.labels[::-1], "cascade", "")
    asked = Asked("gpt", "t", (), None, [], {}, None, b"", False)
    for values in (NEWS.labels, NEWS.labels[:2]):
        found = Matcher(DecisionSettings()).match(question("choice", *values), asked, (NEWS, second))
        assert isinstance(found, Match)
        assert found.model == "news"


def test_the_model_that_is_asked_answers_or_nobody() -> None:
    """A name that is served counts, a variant's too; another name is whatever the client has always said."""
    assert matched(question("choice", "sport", "tech"), model="news/student").model == "news/student"
    assert "no label 'chess'" in unserved(question("choice", "sport", "chess"), model="news")


def test_the_settings_word_on_a_name_comes_first() -> None:
    """Over the model that is asked, and over labels."""
    assert matched(question("choice", "sport", "tech", name="quick"), model="news").model == "news/student"
    assert "not served" in unserved(question("choice", "sport", "tech", name="gone"))
    found = matched(question("choice", "Money", "Sports", "tech", name="renamed"))
    assert (found.model, found.rows.tolist()) == ("news", [0, 1, 2])


def test_a_predicates_yes_is_set_or_evident() -> None:
    """By question, by model, or by labels that can only be read one way; else nobody answers."""
    assert matched(question("predicate", name="junk")).rows.tolist() == [0]
    assert matched(question("predicate"), model="spam").rows.tolist() == [1]
    assert matched(question("predicate"), model="facts").rows.tolist() == [1]
    assert "yes" in unserved(question("predicate"), model="games")
    assert "predicate" in unserved(question("predicate"))


def test_booleans_are_the_labels_true_and_false() -> None:
    """A choice between True and False, and not one between True and "true"."""
    found = matched(question("choice", True, False))
    assert (found.model, found.rows.tolist()) == ("facts", [1, 0])
    assert "same label" in unserved(question("choice", True, "true"), model="facts")


def test_a_score_has_the_order_of_the_question_and_the_values_of_the_settings() -> None:
    """Levels that are labels stand for themselves; others for the labels in their places."""
    own = matched(question("score", "1", "3"))
    assert (own.model, own.rows.tolist(), own.values) == ("stars", [0, 2], (1, 3))
    placed = matched(question("score", "bad", "fair", "good", name="rating"))
    assert (placed.rows.tolist(), placed.values) == ([0, 1, 2], (1, 2, 3))
    assert "3 levels" in unserved(question("score", "bad", "good", name="rating"))
    assert matched(question("score", "sport", "tech"), model="news").values == (0, 1)


def test_images_are_for_families_of_images_and_texts_for_the_others() -> None:
    """One image; a text with an image beside it is not answered by who would not see the image."""
    assert matched(question("choice", "cat", "dog"), images=1).by_image
    assert "one image" in unserved(question("choice", "cat", "dog"), model="pictures", images=2)
    assert "one image" in unserved(question("choice", "cat", "dog"), model="pictures")
    assert "text alone" in unserved(question("choice", "sport", "tech"), model="news", images=1)


LEARNT = ModelInfo("learnt", ("up", "down"), "cascade", "", instructions="Which way?")


@pytest.mark.parametrize(
    ("values", "instructions", "beside_upstream", "meant"),
    [
        (("down", "up"), "Which way?", True, True),
        (("down", "up"), [{"type": "input_text", "text": "Which way?"}], True, True),
        (("down", "up"), "Which way is it not?", False, False),
        (("business", "sport", "tech"), "Which topic?", True, False),
        (("sport", "tech"), "Which topic?", False, False),
    ],
)
def test_beside_an_upstream_labels_settle_only_what_is_known_to_be_the_familys(
    values: tuple[str, ...], instructions: Any, beside_upstream: bool, meant: bool
) -> None:
    """All of them, in the words that it was made for; without an upstream it is said what is not."""
    asked_question = Question("choice", None, values, {"type": "choice", "instructions": instructions})
    asked = Asked("gpt", "t", (), None, [asked_question], {}, None, b"", False)
    for alone in (True, False):
        found = Matcher(DecisionSettings(), alone=alone).match(asked_question, asked, (NEWS, LEARNT))
        assert isinstance(found, Match) is (alone or beside_upstream)
        if isinstance(found, Match):
            assert found.meant is meant


def test_of_two_families_with_the_same_labels_the_one_for_these_instructions_answers() -> None:
    """It need not be named."""
    other = ModelInfo("other", ("up", "down"), "cascade", "", instructions="Where to?")
    asked_question = Question("choice", None, ("up", "down"), {"type": "choice", "instructions": "Where to?"})
    asked = Asked("gpt", "t", (), None, [asked_question], {}, None, b"", False)
    for alone in (True, False):
        found = Matcher(DecisionSettings(), alone=alone).match(asked_question, asked, (LEARNT, other))
        assert isinstance(found, Match)
        assert found.model == "other"


def test_labels_decide_only_where_the_settings_let_them() -> None:
    """Then names alone do."""
    assert "settings" in unserved(question("choice", "sport", "tech"), settings={"by_labels": False})
    assert matched(question("choice", "sport", "tech"), model="news", settings={"by_labels": False})


@pytest.mark.parametrize(
    "reading",
    [{"levels": ["a"]}, {"levels": ["a", "a"]}, {"values": [1, 2]}, {"levels": ["a", "b"], "values": [1]}],
)
def test_readings_that_cannot_be_are_refused(reading: dict[str, Any]) -> None:
    """Levels are two or more and distinct, values as many as they are."""
    with pytest.raises(ValueError, match=r"levels|values"):
        DecisionSettings.model_validate({"models": {"m": reading}})


@given(st.permutations(NEWS.labels), st.integers(2, 3))
def test_every_part_in_every_order_points_at_its_labels(order: list[str], offered: int) -> None:
    """Whatever is offered, each row is the label of the choice in its place."""
    values = order[:offered]
    found = matched(question("choice", *values), model="news")
    assert [NEWS.labels[row] for row in found.rows.tolist()] == values
