"""Texts under several labels, and labels that only look different: told all at once, with a choice."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.datasets.loading import load_data
from compress.recipes.data_part import DataPart
from contract.errors import DataError
from tests.compress.conftest import toy_texts, write_csv

ROWS = toy_texts(90)
DISPUTED = [("one", "sport"), ("one", "tech"), ("ONE ", "tech"), ("two", "sport"), ("two", "tech")]


def test_contradictions_are_all_listed(tmp_path: Path) -> None:
    """Every row that contradicts an earlier one is named in one go, with the choices."""
    path = write_csv(tmp_path / "d.csv", [*ROWS, *DISPUTED])
    with pytest.raises(DataError, match=r"3 rows break a rule") as caught:
        load_data(DataPart(file=str(path)), seed=0)
    said = str(caught.value)
    assert all(f"row {number}: the same text" in said for number in (92, 93, 95))
    assert "data.conflicts: remove or majority" in said


@pytest.mark.parametrize(
    ("conflicts", "texts", "gone"), [("remove", set(), 5), ("majority", {("one", "tech")}, 3)]
)
def test_a_recipe_decides_on_contradictions(
    tmp_path: Path, conflicts: str, texts: set[tuple[str, str]], gone: int
) -> None:
    """`remove` leaves all such rows out; `majority` keeps the commonest label, and none where two tie."""
    path = write_csv(tmp_path / "d.csv", [*ROWS, *DISPUTED])
    data = load_data(DataPart.model_validate({"file": str(path), "conflicts": conflicts}), seed=0)
    kept = {
        (text, label) for text, label in zip(data.texts, data.label, strict=True) if text in {"one", "two"}
    }
    assert kept == texts
    assert data.removed_in_conflict == gone
    assert len(data) == len(ROWS) + len(texts)


def test_labels_that_only_look_different_are_refused_or_kept(tmp_path: Path) -> None:
    """`Sport` beside `sport` is refused by name unless the recipe says that they are meant apart."""
    more = [(f"another text {i}", "Sport") for i in range(6)]
    path = str(write_csv(tmp_path / "d.csv", [*ROWS, *more]))
    with pytest.raises(DataError, match=r"'Sport' and 'sport'(?s:.*)data\.lookalikes: keep"):
        load_data(DataPart(file=path), seed=0)
    kept = load_data(DataPart(file=path, lookalikes="keep"), seed=0)
    assert {"Sport", "sport"} <= set(kept.labels)


def test_rare_and_unknown_labels_are_all_listed(tmp_path: Path) -> None:
    """Every label with too few rows, and every row whose label training lacks, is named at once."""
    path = write_csv(tmp_path / "d.csv", [*ROWS, ("x y", "rare"), ("z w", "rarer")])
    with pytest.raises(DataError, match=r"(?s)row 91: the label 'rare' .*row 92: the label 'rarer'"):
        load_data(DataPart(file=str(path)), seed=0)
    files = {
        "train": str(write_csv(tmp_path / "train.csv", ROWS[:40])),
        "validation": str(write_csv(tmp_path / "validation.csv", ROWS[40:60])),
        "test": str(write_csv(tmp_path / "test.csv", [*ROWS[60:], ("x y", "new"), ("z w", "newer")])),
    }
    with pytest.raises(DataError, match=r"(?s)row 31: the label 'new' .*row 32: the label 'newer'"):
        load_data(DataPart(**files), seed=0)
