"""Folders as archives, the Hub and annotators leave them, and paths that lead to no table."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tables.labelled
from contract.errors import DataError, PredictionsError
from tables.files import Columns, Record
from tables.labelled import Labelled, read_labelled
from tables.predictions import read_predictions
from tables.sources import records_of


def _folder(path: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def _pairs(found: Labelled) -> list[tuple[str, str | None]]:
    return list(zip(found.texts, found.labels, strict=True))


def test_a_folder_per_split_and_class_is_read_without_what_lies_beside(tmp_path: Path) -> None:
    """The layout of the IMDB reviews: lists of addresses beside the classes are no class."""
    folder = _folder(
        tmp_path,
        {
            "train/pos/1_9.txt": "good",
            "train/neg/2_1.txt": "bad",
            "test/pos/3_10.TXT": "fine",
            "train/urls_pos.txt": "http://example.org",
            "train/labeledBow.feat": "9 0:1",
            "README": "reviews",
        },
    )
    assert sorted(_pairs(read_labelled(folder))) == [("bad", "neg"), ("fine", "pos"), ("good", "pos")]
    assert _pairs(read_labelled(folder, split="test")) == [("fine", "pos")]
    assert sorted(_pairs(read_labelled(folder / "train"))) == [("bad", "neg"), ("good", "pos")]


def test_what_editors_and_archives_leave_is_no_class(tmp_path: Path) -> None:
    """Checkpoints of notebooks, resource forks and folder settings are passed over."""
    folder = _folder(
        tmp_path,
        {
            "pos/1.txt": "x",
            "neg/2.txt": "y",
            "pos/._1.txt": b"\0\5\26\7",
            ".ipynb_checkpoints/1.txt": "z",
            "__MACOSX/pos/._1.txt": b"\0\5\26\7",
            "neg/.DS_Store": b"\0",
        },
    )
    assert _pairs(read_labelled(folder)) == [("y", "neg"), ("x", "pos")]


def test_texts_without_an_ending_are_read(tmp_path: Path) -> None:
    """Collections of mail and news number their files."""
    folder = _folder(tmp_path, {"alt.atheism/49960": "x", "sci.med/58045": "y"})
    assert _pairs(read_labelled(folder)) == [("x", "alt.atheism"), ("y", "sci.med")]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"a.csv": "text,label\nx,a\n", "b.csv": "text,klass\ny,b\n"},
            r"b\.csv: there is no column 'label', wh",
        ),
        (
            {"a.csv": "text\nx\n", "b.csv": "text,label\ny,b\n"},
            r"a\.csv: there is no column 'label', which b\.",
        ),
        (
            {"data.csv": "text,label\nx,a\n", "pos/1.txt": "x", "neg/1.txt": "x"},
            r"both tables \(data\.csv\) and CLASS/NAME\.txt(?s:.*)give /.*/data\.csv, or a folder",
        ),
        (
            {"train.json": '{"text": "x", "label": "a"}', "docs/a.txt": "x", "more/b.txt": "x"},
            r"both tables \(train\.json\)",
        ),
        (
            {"names.csv": "id,name\n0,a\n", "train.jsonl": '{"text": "x", "label": "a"}'},
            r"several kinds(?s:.*)such as /.*/train\.jsonl",
        ),
        ({"pos/1.txt": "x", "neg/a/2.txt": "y"}, r"2\.txt: lies neither in CLASS/ nor in SPLIT/CLASS/"),
        ({"pos/1.txt": "x", "test/neg/2.txt": "y"}, r"1\.txt: lies neither in CLASS/ nor"),
        ({"a/b/1.txt": "x"}, r"no CLASS/NAME\.txt(?s:.*)one per split"),
        ({"dataset_dict.json": "{"}, "not what save_to_disk writes"),
        ({"dataset_dict.json": '{"splits": ["../out"]}'}, r"'\.\./out' is no name of a split"),
        ({"dataset_dict.json": '{"splits": [".."]}'}, "is no name of a split"),
        ({"dataset_dict.json": "{}"}, "not what save_to_disk writes"),
        ({"dataset_dict.json": '{"splits": ["train"]}'}, "train: not what save_to_disk writes"),
        ({"state.json": "[]", "dataset_info.json": "{}"}, "not what save_to_disk writes"),
    ],
)
def test_folders_that_do_not_fit_together_are_refused(
    tmp_path: Path, files: dict[str, str | bytes], said: str
) -> None:
    """Shards of other columns, two layouts at once, and halves of what libraries write."""
    with pytest.raises(DataError, match=said):
        read_labelled(_folder(tmp_path, files))


def test_a_test_file_without_labels_stands_beside_labelled_ones(tmp_path: Path) -> None:
    """Competitions keep the labels of the test split: its file may lack the column."""
    folder = _folder(tmp_path, {"train.csv": "text,label\nx,a\n", "test.csv": "text\ny\n"})
    assert _pairs(read_labelled(folder, split="train")) == [("x", "a")]
    assert _pairs(read_labelled(folder)) == [("y", None), ("x", "a")]


def test_links_are_followed_and_dead_ones_refused(tmp_path: Path) -> None:
    """The Hub's cache holds links; one whose file is gone would lose rows without a word."""
    folder = _folder(tmp_path, {"blobs/abc": "text,label\nx,a\n", "snapshot/.keep": ""}) / "snapshot"
    (folder / "a.csv").symlink_to("../blobs/abc")
    (folder / "again").symlink_to(".")
    assert _pairs(read_labelled(folder)) == [("x", "a")]
    (folder / "b.csv").symlink_to("../blobs/gone")
    with pytest.raises(DataError, match=r"b\.csv: this link leads to no file"):
        read_labelled(folder)
    with pytest.raises(DataError, match="link that leads nowhere"):
        read_labelled(folder / "b.csv")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("-", "more than once: write them to a file"),
        ("~/d.csv", "did not replace ~"),
        (
            "https://user:secret@example.org/d.csv?sig=secret",
            r"https://…@example\.org/d\.csv\?…(?s:.*)download it first",
        ),
        ("s3://bucket/d.csv", "download it first"),
        (r"data\d.csv", r"folders are parted by /: data/d\.csv"),
        ("data/*.csv", "patterns are not read: give the folder"),
        ("trian.csv", r"in that folder are: train\.csv"),
        ("nowhere/d.csv", "there is no folder nowhere either"),
    ],
)
def test_a_path_that_leads_nowhere_gets_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, said: str
) -> None:
    """Standard input, addresses, patterns, other systems' paths and slips; no password is shown."""
    monkeypatch.chdir(_folder(tmp_path, {"train.csv": "text,label\nx,a\n"}))
    for read, error in ((read_labelled, DataError), (read_predictions, PredictionsError)):
        with pytest.raises(error, match=said) as caught:
            read(Path(given))
        assert "secret" not in str(caught.value)


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    """What gives its rows once cannot be hashed and read; opening it would wait for a writer."""
    os.mkfifo(tmp_path / "d.csv")
    with pytest.raises(DataError, match="pipe or a device"):
        read_labelled(tmp_path / "d.csv")
    with pytest.raises(PredictionsError, match="pipe or a device"):
        read_predictions(tmp_path / "d.csv")


