"""Find Sluicegate's own packages, whose names are common, whatever else bears these names.

A `report.py` or a folder `serve` on PYTHONPATH, or where `python -m sluicegate` is run, comes before what is
installed. Only the command changes this: a program that imports a package of ours searches as before.
Nothing of Sluicegate's may be imported here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

NAMES = frozenset(
    {"compress", "contract", "loadtest", "report", "router", "runtime", "serve", "sluicegate", "tables"}
)
HOME = Path(__file__).parents[1]


class OwnPackages:
    """Finds what is called one of `NAMES` beside this package and nowhere else."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where one of our packages is; None for all other names."""
        return PathFinder.find_spec(name, [str(HOME)], target) if path is None and name in NAMES else None


def put_first() -> list[str]:
    """Have this process find our packages; take folders that hide them from what its children search.

    Returns the folders of PYTHONPATH that were taken.
    """
    if OwnPackages not in sys.meta_path:
        sys.meta_path.insert(0, OwnPackages)
    searched = os.environ.get("PYTHONPATH")
    if not searched:
        return []
    folders = searched.split(os.pathsep)
    hiding = [folder for folder in folders if hides(Path(folder))]
    os.environ["PYTHONPATH"] = os.pathsep.join(folder for folder in folders if folder not in hiding)
    return hiding


def hides(folder: Path) -> bool:
    """Return whether a folder to search has modules of the names of ours, and is not where ours are."""
    if folder.absolute() == HOME:
        return False
    return any(
        (folder / name / "__init__.py").is_file() or (folder / f"{name}.py").is_file() for name in NAMES
    )
