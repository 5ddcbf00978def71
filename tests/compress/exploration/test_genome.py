"""Genes become shapes, shapes become parts with readable names, and what none dominates is kept."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.exploration.genome import (
    LONGEST_NAME,
    Candidate,
    Shape,
    TeacherSize,
    quantize_part,
    short_part,
    space_of,
    training_part,
)
from compress.exploration.pareto import Point, dominates, non_dominated, spread
from compress.recipes.parts import DistilPart, PrunePart
from compress.recipes.search_part import SearchPart, SearchSpace
from contract.errors import RecipeError

MINILM = TeacherSize(depth=6, heads=12, neurons=1536, hidden=384)
LARGE = TeacherSize(depth=24, heads=16, neurons=4096, hidden=1024)


def test_names_are_readable() -> None:
    """A name tells layers, what is narrower than the teacher, the technique and the precision."""
    shape = Shape((0, 5), heads=6, neurons=384)
    assert Candidate(shape, "fp32").name == "search-L0_5-h6-n384"
    assert Candidate(shape, "int8-dynamic").name == "search-L0_5-h6-n384-int8"
    assert Shape((0, 1, 2, 5), hidden=192).name == "L0to2_5-w192"
    assert Shape((4, 5), heads=6, technique="prune").name == "L4_5-h6-pruned"


@pytest.mark.parametrize("size", [MINILM, LARGE])
def test_every_candidate_has_a_name_of_its_own_that_fits(size: TeacherSize) -> None:
    """However deep the teacher, names are within the limit, and two candidates never share one."""
    space = space_of(SearchSpace(precisions=("fp32", "int8-dynamic", "int8-static")), size)
    candidates = {space.decode(genes) for genes in itertools.product(*(range(n + 1) for n in space.last))}
    names = {candidate.name for candidate in candidates}
    assert len(names) == len(candidates)
    assert max(map(len, names)) <= LONGEST_NAME


def test_the_default_space_follows_from_the_teacher() -> None:
    """Every depth is offered, evenly spread, first and last; widths are shares of the teacher's."""
    space = space_of(SearchSpace(), MINILM)
    assert {len(layers) for layers in space.layers} == set(range(1, 7))
    assert {(0, 5), (0, 1), (4, 5), (0, 2, 5), tuple(range(6))} <= set(space.layers)
    assert space.heads == (3, 6, 12)
    assert space.neurons == (192, 384, 768, 1536)
    assert space.hidden == (192, 384)


def test_genes_that_mean_the_same_are_one_candidate() -> None:
    """Pruning nothing is distillation, and pruning leaves the width of states alone."""
    space = space_of(SearchSpace(), MINILM)
    full = (space.last[0], space.last[1], space.last[2])
    assert space.decode((*full, 0, 1, 0)) == space.decode((*full, 1, 0, 0))
    pruned = space.decode((0, 0, 0, 0, 1, 0)).shape
    assert (pruned.technique, pruned.hidden) == ("prune", None)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (SearchSpace(layers=((0, 6),)), "0 to 5"),
        (SearchSpace(layers=((2, 1),)), "ascend"),
        (SearchSpace(heads=(0, 4)), "search.space.heads"),
        (SearchSpace(neurons=(3072,)), "within 1 to 1536"),
        (SearchSpace(hidden=(4,)), "within 8 to 384"),
    ],
)
def test_a_space_beyond_the_teacher_is_refused(space: SearchSpace, words: str) -> None:
    """Layers that are not there and widths that are too large are named with the limit."""
    with pytest.raises(RecipeError, match=words):
        space_of(space, MINILM)


def test_parts_carry_the_shape_and_the_training() -> None:
    """A shape becomes a student or a pruned copy; its short training takes no copies."""
    search = SearchPart()
    student = training_part(Shape((0, 5), heads=6, hidden=192), MINILM, search, parent="teacher")
    assert isinstance(student, DistilPart)
    assert (student.layers, student.heads, student.neurons, student.hidden) == ((0, 5), 6, None, 192)
    assert student.training == search.full
    pruned = training_part(Shape((0, 5), 6, 384, technique="prune"), MINILM, search, parent="teacher")
    assert isinstance(pruned, PrunePart)
    assert (pruned.layers, pruned.heads, pruned.neurons) == ((0, 5), 0.5, 0.25)
    brief = short_part(Shape((0, 5), 6, 384, technique="prune"), MINILM, search, parent="teacher")
    assert brief == pruned.model_copy(update={"name": brief.name, "training": search.short, "augment": None})


def test_precision_is_a_part_of_its_own() -> None:
    """FP32 needs none; INT8 is made from the trained shape, and has the candidate's name."""
    candidate = Candidate(Shape((0,)), "int8-dynamic")
    part = quantize_part(candidate, parent="search-L0")
    assert part is not None
    assert (part.name, part.parent, part.method) == (candidate.name, "search-L0", "dynamic")
    assert quantize_part(Candidate(Shape((0,)), "fp32"), parent="search-L0") is None


POINTS = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=3),
    st.builds(
        Point,
        accuracy=st.sampled_from([0.5, 0.7, 0.9, 0.95]),
        latency_ms=st.sampled_from([0.5, 1.0, 2.0, 4.0]),
        energy=st.sampled_from([1.0, 1.05, 2.0]),
    ),
    min_size=1,
    max_size=12,
)


@given(POINTS)
def test_what_is_kept_is_undominated_and_what_goes_is_not(points: dict[str, Point]) -> None:
    """No kept point dominates another; every other point is dominated by some point, or equals a kept one."""
    kept = non_dominated(points)
    assert not any(dominates(points[a], points[b]) for a in kept for b in kept)
    figures = {(points[name].accuracy, points[name].latency_ms) for name in kept}
    for name in set(points) - set(kept):
        dominated = any(dominates(other, points[name]) for other in points.values())
        assert dominated or (points[name].accuracy, points[name].latency_ms) in figures
    latencies = [points[name].latency_ms for name in kept]
    assert latencies == sorted(latencies)


def test_energy_within_its_noise_decides_nothing() -> None:
    """A slower and worse point is dropped though its energy was measured a little lower, not a lot."""
    fast = Point(0.95, 1.0, 1.0)
    assert dominates(fast, Point(0.94, 1.1, 0.95))
    assert not dominates(fast, Point(0.94, 1.1, 0.5))


@given(POINTS, st.integers(1, 12))
def test_thinning_keeps_the_most_accurate(points: dict[str, Point], most: int) -> None:
    """At most so many stay, the most accurate among them, and a front that is small enough stays whole."""
    kept = spread(points, most)
    assert len(kept) == min(most, len(points))
    assert max(points[name].accuracy for name in kept) == max(p.accuracy for p in points.values())


def test_thinning_removes_where_points_crowd() -> None:
    """Of two neighbours that are close in latency the less accurate goes."""
    points = {
        "a": Point(0.80, 1.0, 1.0),
        "b": Point(0.90, 2.0, 2.0),
        "c": Point(0.91, 2.1, 2.1),
        "d": Point(0.95, 8.0, 8.0),
    }
    assert spread(points, 3) == ("a", "c", "d")
