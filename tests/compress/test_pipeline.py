"""A recipe becomes a family; finished steps are never run again; interruption leaves nothing half made."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from compress.assemble import NEW
from compress.pipeline import dry_run, run_pipeline, running
from compress.plan import plan_steps
from compress.recipes.recipe import Recipe
from compress.standing import select
from contract.costs import read_costs
from contract.errors import RecipeError, SluiceError
from contract.family import read_family
from runtime.load import load_variant
from tables.predictions import read_predictions


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

    def tell(self, step: str, words: str) -> None:
        """Nothing."""

    def end(self, step: str, outcome: str, words: str = "") -> None:
        """Remember."""
        self.ended.append((step, outcome))

    def of(self, outcome: str) -> list[str]:
        """Return the steps that ended so."""
        return [step for step, found in self.ended if found == outcome]


def files_of(folder: Path) -> set[str]:
    """Return every path below a folder."""
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def made(toy_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The family of the toy recipe. Tests that change something do so in a copy."""
    out = tmp_path_factory.mktemp("made") / "family"
    run_pipeline(toy_recipe, out)
    return out


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """A copy of the toy family, finished steps included."""
    return Path(shutil.copytree(made, tmp_path / "family"))


def forget(out: Path, *steps: str) -> None:
    """Remove the results of some steps, and the family."""
    for step in steps:
        (folder,) = (out / ".steps").glob(f"{step}@*")
        shutil.rmtree(folder)
    (out / "family.json").unlink()


def test_every_variant_is_fully_described(toy_recipe: Recipe, made: Path) -> None:
    """Every variant is verified, calibrated and measured, with its deltas to the teacher."""
    family = read_family(made)
    assert {v.name: v.kind for v in family.variants} == {
        "teacher": "teacher", "student": "distilled", "pruned": "pruned", "student-int8": "quantized",
        "linear": "linear",
    }  # fmt: skip
    for variant in family.variants:
        for value in (
            variant.accuracy, variant.accuracy_interval, variant.macro_f1_interval, variant.ece_after,
            variant.latency_at(), variant.latency_at(batch=8), variant.latency_at(concurrency=4),
            variant.peak_memory_bytes, variant.usd_per_1k, variant.training, variant.speed_up,
        ):  # fmt: skip
            assert value is not None
        assert (variant.verification is None) == (variant.name == "linear")
        own = variant.name == "teacher"
        teams = variant.per_slice["teams"]
        for delta in (
            variant.accuracy_delta, variant.accuracy_delta_interval, variant.macro_f1_delta,
            variant.macro_f1_delta_interval, teams.accuracy_delta, teams.accuracy_delta_interval,
        ):  # fmt: skip
            assert (delta is None) == own
        assert (teams.n or 0) > 0
        assert set(variant.per_class) == set(family.labels)
        assert all(("recall_delta" in found) != own for found in variant.per_class.values())
        assert variant.latency_at(batch=8, concurrency=4) is not None
        alone = variant.latency_at()
        assert alone is not None
        assert (alone.mean_tokens or 0) > 0
        assert variant.cpu_seconds_per_1k is not None
        assert (variant.energy_wh_per_1k is None) == (variant.energy_provenance == "none")
        assert variant.training is not None
        assert variant.training.steps == (variant.name,)
        assert variant.tier in {"critical", "high", "medium", None}
        assert variant.failed_limits == ()
    assert (family.variant("teacher").accuracy or 0) > 0.9
    assert family.variant("student-int8").batching == "single"
    assert {v.name: v.technique for v in family.variants} == {
        "teacher": "teacher", "student": "distil", "pruned": "prune", "student-int8": "quantize",
        "linear": "linear",
    }  # fmt: skip
    done = [planned.step.name for planned in dry_run(toy_recipe, made)]
    assert [step.name for step in family.steps] == done
    assert all(step.seconds >= 0 and step.energy_provenance for step in family.steps)
    assert (family.variant("pruned").parameters or 0) < (family.variant("teacher").parameters or 0)


def test_what_was_predicted_is_what_is_served(made: Path) -> None:
    """The predictions table holds the answers that the loaded variants give, row by row."""
    family = read_family(made)
    predictions = read_predictions(made / "predictions.parquet", labels=family.labels)
    assert predictions.split is not None
    assert set(predictions.split.tolist()) == {"tune", "certify", "test"}
    assert set(read_costs(made / "costs.json")) == set(family.names)
    texts = pq.read_table(made / "data.parquet")["text"].to_pylist()
    for name in family.names:
        again = load_variant(made, family, name).logits(texts)
        assert np.array_equal(again.argmax(1), predictions.variants[name].prediction)


