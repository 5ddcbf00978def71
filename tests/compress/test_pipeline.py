"""A recipe becomes a family; finished steps are never run again; interruption leaves nothing half made."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from compress.pipeline import dry_run, run_pipeline
from compress.plan import plan_steps, select
from compress.recipe import Recipe
from contract.errors import RecipeError, SluiceError
from contract.family import read_family
from contract.predictions import read_costs, read_predictions
from runtime.load import load_variant


class Told:
    """Remembers what a run told; raises at a step if asked."""

    def __init__(self, *, interrupt_at: str | None = None) -> None:
        self.ended: list[tuple[str, str]] = []
        self._interrupt_at = interrupt_at

    def begin(self, step: str, title: str) -> None:
        """A step starts."""

    def update(self, step: str, share: float, words: str = "") -> None:
        """Interrupt in the middle of the chosen step."""
        if step == self._interrupt_at and share > 0:
            raise KeyboardInterrupt

    def end(self, step: str, outcome: str, words: str = "") -> None:
        """Remember."""
        self.ended.append((step, outcome))

    def of(self, outcome: str) -> list[str]:
        """Return the steps that ended so."""
        return [step for step, found in self.ended if found == outcome]


def files_of(folder: Path) -> set[str]:
    """Return every path below a folder."""
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_the_whole_path_on_toy_data(toy_recipe: Recipe, tmp_path: Path) -> None:
    """Every variant is made, verified, calibrated, measured and served again as it was predicted.

    Then: a second run reuses all steps; without torch in a fresh process; a changed student is made again
    with what follows from it and nothing else.
    """
    out = tmp_path / "family"
    family = run_pipeline(toy_recipe, out)
    assert read_family(out) == family
    assert family.names == ("teacher", "student", "pruned", "student-int8", "linear")
    assert {v.name: v.kind for v in family.variants} == {
        "teacher": "teacher", "student": "distilled", "pruned": "pruned", "student-int8": "quantized",
        "linear": "linear",
    }  # fmt: skip
    for variant in family.variants:
        assert variant.accuracy is not None
        assert variant.accuracy_interval is not None
        assert variant.latency_at() is not None
        assert variant.latency_at(concurrency=4) is not None
        assert variant.peak_memory_bytes
        assert variant.usd_per_1k
        assert variant.training is not None
        assert variant.tier is not None or variant.accuracy_delta
        assert (variant.verification is None) == (variant.name == "linear")
        assert (variant.accuracy_delta is None) == (variant.name == "teacher")
        assert "teams" in variant.accuracy_per_slice
        assert set(variant.per_class) == set(family.labels)
    assert family.variant("teacher").accuracy > 0.9  # type: ignore[operator]
    assert family.variant("student-int8").batching == "single"
    pruned, teacher = family.variant("pruned"), family.variant("teacher")
    assert pruned.parameters is not None
    assert teacher.parameters is not None
    assert pruned.parameters < teacher.parameters

    predictions = read_predictions(out / "predictions.parquet", labels=family.labels)
    assert set(np.unique(predictions.split)) == {"tune", "certify", "test"}  # type: ignore[arg-type]
    assert set(read_costs(out / "costs.json")) == set(family.names)
    import pyarrow.parquet as pq

    texts = pq.read_table(out / "data.parquet")["text"].to_pylist()
    for name in family.names:
        again = load_variant(out, family, name).logits(texts)
        assert np.array_equal(again.argmax(1), predictions.variants[name].prediction)

    told = Told()
    assert run_pipeline(toy_recipe, out, progress=told).variants == family.variants
    assert told.of("done") == []
    (tmp_path / "recipe.json").write_text(toy_recipe.model_dump_json(by_alias=True))
    assert all(planned.finished for planned in dry_run(tmp_path / "recipe.json", out))
    code = (
        "import sys; from pathlib import Path; from compress.pipeline import run_pipeline;"
        "run_pipeline(Path(sys.argv[1]), Path(sys.argv[2])); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "recipe.json"), str(out)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "False"

    student = toy_recipe.variants[0].model_copy(update={"layers": (2,)})
    changed = toy_recipe.model_copy(update={"variants": (student, *toy_recipe.variants[1:])})
    told = Told()
    run_pipeline(changed, out, progress=told)
    assert told.of("done") == [
        "student", "student.export", "student.measure", "student-int8", "student-int8.measure"
    ]  # fmt: skip
    assert read_family(out).variant("student").step != family.variant("student").step
    named = {v.artifact.path for v in read_family(out).variants}
    assert {p for p in files_of(out) if p.startswith("variants/") and "tokenizer" not in p} == named


@pytest.mark.parametrize("step", ["teacher", "teacher.measure", "linear"])
def test_interruption_leaves_nothing_half_made(toy_recipe: Recipe, tmp_path: Path, step: str) -> None:
    """Ctrl-C in training, measuring or the linear stage: no working folder, no family; then it goes on."""
    few = toy_recipe.model_copy(update={"variants": toy_recipe.variants[-1:]})
    out = tmp_path / "family"
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(few, out, progress=Told(interrupt_at=step))
    assert not [name for name in files_of(out) if "working" in name or name.endswith(".tmp")]
    assert not (out / "family.json").exists()
    told = Told()
    run_pipeline(few, out, progress=told)
    names = [s.name for s in plan_steps(few)]
    assert told.of("reused") == names[: names.index(step)]
    assert read_family(out).names == ("teacher", "linear")


def test_only_makes_what_a_step_needs(toy_recipe: Recipe, tmp_path: Path) -> None:
    """`--only linear` makes the linear stage and the teacher that every family has."""
    family = run_pipeline(toy_recipe, tmp_path / "family", only="linear")
    assert family.names == ("teacher", "linear")
    steps = plan_steps(toy_recipe)
    assert [s.name for s in select(steps, "student.export")] == [
        "data",
        "teacher",
        "student",
        "student.export",
    ]
    with pytest.raises(RecipeError, match="one of: data, teacher"):
        select(steps, "nothing")


def test_a_dry_run_writes_nothing(toy_recipe: Recipe, tmp_path: Path) -> None:
    """The plan is told without a folder being made."""
    planned = dry_run(toy_recipe, tmp_path / "family")
    assert [p.finished for p in planned] == [None] * len(planned)
    assert planned[0].key is not None
    assert planned[1].key is None
    assert not (tmp_path / "family").exists()


def test_changed_data_change_the_key(toy_recipe: Recipe, tmp_path: Path) -> None:
    """One more row in the file, and nothing made from the old ones is reused."""
    first = dry_run(toy_recipe, tmp_path / "family")[0].key
    assert toy_recipe.data.file is not None
    with Path(toy_recipe.data.file).open("a", encoding="utf-8") as file:
        file.write("one more text about tax,money\n")
    assert dry_run(toy_recipe, tmp_path / "family")[0].key != first


def test_a_failing_step_names_itself(toy_recipe: Recipe, tmp_path: Path) -> None:
    """What a recipe asks of a parent that has no such layer is an error that names the variant."""
    student = toy_recipe.variants[0].model_copy(update={"layers": (7,)})
    broken = toy_recipe.model_copy(update={"variants": (student,)})
    with pytest.raises(SluiceError, match="'student': no layer 7"):
        run_pipeline(broken, tmp_path / "family")
    assert not (tmp_path / "family" / "family.json").exists()


def test_limits_of_the_recipe_are_judged(toy_recipe: Recipe, tmp_path: Path) -> None:
    """A variant that is too slow or loses a slice that must hold says which limit it breaks."""
    limits = toy_recipe.limits.model_copy(update={"latency_p99_ms": 1e-6, "slices": {"nowhere": 0.1}})
    few = toy_recipe.model_copy(update={"variants": (), "limits": limits})
    (teacher,) = run_pipeline(few, tmp_path / "family").variants
    assert len(teacher.failed_limits) == 2
    assert "p99" in teacher.failed_limits[1]
    assert json.loads((tmp_path / "family" / "family.json").read_text())["variants"][0]["failed_limits"]
