"""A trained head and the data's labels."""

from __future__ import annotations

from typing import Any

import pytest

from compress.networks.heads import match_head
from compress.recipes.recipe import TeacherPart
from contract.errors import RecipeError


def named(*names: str) -> dict[str, Any]:
    """Return a configuration whose head has those names."""
    return {"id2label": {str(row): name for row, name in enumerate(names)}}


def test_a_head_of_the_same_names_is_kept_in_the_data_s_order() -> None:
    """Rows follow the labels."""
    assert match_head(named("pos", "neg"), 2, ["neg", "pos"], None, "m").order == (1, 0)


def test_names_are_read_as_labels_are() -> None:
    """Blanks at their ends and the way of writing a truth value or number part no head from its data."""
    config = {"id2label": {"0": " pos", "1": True, "2": 1.0}}
    assert match_head(config, 3, ["1", "pos", "true"], None, "m").order == (2, 0, 1)


def test_a_head_that_cannot_be_named_by_names_is_named_by_rows() -> None:
    """Two rows of one name, and rows counted from 1, are told with the numbers to use."""
    twice = match_head(named("pos", "pos"), 2, ["neg", "pos"], None, "m")
    assert "teacher.labels: {0: ..., 1: ...}" in str(twice.hint)
    with pytest.raises(RecipeError, match="counts rows from 1, the head has 2 rows, from 0"):
        match_head({"id2label": {"1": "neg", "2": "pos"}}, 2, ["neg", "pos"], None, "m")


@pytest.mark.parametrize("said", [{"LABEL_0": "pos", "LABEL_1": "neg"}, {"0": "pos", "1": "neg"}])
def test_what_the_recipe_says_of_names_or_rows_keeps_a_head(said: dict[str, str]) -> None:
    """`teacher.labels` maps names, or numbers of rows."""
    head = match_head(named("LABEL_0", "LABEL_1"), 2, ["neg", "pos"], said, "m")
    assert head.order == (1, 0)
    assert head.notes == ()


def test_rows_by_their_numbers_need_no_names() -> None:
    """A configuration that names too few labels is refused, unless the recipe numbers the rows."""
    with pytest.raises(RecipeError, match="2 labels, the head has 3 rows"):
        match_head(named("LABEL_0", "LABEL_1"), 3, ["a", "b", "c"], None, "m")
    said = {"0": "c", "1": "b", "2": "a"}
    assert match_head(named("LABEL_0", "LABEL_1"), 3, ["a", "b", "c"], said, "m").order == (2, 1, 0)


def test_a_dropped_head_is_said_with_how_to_keep_it() -> None:
    """Names that differ in case alone come as a ready map, numbered ones as a question; none is guessed."""
    head = match_head(named("NEG", "POS"), 2, ["neg", "pos"], None, "m")
    assert head.order is None
    assert "teacher.labels: {NEG: neg, POS: pos}" in head.notes[0]
    numbered = match_head(named("LABEL_0", "LABEL_1"), 2, ["neg", "pos"], None, "m")
    assert numbered.order is None
    assert "labels: {LABEL_0: ..., LABEL_1: ...}" in numbered.notes[0]
    other = match_head(named("a", "b", "c"), 3, ["neg", "pos"], None, "m")
    assert "3 labels, the data 2" in other.notes[0]


def test_weights_without_a_head_drop_nothing() -> None:
    """An encoder alone needs no word; labels for its head do."""
    assert match_head({}, None, ["neg", "pos"], None, "m").notes == ()
    with pytest.raises(RecipeError, match="no trained head"):
        match_head({}, None, ["neg", "pos"], {"a": "neg"}, "m")


def test_a_contradiction_of_the_configuration_is_said() -> None:
    """id2label counts, as in transformers, and the note names both."""
    config = named("neg", "pos") | {"label2id": {"neg": 1, "pos": 0}}
    head = match_head(config, 2, ["neg", "pos"], None, "m")
    assert head.order == (0, 1)
    assert "contradicts itself" in head.notes[0]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"POSITIVE": "pos", "NEG": "neg"}, "no 'POSITIVE'"),
        ({"NEG": "negative", "POS": "pos"}, "no label of the data"),
        ({"NEG": "neg"}, "missing: POS, pos"),
        ({"NEG": "neg", "POS": "neg"}, "named twice"),
    ],
)
def test_a_map_that_does_not_fit_is_refused(said: dict[str, str], told: str) -> None:
    """Every name once, every label once."""
    with pytest.raises(RecipeError, match=told):
        match_head(named("NEG", "POS"), 2, ["neg", "pos"], said, "m")


def test_numbers_are_labels_and_yaml_s_booleans_are_not() -> None:
    """1 becomes "1"; an unquoted `no` is refused with the reason."""
    assert TeacherPart(weights="m", labels={0: 1, "b": 2}).labels == {"0": "1", "b": "2"}
    with pytest.raises(ValueError, match="in quotes"):
        TeacherPart(weights="m", labels={"LABEL_0": False})