def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hash that is kept must be that of the rows that were read, also below a folder."""
    file = _folder(tmp_path, {"train/d.csv": "text,label\nx,a\n"}) / "train/d.csv"

    def written_meanwhile(path: Path, columns: Columns) -> Iterator[Record]:
        yield from records_of(path, columns)
        with file.open("a") as more:
            more.write("y,b\n")

    monkeypatch.setattr(tables.labelled, "records_of", written_meanwhile)
    for given in (file, tmp_path):
        with pytest.raises(DataError, match="changed while it was read"):
            read_labelled(given)


def test_labels_that_mean_a_missing_value_elsewhere_are_told(tmp_path: Path) -> None:
    """Namibia stays a class, and a null that a program wrote as a word does not become one in silence."""
    file = _folder(tmp_path, {"d.csv": "text,label\nx,NA\ny,DE\nz,\nw,NULL\n"}) / "d.csv"
    found = read_labelled(file)
    assert found.labels == ("NA", "DE", None, "NULL")
    assert any("missing value elsewhere" in note and "NA (1), NULL (1)" in note for note in found.notes)


def test_text_inside_an_object_is_found_by_its_path(tmp_path: Path) -> None:
    """The refusal names the path that leads to the text."""
    table = pa.table({"text": [{"id": 1, "body": "x"}], "label": ["a"]})
    pq.write_table(table, tmp_path / "d.parquet")
    with pytest.raises(DataError, match=r"a name with a dot leads inside: text\.body"):
        read_labelled(tmp_path / "d.parquet")
    assert read_labelled(tmp_path / "d.parquet", text="text.body").texts == ("x",)


def test_every_ending_that_is_not_read_says_what_to_do(tmp_path: Path) -> None:
    """Archives, sheets, databases and collections of vectors."""
    for name in ("d.ods", "d.tar.gz", "d.sqlite", "d.orc", "d.csv.lz4", "d.txt"):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(DataError, match=r"are not read(?s:.*)(CSV|unpack|to_parquet|\.tsv)"):
            read_labelled(tmp_path / name)


@pytest.mark.parametrize("name", ["d.parquet.gz", "d.ARROW.zst"])
def test_parquet_that_was_packed_once_more_is_unpacked_first(tmp_path: Path, name: str) -> None:
    """The refusal names the command."""
    (tmp_path / name).write_bytes(b"x")
    for read, error in ((read_labelled, DataError), (read_predictions, PredictionsError)):
        with pytest.raises(error, match=f"(gunzip|unzstd) {name}: it is compressed inside"):
            read(tmp_path / name)


@pytest.mark.parametrize("name", ["train.csv", "train.json"])
def test_a_licence_beside_tables_is_no_class(tmp_path: Path, name: str) -> None:
    """One folder of texts is no set of classes where a table has the columns that are asked for."""
    table = "text,label\nx,a\n" if name == "train.csv" else '[{"text": "x", "label": "a"}]'
    folder = _folder(tmp_path, {name: table, "docs/licence.txt": "MIT"})
    assert _pairs(read_labelled(folder)) == [("x", "a")]


@pytest.mark.parametrize("split", [None, "train", "test"])
def test_classes_of_one_split_alone_are_told(tmp_path: Path, split: str | None) -> None:
    """The unlabelled reviews of aclImdb lie in a folder beside the classes."""
    files = ["train/pos/1", "train/neg/1", "train/unsup/1", "test/pos/1", "test/neg/1"]
    folder = _folder(tmp_path, {f"{name}.txt": name for name in files})
    notes = read_labelled(folder, split=split).notes
    assert notes == ("1 of 3 labels occur in one split alone: unsup (train)",)
    (folder / "train/unsup/1.txt").unlink()
    assert read_labelled(folder, split=split).notes == ()


def test_json_beside_shards_is_metadata(tmp_path: Path) -> None:
    """A clone from the Hub holds descriptions beside its data."""
    folder = _folder(tmp_path, {"a.csv": "text,label\nx,a\n", "dataset_infos.json": json.dumps({})})
    assert _pairs(read_labelled(folder)) == [("x", "a")]
