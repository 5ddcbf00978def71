"""What a gateway says at start of the models behind HTTP that its family names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from contract.errors import EnvironmentProblem
from contract.family import Family
from contract.files import inside
from runtime.remote.record import read_remote


def tell_remotes(folder: Path, family: Family, progress: Callable[[str], None]) -> None:
    """Say of each remote variant whether its server is reached; it is asked no question.

    One that is not there does not hold up a start: what needs it gets degraded answers until it is.

    Raises:
        FamilyError: its record cannot be read.
    """
    for variant in family.variants:
        if variant.runtime != "remote":
            continue
        from runtime.remote.client import SyncClient  # takes a while to import

        model = read_remote(inside(folder, variant.artifact.path))
        try:
            client = SyncClient(model, family.labels)
        except EnvironmentProblem as problem:
            progress(f"{variant.name}: {problem}")
            continue
        problem_there = client.problem()
        client.close()
        if problem_there is None:
            progress(f"{variant.name}: {model.url} is reached")
        else:
            progress(
                f"{variant.name}: {model.url} is not reached now ({problem_there}): what needs it is "
                "answered by the stages before it, as degraded, until it is"
            )
