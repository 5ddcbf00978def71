"""Which families a gateway starts with: those that are asked for, or what became of them since."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from contract.roster import OF, Roster, Seat, served_name
from serve.control.revision_store import RevisionStore
from serve.control.roster_store import RosterStore, next_roster


def seats_of(
    rosters: RosterStore, root: RevisionStore, asked: Mapping[str, str], progress: Callable[[str], None]
) -> tuple[Roster, bool]:
    """Return the roster to start with, and whether it is new.

    A start that asks for the same names as the one before keeps what was loaded and unloaded since.

    Args:
        rosters: of the state.
        root: the revisions at the root of the state, which a family alone has.
        asked: the hash of each family that is asked for, by the name that it is to be served under.
        progress: told what is kept and what goes.
    """
    names = tuple(asked)
    latest = rosters.latest()
    if latest is not None and set(latest.started) == set(names):
        more = [name for name in latest.names if name not in names]
        gone = [name for name in names if name not in latest.names]
        if more:
            progress(f"{', '.join(more)} stays: loaded while the gateway served (sluice family unload)")
        if gone:
            progress(f"{', '.join(gone)} stays unloaded, as while the gateway served (sluice family load)")
        return latest, False
    if latest is not None and (out := [name for name in latest.names if name not in names]):
        progress(f"{', '.join(out)} is out of force: this start asks for {', '.join(names) or 'no family'}")
    roster = Roster(
        number=1,
        created_at="",
        seats=_placed(rosters.history(), root, asked),
        plain=names[0] if len(names) == 1 else None,
        started=names,
        seed=True,
    )
    return next_roster(latest, roster, "seed"), True


def _placed(history: list[Roster], root: RevisionStore, asked: Mapping[str, str]) -> tuple[Seat, ...]:
    """Return where each family's revisions lie: where they lay, at the root for one alone, else apart."""
    places: dict[str, str] = {}
    at_root = next(iter(asked)) if len(asked) == 1 else None if history else _at_root(root, asked)
    served = history[-1].names if history else ()
    for name in sorted(asked, key=lambda name: name not in served):  # whoever is served keeps its place
        otherwise = "" if name == at_root else OF + name
        places[name] = last_place(history, name, set(places.values()), otherwise)
    return tuple(Seat(name=name, place=places[name]) for name in asked)


def last_place(history: list[Roster], name: str, taken: set[str], otherwise: str) -> str:
    """Return where the revisions of that name lay last, unless somebody has had that place since."""
    gone = set(taken)
    for roster in reversed(history):
        seat = roster.seat(name)
        if seat is not None and seat.place not in gone:
            return seat.place
        gone.update(seat.place for seat in roster.seats)
    return OF + name if otherwise in taken else otherwise


def _at_root(root: RevisionStore, asked: Mapping[str, str]) -> str | None:
    """Return whose revisions lie at the root of a state without rosters: by its name, else by its hash."""
    latest = root.latest()
    if latest is None:
        return None
    of_that_name = served_name(latest.family_name)
    if of_that_name in asked:
        return of_that_name
    return next((name for name, sha256 in asked.items() if sha256 == latest.family_sha256), None)
