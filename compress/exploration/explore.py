"""NSGA-II chooses which candidates to try next, from what those before gave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.exploration.genome import Candidate, Space
from compress.exploration.pareto import Point
from compress.recipes.search_part import SearchPart
from contract.errors import EnvironmentProblem

FAILED = (1.0, 1e6, 1e6)


def explore(
    space: Space,
    part: SearchPart,
    seed: int,
    evaluate: Callable[[Candidate], Point | None],
    *,
    stop: Callable[[], bool],
) -> None:
    """Let NSGA-II (Deb et al. 2002) choose candidates until its generations or the time are used up.

    The way it takes follows from the seed and from what `evaluate` returns. Genes are the indices of
    choices; objectives are the error rate, latency and energy. At least one candidate is evaluated.

    Raises:
        EnvironmentProblem: when pymoo is not installed.
    """
    algorithm, tell = _nsga2(space, part, seed)
    first = True
    while algorithm.has_next():
        asked = algorithm.ask()
        if asked is None or len(asked) == 0:  # every child of the parents there are was there before
            return
        figures = []
        for genes in asked.get("X"):
            if not first and stop():
                return
            first = False
            point = evaluate(space.decode([int(gene) for gene in genes]))
            figures.append(FAILED if point is None else (1 - point.accuracy, point.latency_ms, point.energy))
        tell(asked, np.array(figures))


def _nsga2(
    space: Space, part: SearchPart, seed: int
) -> tuple[Any, Callable[[Any, NDArray[np.float64]], None]]:
    """Return the algorithm, and what tells it the objectives [N, 3] of those that it asked for."""
    try:
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.core.evaluator import Evaluator
        from pymoo.core.problem import Problem
        from pymoo.operators.crossover.sbx import SBX
        from pymoo.operators.mutation.pm import PM
        from pymoo.operators.repair.rounding import RoundingRepair
        from pymoo.operators.sampling.rnd import IntegerRandomSampling
        from pymoo.problems.static import StaticProblem
    except ImportError:
        raise EnvironmentProblem(
            "the search needs pymoo", hint="pip install 'sluicegate[compress]'"
        ) from None
    problem = Problem(n_var=len(space.last), n_obj=3, xl=0, xu=np.array(space.last), vtype=int)
    algorithm = NSGA2(
        pop_size=part.population,
        sampling=IntegerRandomSampling(),
        crossover=SBX(prob=0.9, eta=5, vtype=float, repair=RoundingRepair()),
        mutation=PM(prob=1.0, eta=5, vtype=float, repair=RoundingRepair()),
        eliminate_duplicates=True,
    )
    algorithm.setup(problem, termination=("n_gen", part.generations), seed=seed, verbose=False)

    def tell(asked: Any, figures: NDArray[np.float64]) -> None:
        Evaluator().eval(StaticProblem(problem, F=figures), asked)
        algorithm.tell(infills=asked)

    return algorithm, tell