def test_a_second_run_reuses_everything_without_torch(toy_recipe: Recipe, copy: Path, tmp_path: Path) -> None:
    """Nothing is made again, and a fresh process does not even import torch."""
    recipe = tmp_path / "recipe.json"
    recipe.write_text(toy_recipe.model_dump_json(by_alias=True))
    before = read_family(copy)
    assert all(planned.finished for planned in dry_run(recipe, copy))
    code = (
        "import sys; from pathlib import Path; from compress.pipeline import run_pipeline;"
        "run_pipeline(Path(sys.argv[1]), Path(sys.argv[2])); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(recipe), str(copy)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
    assert read_family(copy).variants == before.variants


def test_a_changed_variant_is_made_again_alone(toy_recipe: Recipe, copy: Path) -> None:
    """A student of another layer is made again with what follows from it; files of the family before stay."""
    before = read_family(copy)
    student = toy_recipe.variants[0].model_copy(update={"layers": (2,)})
    changed = toy_recipe.model_copy(update={"variants": (student, *toy_recipe.variants[1:])})
    told = Told()
    family = run_pipeline(changed, copy, progress=told)
    assert told.of("done") == [
        "student", "student.export", "student.measure", "student-int8", "student-int8.measure"
    ]  # fmt: skip
    assert family.variant("student").step != before.variant("student").step
    named = {v.artifact.path for v in (*family.variants, *before.variants)}
    assert {p for p in files_of(copy) if p.startswith("variants/") and "tokenizer" not in p} == named
    (copy / "variants" / "mine").mkdir()
    family = run_pipeline(toy_recipe, copy)
    named = {v.artifact.path for v in (*family.variants, *read_family(copy).variants)}
    assert named <= files_of(copy)
    assert (copy / "variants" / "mine").is_dir()


def test_a_run_that_changes_nothing_leaves_the_family_as_it_is(toy_recipe: Recipe, copy: Path) -> None:
    """A second run beside a gateway keeps manifest and hash, so that replicas it starts again still fit."""
    before, written = (copy / "family.json").read_bytes(), read_family(copy)
    assert run_pipeline(toy_recipe, copy).sha256 == written.sha256
    assert (copy / "family.json").read_bytes() == before
    assert written.model_copy(update={"created_at": "later"}).sha256 == written.sha256
    assert written.model_copy(update={"name": "other"}).sha256 != written.sha256


@pytest.mark.parametrize("step", ["teacher.measure", "linear"])
def test_an_interrupted_run_goes_on(toy_recipe: Recipe, copy: Path, step: str) -> None:
    """Ctrl-C in the middle of a step leaves no half-made file; the next run makes that step alone."""
    forget(copy, step)
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(toy_recipe, copy, progress=Told(interrupt_at=step))
    assert not [name for name in files_of(copy) if "working" in name or name.endswith(".tmp")]
    assert not (copy / "family.json").exists()
    told = Told()
    run_pipeline(toy_recipe, copy, progress=told)
    assert told.of("done")[0] == step
    assert "teacher" in told.of("reused")
    assert read_family(copy).names == ("teacher", "student", "pruned", "student-int8", "linear")


def test_interrupted_training_leaves_the_steps_before_it(toy_recipe: Recipe, tmp_path: Path) -> None:
    """Ctrl-C while the teacher trains: its folder is gone, the data step stays."""
    out = tmp_path / "family"
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(toy_recipe, out, progress=Told(interrupt_at="teacher"))
    assert [p.step.name for p in dry_run(toy_recipe, out) if p.finished] == ["data"]
    assert {name.partition("@")[0] for name in files_of(out)} == {".steps/lock", ".steps/data"}


def test_only_makes_what_a_step_needs(toy_recipe: Recipe, copy: Path) -> None:
    """`--only linear` makes the linear stage; the family holds what is done."""
    forget(copy, "linear", "pruned.measure")
    told = Told()
    family = run_pipeline(toy_recipe, copy, only="linear", progress=told)
    assert told.of("done")[0] == "linear"
    assert family.names == ("teacher", "student", "student-int8", "linear")
    steps = plan_steps(toy_recipe)
    needed = [step.name for step in select(steps, "student.export")]
    assert needed == ["data", "teacher", "student", "student.export"]
    with pytest.raises(RecipeError, match="one of: data, teacher"):
        select(steps, "nothing")


def test_a_dry_run_writes_nothing(toy_recipe: Recipe, tmp_path: Path) -> None:
    """The plan is told without a folder being made."""
    planned = dry_run(toy_recipe, tmp_path / "family")
    assert [p.finished for p in planned] == [None] * len(planned)
    assert planned[0].key is not None
    assert planned[1].key is None
    assert not (tmp_path / "family").exists()


def test_the_content_of_data_decides_and_not_their_place(
    toy_recipe: Recipe, copy: Path, tmp_path: Path
) -> None:
    """Moved data are the same data; one more row, and nothing made from the old ones is reused."""
    assert toy_recipe.data.file is not None
    moved = tmp_path / "moved.csv"
    moved.write_bytes(Path(toy_recipe.data.file).read_bytes())
    data = toy_recipe.data.model_copy(update={"file": str(moved)})
    recipe = toy_recipe.model_copy(update={"data": data})
    assert all(planned.finished for planned in dry_run(recipe, copy))
    with moved.open("a", encoding="utf-8") as file:
        file.write("one more text about tax,money\n")
    assert not any(planned.finished for planned in dry_run(recipe, copy))


def test_a_failing_step_names_itself(toy_recipe: Recipe, copy: Path) -> None:
    """A recipe that asks for a layer that the parent lacks is an error that names the variant."""
    student = toy_recipe.variants[0].model_copy(update={"layers": (7,)})
    broken = toy_recipe.model_copy(update={"variants": (student,)})
    with pytest.raises(SluiceError, match="'student': no layer 7"):
        run_pipeline(broken, copy)


def test_limits_of_the_recipe_are_judged(toy_recipe: Recipe, copy: Path) -> None:
    """A variant that is too slow, or whose guarded slice has no rows, says which limit it breaks."""
    limits = toy_recipe.limits.model_copy(update={"latency_p99_ms": 1e-6, "slices": {"nowhere": 0.1}})
    few = toy_recipe.model_copy(update={"variants": (), "limits": limits})
    (teacher,) = run_pipeline(few, copy).variants
    assert len(teacher.failed_limits) == 2
    assert "p99" in teacher.failed_limits[1]


def test_sizes_of_a_sparse_variant_reach_the_manifest(toy_recipe: Recipe, copy: Path) -> None:
    """What the making step says of its zeros and its zipped size stands in the manifest."""
    (record,) = (copy / ".steps").glob("pruned@*/step.json")
    raw = json.loads(record.read_text())
    raw["result"] |= {"sparsity": 0.75, "compressed_bytes": 1234}
    record.write_text(json.dumps(raw))
    few = toy_recipe.model_copy(update={"variants": toy_recipe.variants[1:2]})
    variant = run_pipeline(few, copy).variant("pruned")
    assert (variant.sparsity, variant.compressed_bytes) == (0.75, 1234)


@pytest.mark.parametrize(
    ("limits", "variants", "code"),
    [
        ({"latency_p99_ms": 1e-6}, None, 3),
        ({"latency_p99_ms": 1e-6}, 0, 0),
        ({"accuracy_drop": 1.0}, None, 0),
    ],
)
def test_the_command_exits_3_when_no_variant_passes(
    toy_recipe: Recipe, copy: Path, tmp_path: Path, limits: dict[str, float], variants: int | None, code: int
) -> None:
    """No variant within a limit is exit code 3 with the reasons, the family written; a teacher alone is 0."""
    raw = json.loads(toy_recipe.model_dump_json(by_alias=True))
    raw |= {"limits": limits, "variants": raw["variants"][:variants]}
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(raw))
    command = [sys.executable, "-m", "sluicegate.main", "compress", str(recipe), "--out", str(copy), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    told = [variant["failed_limits"] for variant in json.loads(done.stdout)["variants"]]
    assert all(bool(broken) == ("latency_p99_ms" in limits) for broken in told)
    assert ("no variant passes" in done.stderr) == (code == 3)


def test_an_assembly_that_is_cut_off_leaves_the_family_as_it_was(
    toy_recipe: Recipe, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of a new family takes its place before all of it is there; the next run goes on from there."""
    before = read_family(copy)
    fewer = toy_recipe.model_copy(update={"variants": toy_recipe.variants[:1]})

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("compress.assemble.write_costs", stop)
        with pytest.raises(KeyboardInterrupt):
            run_pipeline(fewer, copy)
    assert read_family(copy) == before
    assert run_pipeline(fewer, copy) == read_family(copy) != before
    assert not (copy / NEW).exists()


def test_a_users_price_of_energy_is_metered_and_measured_anew(toy_recipe: Recipe, tmp_path: Path) -> None:
    """`target.watts_per_core` takes CodeCarbon's place, and nothing measured at another price is reused."""
    priced = toy_recipe.model_copy(
        update={"target": toy_recipe.target.model_copy(update={"watts_per_core": 4.5})}
    )
    with running(priced, tmp_path) as run:
        assert run.meter().provenance == "user-constant"
    changed = {
        step.kind
        for step, before in zip(plan_steps(priced), plan_steps(toy_recipe), strict=True)
        if step.config != before.config
    }
    assert "measure" in changed
    assert not changed & {"data", "teacher", "distil", "export"}
