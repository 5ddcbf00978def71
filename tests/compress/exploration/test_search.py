"""A search ends in a family worth keeping, goes on where it was interrupted, and need not be repeated."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from compress.datasets.data import DATA, read_dataset
from compress.exploration.comparison import Ratio
from compress.exploration.explore import explore
from compress.exploration.genome import Candidate, TeacherSize, space_of
from compress.exploration.pareto import Point, dominates
from compress.exploration.search import RECORD, SEARCHED, Searched, run_search
from compress.pipeline import run_pipeline
from compress.recipes.learning_parts import Training
from compress.recipes.parts import QuantizePart
from compress.recipes.recipe import Recipe, load_recipe
from compress.recipes.search_part import SearchPart, SearchSpace
from contract.errors import RecipeError
from contract.family import read_family
from runtime.api import LoadedVariant
from sluicegate.compress_cmd import command

SIZE = TeacherSize(depth=3, heads=4, neurons=48, hidden=32)


class Told:
    """Remembers how steps ended; interrupts when so many candidates have begun."""

    def __init__(self, *, interrupt_after: int | None = None) -> None:
        self.ended: list[tuple[str, str]] = []
        self._left = interrupt_after

    def begin(self, step: str, title: str) -> None:
        """Interrupt at a candidate."""
        if self._left is not None and step.startswith("try-"):
            if self._left == 0:
                raise KeyboardInterrupt
            self._left -= 1

    def update(self, step: str, share: float, words: str = "") -> None:
        """Nothing."""

    def tell(self, step: str, words: str) -> None:
        """Nothing."""

    def end(self, step: str, outcome: str, words: str = "") -> None:
        """Remember."""
        self.ended.append((step, outcome))

    def of(self, outcome: str, prefix: str = "") -> list[str]:
        """Return the steps that ended so."""
        return [step for step, found in self.ended if found == outcome and step.startswith(prefix)]


@pytest.fixture(scope="module")
def recipe(toy_recipe: Recipe) -> Recipe:
    """The toy recipe with a small search in place of its variants."""
    brief = Training(epochs=1, learning_rate=0.003, precision="fp32")
    search = SearchPart(
        space=SearchSpace(
            layers=((0,), (0, 2)), heads=(4,), neurons=(16,), hidden=(32,), techniques=("distil",)
        ),
        population=4,
        generations=2,
        survivors=2,
        short=brief,
        full=brief.model_copy(update={"epochs": 2}),
        augment=None,
        short_accuracy_drop=1.0,
        accuracy_drop=1.0,
    )
    return toy_recipe.model_copy(update={"variants": (), "search": search})


@dataclass(frozen=True)
class Made:
    """A search that was interrupted at its second candidate and run again, in a folder."""

    found: Searched
    out: Path
    interrupted: Told
    resumed: Told


@pytest.fixture(scope="module")
def made(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A finished search."""
    out = tmp_path_factory.mktemp("searched") / "family"
    interrupted, resumed = Told(interrupt_after=1), Told()
    with pytest.raises(KeyboardInterrupt):
        run_search(recipe, out, progress=interrupted)
    return Made(run_search(recipe, out, progress=resumed), out, interrupted, resumed)


def test_an_interrupted_search_goes_on(made: Made) -> None:
    """After Ctrl-C at the second candidate the first is not trained again, nor the teacher."""
    (first,) = made.interrupted.of("done", "try-")
    assert made.resumed.of("reused", "try-") == [first]
    (second,) = made.resumed.of("done", "try-")
    assert second != first
    assert {"teacher", "teacher.measure"} <= set(made.resumed.of("reused"))


def test_a_search_ends_in_a_family_of_which_none_dominates_another(made: Made) -> None:
    """What is kept is the family beside the teacher, and no variant is dominated on validation."""
    found, family = made.found, read_family(made.out)
    assert found.kept
    assert set(family.names) == {"teacher", *found.kept}
    points = [found.trained[name] for name in found.kept]
    assert not any(dominates(one, other) for one in points for other in points)
    assert set(found.kept) <= set(found.trained) <= set(found.tried)
    assert len(found.trained) <= 2
    assert len(found.tried) == 4


