"""Which families a gateway starts with: those that are asked for, or what became of them since."""

from __future__ import annotations

from collections.abc import Callable

from contract.roster import OF, Roster, Seat, served_name
from serve.control.revision_store import RevisionStore
from serve.control.roster_store import RosterStore, next_roster


def seats_of(
    rosters: RosterStore, root: RevisionStore, names: tuple[str, ...], progress: Callable[[str], None]
) -> tuple[Roster, bool]:
    """Return the roster to start with, and whether it is new.

    A start that asks for the same names as the one before keeps what was loaded and unloaded since.

    Args:
        rosters: of the state.
        root: the revisions at the root of the state, which a family alone has.
        names: that are asked for.
        progress: told what is kept and what goes.
    """
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
        seats=_placed(rosters.history(), root, names),
        plain=names[0] if len(names) == 1 else None,
        started=names,
        seed=True,
    )
    return next_roster(latest, roster, "seed"), True


def _placed(history: list[Roster], root: RevisionStore, names: tuple[str, ...]) -> tuple[Seat, ...]:
    """Return where each family's revisions lie: where they lay, at the root for one alone, else apart."""
    seats: list[Seat] = []
    for name in names:
        place = OF + name
        if len(names) == 1 or (not history and _is_at_root(root, name)):
            place = ""
        seats.append(Seat(name=name, place=last_place(history, name, {s.place for s in seats}, place)))
    return tuple(seats)


def last_place(history: list[Roster], name: str, taken: set[str], otherwise: str) -> str:
    """Return where the revisions of that name lay last, unless somebody has that place now."""
    for roster in reversed(history):
        seat = roster.seat(name)
        if seat is not None and seat.place not in taken:
            return seat.place
    return OF + name if otherwise in taken else otherwise


def _is_at_root(root: RevisionStore, name: str) -> bool:
    latest = root.latest()
    return latest is not None and served_name(latest.family_name) == name
