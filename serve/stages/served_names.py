"""By which names families are served, as far as one process knows, and so where their variants run."""

from __future__ import annotations

from collections.abc import Set

from contract.family import Family
from contract.roster import served_name
from serve.stages.loading import Assignment


class ServedNames:
    """The names of families by hash. A family that is served under two has the places of both.

    Args:
        assignment: of this run.
    """

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._names: dict[str, list[str]] = {}

    def note(self, sha256: str, name: str) -> None:
        """A family is about to be served under that name here."""
        names = self._names.setdefault(sha256, [])
        if name not in names:
            names.append(name)

    def keep(self, needed: Set[tuple[str, str]]) -> bool:
        """Forget all but these, each a hash and a name; return whether there was anything else."""
        kept = {
            sha256: left
            for sha256, names in self._names.items()
            if (left := [name for name in names if (sha256, name) in needed])
        }
        changed, self._names = kept != self._names, kept
        return changed

    def forget(self, sha256: str) -> None:
        """A family is here no longer, under whatever name."""
        self._names.pop(sha256, None)

    def of(self, family: Family) -> str:
        """Return the name that what a family's variants do is counted under: the first that came."""
        return self._names.get(family.sha256, [served_name(family.name)])[0]

    def placed_at(self, family: Family, place: str) -> list[str]:
        """Return the variants that run at a place, `inline` or a deployment."""
        names = self._names.get(family.sha256, [served_name(family.name)])
        places = [self._assignment.place(family, name) for name in names]
        return [variant for variant in family.names if any(found[variant] == place for found in places)]