def test_kept_variants_come_from_listed_ones(made: Made) -> None:
    """What variants of the search were made from is in the family, or unlisted in its recipe."""
    found, family = made.found, read_family(made.out)
    parts = {part.name for part in found.recipe.variants}
    assert set(found.recipe.unlisted) == parts - set(found.kept)
    assert all(variant.parent in family.names for variant in family.variants if variant.name in found.kept)


def test_an_unlisted_stepping_stone_counts_in_the_training_of_what_follows(
    made: Made, tmp_path: Path
) -> None:
    """An INT8 variant whose FP32 stepping stone is not in the family stands for the stone's training too."""
    stone = next(part for part in made.found.recipe.variants if part.kind == "distil")
    small = QuantizePart(kind="quantize", name="small", parent=stone.name)
    recipe = made.found.recipe.model_copy(update={"variants": (stone, small), "unlisted": (stone.name,)})
    copy = Path(shutil.copytree(made.out, tmp_path / "family"))
    variant = run_pipeline(recipe, copy).variant("small")
    assert variant.parent == "teacher"
    assert variant.training is not None
    assert stone.name in variant.training.steps


def test_a_second_search_trains_nothing(recipe: Recipe, made: Made) -> None:
    """The same search again takes the same way through finished candidates and leaves the family alone."""
    told = Told()
    second = run_search(recipe, made.out, progress=told)
    assert told.of("done") == []
    assert set(told.of("reused", "try-")) == set(made.resumed.of("done", "try-")) | set(
        made.resumed.of("reused", "try-")
    )
    assert (second.kept, second.tried) == (made.found.kept, made.found.tried)
    assert second.family.sha256 == made.found.family.sha256


def test_what_was_found_can_be_made_again_without_the_search(made: Made) -> None:
    """searched.yaml is a plain recipe, and all of its steps are finished."""
    found, out = made.found, made.out
    read = load_recipe(out / SEARCHED)
    assert read == found.recipe
    assert read.search is None
    told = Told()
    assert run_pipeline(read, out, progress=told).sha256 == found.family.sha256
    assert told.of("done") == []


def test_the_record_says_what_became_of_every_candidate(made: Made) -> None:
    """search.json has every candidate's short figures, the survivors' full ones, and which were kept."""
    found, out = made.found, made.out
    record = json.loads((out / RECORD).read_text())
    assert record["split"] == "validation"
    by_name = {item["name"]: item for item in record["candidates"]}
    assert set(by_name) == set(found.tried)
    assert {name for name, item in by_name.items() if item["full"]} == set(found.trained)
    assert {name for name, item in by_name.items() if item["kept"]} == set(found.kept)


def test_a_survivor_that_diverges_in_full_is_left_out(recipe: Recipe, made: Made, tmp_path: Path) -> None:
    """Its short training worked and its full one does not: the search says why, and ends in a family."""
    copy = Path(shutil.copytree(made.out, tmp_path / "family"))
    assert recipe.search is not None
    full = Training(epochs=9, learning_rate=1e38, precision="fp32")
    search = recipe.search.model_copy(update={"full": full})
    found = run_search(recipe.model_copy(update={"search": search}), copy)
    assert found.tried
    assert found.family.names == ("teacher",)
    assert found.failed
    assert all("the loss is not finite" in reason for reason in found.failed.values())
    assert json.loads((copy / RECORD).read_text())["failed"] == dict(found.failed)


def test_the_lengths_of_test_texts_decide_nothing(recipe: Recipe, made: Made, tmp_path: Path) -> None:
    """Measured for those, and more often, the same is tried, compared and kept; only figures are new."""
    copy = Path(shutil.copytree(made.out, tmp_path / "family"))
    target = recipe.target.model_copy(update={"lengths": "test", "calls": 21})
    told = Told()
    found = run_search(recipe.model_copy(update={"target": target}), copy, progress=told)
    assert found.kept == made.found.kept
    assert all(step.endswith(".measure") for step in told.of("done"))
    assert {f"{name}.compare" for name in found.trained} <= set(told.of("reused"))


