"""Where a proxy stands: its phase, its round, and what it saved, in a file that every start goes on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from contract.errors import InputError
from contract.files import read_json, write_json
from contract.records import Frozen, parse_record

SCHEMA = 1
STANDING = "proxy.json"
TRAIN_NOW = "train.now"

SERVED = ("loading", "shadow", "canary", "full")
"""Phases in which the gateway may have the round's family."""
Phase = Literal["collecting", "training", "certifying", "loading", "shadow", "canary", "full"]


class Today(Frozen):
    """What happened since midnight UTC, by counters that start at zero whenever the gateway does.

    Attributes:
        day: as 2026-11-29.
        saved_usd, here, elsewhere: saved, and texts answered here and by the upstream, this day.
        seen: the counters as last read, by their own names.
    """

    day: str = ""
    saved_usd: float = 0.0
    here: float = 0.0
    elsewhere: float = 0.0
    seen: dict[str, float] = Field(default_factory=dict)

    def counted(self, day: str, counters: dict[str, float]) -> Today:
        """Return the day with what counters `saved_usd`, `here` and `elsewhere` have grown by."""
        before = self if self.day == day else Today(day=day, seen=self.seen)
        grown = {
            name: value - seen if value >= (seen := before.seen.get(name, 0.0)) else value
            for name, value in counters.items()
        }
        sums = {
            name: getattr(before, name) + grown.get(name, 0.0) for name in ("saved_usd", "here", "elsewhere")
        }
        return Today(day=day, seen=before.seen | counters, **sums)

    @property
    def share_here(self) -> float | None:
        """Of the texts answered today, those answered here; None where there were none."""
        answered = self.here + self.elsewhere
        return self.here / answered if answered else None


class InForce(Frozen):
    """What answers while another round is under way, and goes on answering if that leads nowhere.

    Attributes:
        round, question, policy_version, certificate, options: as in Standing.
    """

    round: int
    question: str
    policy_version: str
    certificate: str
    options: dict[str, Any] = Field(default_factory=dict)


class Standing(Frozen):
    """What a proxy has reached.

    Attributes:
        phase: what it does now.
        since: when that began, ISO 8601.
        round: number of the training that is used or under way; 0 before the first.
        question: sha256 of the question that it learns; empty before any was collected.
        needed_texts: distinct texts at which the next training begins; 0: once it is asked for.
        policy_version: of the round's policy, once it is certified.
        trial_begun: whether this phase's trial was begun.
        problem: why it went back to collecting; empty where nothing did.
        certificate: the standing of the certificate in words.
        in_force: what was in force when the round began; None where nothing was, or in `full`.
        options: of the round: those of a plan that must stay the same from its training on.
        today: what it saved.
    """

    schema_: int = Field(default=SCHEMA, alias="schema")
    phase: Phase = "collecting"
    since: str = ""
    round: int = Field(default=0, ge=0)
    question: str = ""
    needed_texts: int = Field(default=0, ge=0)
    policy_version: str = ""
    trial_begun: bool = False
    problem: str = ""
    certificate: str = ""
    in_force: InForce | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    today: Today = Today()


def read_standing(folder: Path) -> Standing:
    """Return where the proxy of a folder stands; that of a new one where it has not begun.

    Raises:
        InputError: the file breaks a rule.
    """
    path = folder / STANDING
    if not path.exists():
        return Standing()
    return parse_record(Standing, read_json(path), where=path, error=InputError, newest=SCHEMA)


def write_standing(folder: Path, standing: Standing) -> None:
    """Write it atomically."""
    write_json(folder / STANDING, standing.model_dump(mode="json", by_alias=True))
