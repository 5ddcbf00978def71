"""Predictions tables as people write them: read alike, or refused with what is wrong and how often."""

from __future__ import annotations

import decimal
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import feather

import tables.predictions
from contract.errors import PredictionsError
from contract.predictions import OUTSIDE, Predictions, VariantPredictions, write_predictions
from sluicegate.main import cli
from tables.predictions import from_table, read_predictions

ROOT = Path(__file__).parents[2]
N = 40


def _columns(**changes: Any) -> dict[str, Any]:
    """Return 40 rows of two classes, 30 of them answered rightly; None takes a column away."""
    label = ["neg", "pos"] * (N // 2)
    answer = [value if row % 4 else "pos" for row, value in enumerate(label)]
    value: dict[str, Any] = {"label": label, "m/prediction": answer, "m/confidence": [0.9, 0.6] * (N // 2)}
    return {k: v for k, v in (value | changes).items() if v is not None}


def _table(**changes: Any) -> pa.Table:
    return pa.table(_columns(**changes))


NUMBERS = [0, 1] * (N // 2)
COLUMNS = {
    "bool": pa.array([False, True] * (N // 2)),
    "int8": pa.array(NUMBERS, pa.int8()),
    "uint64": pa.array(NUMBERS, pa.uint64()),
    "whole floats": pa.array(NUMBERS, pa.float64()),
    "float16": pa.array(np.array(NUMBERS, dtype=np.float16)),
    "decimal": pa.array([decimal.Decimal(n) for n in NUMBERS], pa.decimal128(5, 2)),
    "string_view": pa.array(["a", "b"] * (N // 2), pa.string_view()),
    "large_string": pa.array(["a", "b"] * (N // 2), pa.large_string()),
    "dictionary": pa.array(["a", "b"] * (N // 2)).dictionary_encode(),
    "dictionary of large strings": pa.array(["a", "b"] * (N // 2), pa.large_string()).dictionary_encode(),
    "text numbers": pa.array(["0", "1"] * (N // 2)),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_labels_of_every_type_are_read(kind: str) -> None:
    """Each type that holds names or whole numbers gives two labels, in label and in prediction."""
    found = from_table(_table(label=COLUMNS[kind], **{"m/prediction": COLUMNS[kind]}))
    assert len(found.labels) == 2
    assert found.correct("m").all()
    assert found.label.tolist() == NUMBERS


@pytest.mark.parametrize(("label", "prediction"), [
    ("int8", "whole floats"), ("whole floats", "int8"), ("text numbers", "int8"), ("uint64", "decimal"),
    ("string_view", "dictionary"),
])  # fmt: skip
def test_one_name_written_in_two_types_is_one_label(label: str, prediction: str) -> None:
    """Nulls made floats of one column and not of the other: 1 and 1.0 are one label."""
    found = from_table(_table(label=COLUMNS[label], **{"m/prediction": COLUMNS[prediction]}))
    assert found.correct("m").all()


def test_truth_values_and_their_names_are_one_label() -> None:
    """A bool label beside the text True, as str() of it writes."""
    found = from_table(_table(label=COLUMNS["bool"], **{"m/prediction": ["False", "True"] * (N // 2)}))
    assert found.labels == ("false", "true")
    assert found.correct("m").all()


def test_fractions_are_no_labels() -> None:
    """A score in the place of an answer is refused."""
    with pytest.raises(PredictionsError, match=r"a name or an integer, not 0\.3"):
        from_table(_table(**{"m/prediction": [0.3, 0.7] * (N // 2)}))


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float64()), pa.large_list(pa.float32()), pa.list_(pa.float16(), 2),
             pa.list_(pa.float64(), 2), pa.list_view(pa.float32()), pa.list_(pa.int64()), pa.string()],
)  # fmt: skip
def test_logits_of_every_list_type_are_read(kind: pa.DataType) -> None:
    """Lists of any width and precision, and text as CSV keeps it."""
    answer = [0 if value == "neg" else 1 for value in _columns()["m/prediction"]]
    rows = [[3, 0] if a == 0 else [0, 2] for a in answer]
    numbers: Any = [[float(v) for v in row] for row in rows]
    if kind == pa.list_(pa.float16(), 2):
        logits = pa.FixedSizeListArray.from_arrays(pa.array(np.array(numbers).ravel().astype(np.float16)), 2)
    elif kind == pa.list_(pa.int64()):
        logits = pa.array(rows, kind)
    else:
        logits = pa.array([str(row) for row in numbers] if kind == pa.string() else numbers, kind)
    found = from_table(_table(**{"m/logits": logits})).variants["m"].logits
    assert found is not None
    assert found.tolist() == numbers


def test_probabilities_in_the_place_of_logits_become_their_logarithms() -> None:
    """Rows that sum to 1 are taken for what they are, and a line says so."""
    rows = [[1.0, 0.0] if a == "neg" else [0.2, 0.8] for a in _columns()["m/prediction"]]
    found = from_table(_table(**{"m/logits": rows, "m/confidence": [max(row) for row in rows]}))
    assert "hold" in found.notes[0]
    assert found.variants["m"].logits is not None
    np.testing.assert_allclose(np.exp(found.variants["m"].logits)[:, 0], [r[0] for r in rows], atol=1e-6)


def test_logits_in_another_order_are_refused_with_the_share_and_the_order() -> None:
    """The model's order of classes is not the sorted one: told, with the order that fits."""
    order = ["sport", "art", "news"]
    label = [order[row % 3] for row in range(60)]
    logits = [[4.0 if name == own else 0.1 for name in order] for own in label]
    table = pa.table({"label": label, "m/prediction": label, "m/confidence": [0.9] * 60, "m/logits": logits})
    with pytest.raises(PredictionsError, match=r"in 100.0% of the rows: 60 of 60") as caught:
        from_table(table)
    assert "sport,art,news" in str(caught.value)
    assert from_table(table, labels=order).correct("m").all()


def test_ties_between_logits_contradict_nothing() -> None:
    """Of two equal logits either class may be the prediction, also after rounding to half precision."""
    rows = [[1.0, 1.0]] * N
    assert (
        from_table(_table(**{"m/logits": rows, "m/confidence": [0.5] * N})).variants["m"].logits is not None
    )
    close = pa.array([[8.0, 8.004]] * N, pa.list_(pa.float16()))
    from_table(_table(**{"m/logits": close}))


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        (
            {"m/prediction": ["LABEL_0", "LABEL_1"] * (N // 2)},
            "40 of 40 .*'LABEL_0', 'LABEL_1'.*'neg'",
        ),
        ({"m/prediction": ["NEG", "POS"] * (N // 2)}, "upper and lower case"),
        ({"m/prediction": NUMBERS}, "id2label"),
        ({"m/prediction": pa.nulls(N)}, "null in every row"),
        ({"m/confidence": [93.0, 71.5] * (N // 2)}, "percentages"),
        ({"m/confidence": [-0.1, -0.7] * (N // 2)}, "logarithms"),
        ({"m/confidence": [5.5, 700.0] * (N // 2)}, "softmax"),
        ({"m/confidence": [1.00001, 0.5] * (N // 2)}, r"outside in 20 of 40 rows \(first 0, 2"),
        ({"m/confidence": [True, False] * (N // 2)}, "numbers, not bool"),
        ({"m/confidence": None}, "no `m/confidence`"),
        ({"m/logits": [[1.0, 2.0, 3.0]] * N}, r"has 3 in 40 of 40(.|\n)*--labels"),
        ({"m/logits": [[1.0, 2.0], None] * (N // 2)}, "has null, 2 in 20 of 40"),
        ({"m/prediction": None, "m_prediction": ["neg"] * N}, "rename `m_prediction` to `m/prediction`"),
    ],
)
def test_contradictions_are_refused_with_counts(changes: dict[str, Any], rule: str) -> None:
    """What cannot be is named, counted, and comes with a remedy."""
    with pytest.raises(PredictionsError, match=rule):
        from_table(_table(**changes))


def test_the_probability_of_a_fixed_class_is_no_confidence() -> None:
    """`predict_proba(x)[:, 1]`, under 1/2 wherever the other class is predicted."""
    answer = _columns()["m/prediction"]
    positive = [0.1 if a == "neg" else 0.9 for a in answer]
    with pytest.raises(PredictionsError, match="it is the probability of 'pos'"):
        from_table(_table(**{"m/confidence": positive}))


def test_confidences_that_no_softmax_gives_are_refused() -> None:
    """Under 1 / classes, or falling where the largest probability rises."""
    answer = _columns()["m/prediction"] * 3
    size = np.linspace(0.1, 5, 3 * N)
    logits = [[s, 0.0] if a == "neg" else [0.0, s] for a, s in zip(answer, size, strict=True)]
    table = {"label": answer, "m/prediction": answer, "m/logits": logits}
    with pytest.raises(PredictionsError, match="under 1/2, which no probability"):
        from_table(pa.table(table | {"m/confidence": [0.3] * 3 * N}))
    with pytest.raises(PredictionsError, match="doubt"):
        from_table(pa.table(table | {"m/confidence": np.linspace(0.99, 0.6, 3 * N)}))


def test_rounding_beyond_one_is_clipped() -> None:
    """A softmax summed in half precision may exceed 1 a little."""
    found = from_table(_table(**{"m/confidence": [1 + 1e-7, -1e-7 + 0.7] * (N // 2)}))
    assert found.variants["m"].confidence.max() == 1.0


def test_a_variant_that_failed_on_some_rows_is_unsure_there() -> None:
    """Null answers are counted in a line, wrong, and at confidence 0, whatever stands beside them."""
    answer = _columns()["m/prediction"]
    answer[3] = answer[5] = None
    confidence: list[float | None] = [0.9] * N
    confidence[3] = None
    found = from_table(_table(**{"m/prediction": answer, "m/confidence": confidence}))
    assert found.notes == (
        "'m' has no answer in 2 of 40 rows (first 3, 5): wrong there, and taken to be unsure",
    )
    assert found.variants["m"].prediction[3] == OUTSIDE
    assert found.variants["m"].confidence[[3, 5]].tolist() == [0.0, 0.0]


def test_files_of_every_kind_hold_the_same_table(tmp_path: Path) -> None:
    """Parquet, a folder as Spark writes it, CSV in two dialects, packed CSV, JSON lines and Arrow agree."""
    frame = pd.DataFrame(_columns(**{"m/logits": [[3.0, 1.0] if a == "neg" else [0.0, 1.5]
                                                  for a in _columns()["m/prediction"]]}))  # fmt: skip
    table = pa.Table.from_pandas(frame)
    paths = {
        name: tmp_path / name
        for name in ("p.parquet", "spark", "p.csv", "p.tsv", "p.csv.gz", "p.jsonl", "p.arrow")
    }
    frame.iloc[::-1].iloc[::-1].to_parquet(paths["p.parquet"], index=True)
    paths["spark"].mkdir()
    (paths["spark"] / "_SUCCESS").touch()
    (paths["spark"] / ".part-0.parquet.crc").write_bytes(b"crc")
    pq.write_table(table.slice(0, 25), paths["spark"] / "part-00000-c000.snappy.parquet")
    pq.write_table(table.slice(25), paths["spark"] / "part-00001-c000.snappy.parquet")
    frame.to_csv(paths["p.csv"])
    frame.to_csv(paths["p.tsv"], sep="\t", index=False, encoding="utf-8-sig")
    frame.to_csv(paths["p.csv.gz"], sep=";", index=False)
    frame.to_json(paths["p.jsonl"], orient="records", lines=True)
    feather.write_feather(table, paths["p.arrow"])
    read = {name: read_predictions(path) for name, path in paths.items()}
    first = read["p.parquet"]
    assert len(first) == N
    for name, other in read.items():
        assert other.labels == first.labels, name
        assert other.label.tolist() == first.label.tolist(), name
        assert other.variants["m"].prediction.tolist() == first.variants["m"].prediction.tolist(), name
        np.testing.assert_allclose(other.variants["m"].confidence, first.variants["m"].confidence)
        mine, theirs = first.variants["m"].logits, other.variants["m"].logits
        assert mine is not None
        assert theirs is not None
        np.testing.assert_allclose(theirs, mine)
    assert len({p.sha256 for p in read.values()}) == len(read)


def test_a_folder_without_parts_is_refused(tmp_path: Path) -> None:
    """An empty folder, and a text file that calls itself Parquet, say what was expected."""
    with pytest.raises(PredictionsError, match="no file that ends in"):
        read_predictions(tmp_path)


def test_pandas_nullable_and_categorical_columns_are_read(tmp_path: Path) -> None:
    """Nullable integers, categories with one that never occurs, and an index that was kept."""
    frame = pd.DataFrame(
        {
            "label": pd.array([0, 1, None, 1] * 10, dtype="Int64"),
            "m/prediction": pd.Categorical([0, 1, 0, 1] * 10, categories=[2, 1, 0]),
            "m/confidence": pd.array([0.9, 0.8, 0.7, 0.6] * 10, dtype="Float32"),
            "slice": pd.Categorical(["vip", None, "vip", None] * 10),
        },
        index=range(100, 140),
    )
    frame.to_parquet(tmp_path / "p.parquet")
    found = read_predictions(tmp_path / "p.parquet")
    assert found.labels == (0, 1)
    assert found.label[:4].tolist() == [0, 1, -1, 1]
    assert found.slices["vip"].sum() == 20


POLARS = {
    "categorical": pl.col("label", "m/prediction").cast(pl.Categorical),
    "enum": pl.col("label", "m/prediction").cast(pl.Enum(["pos", "never", "neg"])),
    "array": pl.col("m/logits").cast(pl.Array(pl.Float32, 2)),
    "decimal": pl.col("m/confidence").cast(pl.Decimal(10, 4)),
}


@pytest.mark.parametrize("ending", ["parquet", "arrow", "ndjson"])
@pytest.mark.parametrize("kind", POLARS)
def test_polars_types_are_read(tmp_path: Path, kind: str, ending: str) -> None:
    """Categories, enums with a name that never occurs, arrays and decimals, in three formats."""
    label = _columns()["label"]
    frame = pl.DataFrame(
        {
            "label": label,
            "m/prediction": label,
            "m/confidence": [0.9] * N,
            "m/logits": [[3.0, 0.0] if value == "neg" else [0.0, 2.0] for value in label],
            "slice": [["vip"], []] * (N // 2),
        }
    ).with_columns(POLARS[kind])
    path = tmp_path / f"p.{ending}"
    write = {"parquet": frame.write_parquet, "arrow": frame.write_ipc, "ndjson": frame.write_ndjson}[ending]
    write(path)
    found = read_predictions(path)
    assert found.labels == ("neg", "pos")
    assert found.correct("m").all()
    assert found.variants["m"].logits is not None
    assert found.slices["vip"].sum() == N // 2


@st.composite
def _predictions(draw: st.DrawFn) -> Predictions:
    n = draw(st.integers(1, 20))
    words = st.text("abcdé 字", min_size=1).map(str.strip).filter(bool)
    names: Any = draw(
        st.one_of(
            st.lists(st.integers(-5, 50), min_size=2, max_size=5, unique=True),
            st.lists(words, min_size=2, max_size=5, unique=True),
        )
    )
    labels = tuple(sorted(names))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    label = rng.permutation(np.concatenate([np.arange(len(labels)), rng.integers(-1, len(labels), n)]))
    logits = rng.normal(size=(len(label), len(labels))).astype(np.float32)
    confidence = 1 - (1 - 1 / len(labels)) * rng.random(len(label)) * 0.9
    variants = {"v": VariantPredictions(logits.argmax(axis=1), confidence, logits)}
    return Predictions(labels, label, variants, slices={"s": rng.random(len(label)) < 0.9})


@settings(max_examples=25, deadline=None)
@given(_predictions(), st.sampled_from(["ours", "pandas", "category", "spark", "view"]))
def test_whoever_writes_a_table_it_reads_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, predictions: Predictions, writer: str
) -> None:
    """Our writer, pandas (plain and categorical), and types of other engines lose nothing."""
    path = tmp_path_factory.mktemp("tables") / "p.parquet"
    lookup: Any = [*predictions.labels, None]
    variant = predictions.variants["v"]
    assert variant.logits is not None
    if writer == "ours":
        write_predictions(path, predictions)
    else:
        frame = pd.DataFrame(
            {
                "label": pd.Series([lookup[i] for i in predictions.label]),
                "v/prediction": [lookup[i] for i in variant.prediction],
                "v/confidence": variant.confidence,
                "v/logits": list(variant.logits),
                "slice": [["s"] if inside else [] for inside in predictions.slices["s"]],
            }
        )
        if writer == "category":
            frame["v/prediction"] = frame["v/prediction"].astype("category")
        table = pa.Table.from_pandas(frame)
        if writer == "view" and pa.types.is_string(table["v/prediction"].type):
            place = table.column_names.index("v/prediction")
            table = table.set_column(place, "v/prediction", table["v/prediction"].cast(pa.string_view()))
        if writer == "spark":
            path.mkdir()
            pq.write_table(table.slice(0, 3), path / "part-00000.parquet")
            pq.write_table(table.slice(3), path / "part-00001.parquet")
        else:
            pq.write_table(table, path)
    back = read_predictions(path)
    assert back.labels == predictions.labels
    np.testing.assert_array_equal(back.label, predictions.label)
    np.testing.assert_array_equal(back.variants["v"].prediction, variant.prediction)
    np.testing.assert_array_equal(back.variants["v"].confidence, variant.confidence)
    np.testing.assert_array_equal(back.variants["v"].logits, variant.logits)
    np.testing.assert_array_equal(back.slices.get("s", np.zeros(len(back), bool)), predictions.slices["s"])


def test_the_documented_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's script makes files that its two commands tune and simulate, and the help names the page."""
    page = (ROOT / "docs/predictions.md").read_text()
    script = page.split("```python\n")[1].split("```")[0]
    commands = page.split("```sh\n")[1].split("```")[0].strip().splitlines()
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    for command in commands:
        done = CliRunner().invoke(cli, command.split()[1:])
        assert done.exit_code == 0, done.output
    policy = json.loads((tmp_path / "policy.json").read_text())
    assert policy["status"] == "certified"
    assert policy["reference"] == "large"
    for name in ("tune", "simulate"):
        assert "docs/predictions.md" in CliRunner().invoke(cli, [name, "--help"]).output


def test_lines_about_the_file_come_with_the_commands_output(tmp_path: Path) -> None:
    """Some foreign answers: one line on stderr, no Python warning, and the result on stdout."""
    answer = _columns()["m/prediction"]
    answer[0] = "unsure"
    pq.write_table(_table(**{"m/prediction": answer, "big/prediction": _columns()["label"],
                             "big/confidence": [1.0] * N}), tmp_path / "p.parquet")  # fmt: skip
    (tmp_path / "c.json").write_text('{"m": {"usd_per_1k": 1}, "big": {"usd_per_1k": 9}}')
    arguments = [
        "tune",
        "--predictions",
        "p.parquet",
        "--costs",
        "c.json",
        "--max-accuracy-drop",
        "0.1",
        "--json",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "sluicegate.main", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "note: 1 of 40 predictions of 'm' are outside the label set" in done.stderr
    assert "UserWarning" not in done.stderr
    assert json.loads(done.stdout)["reference"] == "big"


@pytest.mark.parametrize("relative", [True, False])
def test_folders_of_partitions_are_read_and_known_by_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relative: bool
) -> None:
    """Columns stand in names of folders, not in those above; a renamed one gives another hash."""
    monkeypatch.chdir(tmp_path)
    folder = (Path() if relative else tmp_path) / "slice=above" / "_p"
    table = pa.Table.from_pandas(pd.DataFrame(_columns()))
    for name, part in (("tune", table.slice(0, 25)), ("certify", table.slice(25))):
        (folder / f"split={name}").mkdir(parents=True)
        pq.write_table(part, folder / f"split={name}" / "part-00000.parquet")
    (folder / "README.md").write_text("from Spark")
    found = read_predictions(folder)
    assert found.slices == {}
    assert found.split is not None
    assert Counter(found.split.tolist()) == {"tune": 25, "certify": N - 25}
    (folder / "split=tune").rename(folder / "split=test")
    assert read_predictions(folder).sha256 != found.sha256


def test_predictions_that_change_while_they_are_read_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hash that a certificate names must be that of the rows that were read."""
    path = tmp_path / "part.parquet"
    pq.write_table(pa.Table.from_pandas(pd.DataFrame(_columns())), path)

    def written_meanwhile(*what: Any, **named: Any) -> Any:
        found = from_table(*what, **named)
        path.write_bytes(path.read_bytes() + b"more")
        return found

    monkeypatch.setattr(tables.predictions, "from_table", written_meanwhile)
    for place in (path, tmp_path):
        with pytest.raises(PredictionsError, match="changed while it was read"):
            read_predictions(place)
        pq.write_table(pa.Table.from_pandas(pd.DataFrame(_columns())), path)
