"""Answers that a teacher gave elsewhere are read from what people have, and what is wrong is named by row."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from compress.datasets.answer_files import ReadAnswers, read_answers
from compress.recipes.answers_part import AnswersPart
from compress.recipes.data_part import DataPart
from contract.errors import DataError, RecipeError

LABELS = ("neg", "pos")


def read(file: Path | None, means: dict[str, str] | None = None, **part: Any) -> ReadAnswers:
    """Read the answers of a file, or of the data in `data`."""
    data = part.pop("data", None) or DataPart(file="none")
    settings = {"file": str(file), **part} if file is not None else part
    return read_answers(AnswersPart(**settings), data, LABELS, means or {})


def shares(found: ReadAnswers, *texts: str) -> NDArray[np.float64]:
    """Return the probabilities [N, C] that answers stand for, rounded."""
    logits = found.recorded.of(texts).astype(np.float64)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    rounded: NDArray[np.float64] = np.round(odds / odds.sum(axis=1, keepdims=True), 3)
    return rounded


def test_labels_stand_for_a_probability_and_may_have_other_names(tmp_path: Path) -> None:
    """A label is taken for 0.95, or what `certainty` says; empty cells and unheard texts have no answer."""
    file = tmp_path / "asked.csv"
    file.write_text("text,llm\ngood,LABEL_1\nbad,neg\nodd,\n")
    found = read(file, {"LABEL_1": "pos"}, label="llm")
    assert shares(found, "good", "bad").tolist() == [[0.05, 0.95], [0.95, 0.05]]
    assert np.isnan(found.recorded.of(["odd", "unheard"])).all()
    assert found.empty == 1
    assert shares(read(file, {"LABEL_1": "pos"}, label="llm", certainty=0.8), "good").tolist() == [[0.2, 0.8]]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_scores_are_put_into_the_order_of_the_labels(kind: str, tmp_path: Path) -> None:
    """A column per label and one column of lists in another order say the same, whatever the file."""
    rows = [
        {"text": "good", "n": 0.25, "p": 0.75, "both": [0.75, 0.25]},
        {"text": "odd", "n": None, "p": None, "both": None},
    ]
    file = tmp_path / f"asked.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    elif kind == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        file.write_text('text,n,p,both\ngood,0.25,0.75,"[0.75, 0.25]"\nodd,,,\n')
    for part in (
        {"probabilities": {"pos": "p", "neg": "n"}},
        {"probabilities": "both", "order": ["pos", "neg"]},
    ):
        found = read(file, **part)
        assert shares(found, "good").tolist() == [[0.25, 0.75]]
        assert found.empty == 1
    with pytest.raises(DataError, match="the logits of all 1 rows are probabilities") as told:
        read(file, logits="both", order=["pos", "neg"])
    assert "name them `probabilities`" in str(told.value)


def test_logits_are_taken_as_they_are(tmp_path: Path) -> None:
    """Logits need not sum to anything, and one row that sums to 1 by chance changes nothing."""
    file = tmp_path / "asked.csv"
    file.write_text('text,both\ngood,"[-0.5, 0]"\nodd,"[0.25 0.75]"\n')
    found = read(file, logits="both", order=["neg", "pos"])
    assert shares(found, "good", "odd").tolist() == [[0.378, 0.622]] * 2


@pytest.mark.parametrize("cells", ["0.1,0.9", '"0,1","0,9"'])
@pytest.mark.parametrize("missing", ["", "NA", "NaN", "null"])
def test_cells_are_read_as_those_of_predictions_are(cells: str, missing: str, tmp_path: Path) -> None:
    """Shares with a decimal comma are numbers, and what says that there is no number is an empty cell."""
    file = tmp_path / "asked.csv"
    file.write_text(f"text,n,p\ngood,{cells}\nodd,{missing},{missing}\n")
    found = read(file, probabilities={"neg": "n", "pos": "p"})
    assert shares(found, "good").tolist() == [[0.1, 0.9]]
    assert found.empty == 1


@pytest.mark.parametrize(
    ("cell", "part", "hint"),
    [
        ("10,90", {"probabilities": {"neg": "n", "pos": "p"}}, "divide them by 100"),
        ("10%,90%", {"probabilities": {"neg": "n", "pos": "p"}}, "divide them by 100"),
        ("-3,2", {"probabilities": {"neg": "n", "pos": "p"}}, "name them `logits`"),
        ("-inf,2", {"logits": {"neg": "n", "pos": "p"}}, "write -30"),
        ('"-1,5","2,5"', {"logits": {"neg": "n", "pos": "p"}}, "decimals with a point"),
        (",2", {"logits": {"neg": "n", "pos": "p"}}, "leave the cells of a text empty"),
        ("10;90,", {"probabilities": "n", "order": ["neg", "pos"]}, "a list is written as"),
        ('"0,1;0,9",', {"probabilities": "n", "order": ["neg", "pos"]}, "decimals with a point"),
        ('"[1, 2, 3]",', {"logits": "n", "order": ["neg", "pos"]}, "names the labels as the lists"),
    ],
)
def test_the_next_step_is_that_of_the_rule(
    cell: str, part: dict[str, Any], hint: str, tmp_path: Path
) -> None:
    """Percentages, decimal commas, infinities and lists of other kinds each have a remedy of their own."""
    file = tmp_path / "asked.csv"
    file.write_text(f"text,n,p\na,{cell}\n")
    with pytest.raises(DataError, match=re.escape(hint)):
        read(file, **part)


def test_objects_lead_to_scores_by_dots(tmp_path: Path) -> None:
    """What an API returned as an object per text is read where it stands."""
    file = tmp_path / "asked.jsonl"
    file.write_text(json.dumps({"text": "good", "scores": {"negative": 0.1, "pos": 0.9}}) + "\n")
    found = read(
        file, {"negative": "neg"}, probabilities={"negative": "scores.negative", "pos": "scores.pos"}
    )
    assert shares(found, "good").tolist() == [[0.1, 0.9]]


def test_columns_of_the_data_are_read_from_the_sources_that_have_them(tmp_path: Path) -> None:
    """Answers may stand in some of the data's own files; texts are cut as the data's are."""
    for name in ("train", "validation", "test"):
        (tmp_path / f"{name}.csv").write_text("text,label\nno answer here,pos\n")
    (tmp_path / "more.csv").write_text("text,llm\none two three,neg\n")
    data = DataPart(
        **{name: str(tmp_path / f"{name}.csv") for name in ("train", "validation", "test")},
        unlabelled=str(tmp_path / "more.csv"),
        max_words=2,
    )
    assert shares(read(None, label="llm", data=data), "one two").tolist() == [[0.95, 0.05]]
    with pytest.raises(DataError, match="no source of the data has the column 'gpt'"):
        read(None, label="gpt", data=data)


@pytest.mark.parametrize(
    ("content", "part", "words"),
    [
        ("text,llm\na,pos\nb,sad\nc,glad\n", {"label": "llm"}, ["2 rows", "row 2", "'sad'", "row 3", "neg"]),
        ("text,n,p\na,1,2\nb,inf,1\n", {"logits": {"neg": "n", "pos": "p"}}, ["row 2", "`n`", "no finite"]),
        ("text,n,p\na,1,x\n", {"logits": {"neg": "n", "pos": "p"}}, ["row 1", "`p` is 'x', no number"]),
        ("text,n,p\na,1,\n", {"logits": {"neg": "n", "pos": "p"}}, ["row 1", "`p` is empty", "are not"]),
        ("text,n,p\na,.7,.7\n", {"probabilities": {"neg": "n", "pos": "p"}}, ["row 1", "sum to 1.4"]),
        ("text,n,p\na,1.5,-.5\n", {"probabilities": {"neg": "n", "pos": "p"}}, ["row 1", "between 0 and 1"]),
        ("text,s\na,[1]\n", {"logits": "s", "order": ["neg", "pos"]}, ["row 1", "holds 1 numbers"]),
        ("text,s\na,3\n", {"logits": "s", "order": ["neg", "pos"]}, ["row 1", "no list of numbers"]),
        ("text,llm\na,\n", {"label": "llm"}, ["no row has an answer", "llm"]),
        ("text,gpt\na,pos\n", {"label": "llm"}, ["no column 'llm'", "gpt"]),
        ("text,llm\na,pos\na,neg\n", {"label": "llm"}, ["row 2", "another answer in", "row 1", "mean"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_file_row_and_rule(
    content: str, part: dict[str, Any], words: list[str], tmp_path: Path
) -> None:
    """Foreign labels, numbers that are none, probabilities that are none, and contradictions are refused."""
    file = tmp_path / "asked.csv"
    file.write_text(content.replace("[1]", '"[1]"'))
    with pytest.raises(DataError) as told:
        read(file, **part)
    assert [word for word in ["asked.csv", *words] if word not in str(told.value)] == []


@pytest.mark.parametrize("cell", [10**400, "[" * 100_000], ids=["digits", "nesting"])
def test_numbers_and_lists_beyond_what_is_read_are_named_by_row(cell: object, tmp_path: Path) -> None:
    """A whole number beyond any float, and brackets without an end, are refused as other cells are."""
    file = tmp_path / "asked.jsonl"
    file.write_text(json.dumps({"text": "a", "s": cell if isinstance(cell, str) else [cell, 1]}) + "\n")
    with pytest.raises(DataError, match=r"asked.jsonl: row 1: `s` is .*, no"):
        read(file, logits="s", order=["neg", "pos"])


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"logits": {"neg": "n"}}, "none is named for pos"),
        ({"logits": {"neg": "n", "pos": "p", "odd": "o"}}, "no label of the data is odd"),
        ({"logits": "s", "order": ["neg", "bad"]}, "no label of the data is bad; none is named for pos"),
    ],
)
def test_scores_are_needed_for_every_label(part: dict[str, Any], words: str, tmp_path: Path) -> None:
    """Scores for some labels only, or for others, are refused with the names."""
    with pytest.raises(RecipeError, match=words):
        read(tmp_path / "asked.csv", **part)


def test_several_answers_to_one_text_are_refused_removed_or_averaged(tmp_path: Path) -> None:
    """What was asked several times has the mean of its answers, or none."""
    file = tmp_path / "asked.csv"
    file.write_text("text,n,p\na,.2,.8\na,.2,.8\na,.8,.2\nb,.5,.5\n")
    part: dict[str, Any] = {"probabilities": {"neg": "n", "pos": "p"}}
    assert shares(read(file, conflicts="mean", **part), "a").tolist() == [[0.4, 0.6]]
    removed = read(file, conflicts="remove", **part)
    assert np.isnan(removed.recorded.of(["a"])).all()
    assert shares(removed, "b").tolist() == [[0.5, 0.5]]
    assert removed.contradicting == 1


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=2))
def test_logits_come_back_as_the_probabilities_that_they_are(values: list[float]) -> None:
    """Whatever finite logits are given, the answer kept is their softmax."""
    from compress.datasets.answer_files import _Reader

    part = AnswersPart(file="f", logits="s", order=("neg", "pos"))
    found = _Reader.of(part, LABELS, {}).probabilities({"s": values})
    assert found is not None
    odds = np.exp(np.array(values) - max(values))
    assert np.allclose(found, odds / odds.sum())