def test_what_is_timed_for_a_choice_is_of_validation(
    recipe: Recipe, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Candidates and survivors are compared with the teacher on validation texts, for test lengths too."""
    copy = Path(shutil.copytree(made.out, tmp_path / "family"))
    (dataset,) = (copy / ".steps").glob(f"data@*/{DATA}")
    timed: list[Sequence[str]] = []

    def spy(own: LoadedVariant, reference: LoadedVariant, texts: Sequence[str], **_: Any) -> Ratio:
        timed.append(texts)
        return Ratio(0.5, 0.5)

    for module in ("candidate", "comparison"):
        monkeypatch.setattr(f"compress.exploration.{module}.compare", spy)
        for step in (copy / ".steps").glob("try-*" if module == "candidate" else "*.compare@*"):
            shutil.rmtree(step)
    target = recipe.target.model_copy(update={"lengths": "test"})
    found = run_search(recipe.model_copy(update={"target": target}), copy)
    assert len(timed) == len(found.tried) + len(found.trained)
    assert set(timed) == {read_dataset(dataset).of("validation").texts}


def test_a_spent_budget_explores_no_further(recipe: Recipe, made: Made, tmp_path: Path) -> None:
    """Time spent in earlier calls counts: with hardly any left, one candidate is looked at."""
    copy = Path(shutil.copytree(made.out, tmp_path / "family"))
    assert len({n.removesuffix("-int8") for n in run_search(recipe, copy, minutes=1e-6).tried}) == 1


def test_a_recipe_that_uses_the_search_s_names_is_refused(made: Made) -> None:
    """Searching on from a found recipe would make two variants of one name."""
    with pytest.raises(RecipeError, match="search-"):
        run_search(made.found.recipe, made.out)


@pytest.mark.parametrize(
    "options",
    [("--search", "--only", "teacher"), ("--search-minutes", "1", "--dry-run"), ("--mlflow-models",)],
)
def test_options_that_do_not_go_together_are_a_usage_error(options: tuple[str, ...], tmp_path: Path) -> None:
    """A search has no parts to pick from, and uploads need a store: exit 2, before anything is read."""
    arguments = [str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "family"), *options]
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 2
    assert "--search" in done.output or "--mlflow" in done.output


def test_a_space_that_is_used_up_ends_the_search() -> None:
    """When every candidate has been tried there is nothing more to ask for, whatever the generations."""
    space = space_of(SearchSpace(layers=((0,),), heads=(4,), neurons=(16, 48), hidden=(32,)), SIZE)
    seen: list[str] = []

    def evaluate(candidate: Candidate) -> Point | None:
        seen.append(candidate.name)
        return Point(0.9, float(len(seen)), 1.0)

    explore(space, SearchPart(population=4, generations=50), 0, evaluate, stop=lambda: False)
    assert len(set(seen)) <= 8
    assert len(seen) < 50


def test_the_same_seed_takes_the_same_way() -> None:
    """NSGA-II asks for the same candidates again, for others with another seed, and learns which are good."""
    space = space_of(SearchSpace(), SIZE)
    part = SearchPart(population=8, generations=12)

    def asked(seed: int) -> list[Candidate]:
        seen: list[Candidate] = []

        def evaluate(candidate: Candidate) -> Point | None:
            seen.append(candidate)
            if candidate.shape.heads == 1:
                return None
            width = candidate.shape.neurons or SIZE.neurons
            return Point(0.5 + len(candidate.shape.layers) / 10, float(width), float(width))

        explore(space, part, seed, evaluate, stop=lambda: False)
        return seen

    first = asked(1)
    assert first == asked(1) != asked(2)

    def share(candidates: list[Candidate]) -> float:
        return float(np.mean([(c.shape.neurons or SIZE.neurons) == min(space.neurons) for c in candidates]))

    assert share(first[-24:]) > share(first[:8])
