"""The commands of trials against an admin interface, without a gateway behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from contract.errors import InputError, PolicyError
from contract.live import FamilyReference
from contract.policy import Policy, single_variant_policy, write_policy
from contract.trial import PairCounts, TrialCounts
from serve.access.gate import Gate
from serve.access.key_store import open_keys
from serve.control.admin import make_admin
from serve.control.admin_guard import Guard
from sluicegate import trial_cmds
from sluicegate.common import result_console
from sluicegate.policy_cmd import command
from tests.serve.control.trial_world import ALIKE, OTHER, World
from tests.serve.parts import OnlyLine, serving


class Terminal:
    """The command, the admin interface that it is told, and the gateway behind."""

    def __init__(self, world: World, url: str, folder: Path) -> None:
        self.world = world
        self.url = url
        self.folder = folder

    def types(self, *words: str) -> str:
        """Run `sluice policy WORDS`; return what it prints."""
        with result_console.capture() as shown:
            done = CliRunner().invoke(command, [*words, "--admin-url", self.url], catch_exceptions=False)
        return done.output + shown.get()

    def policy(self, policy: Policy = OTHER) -> str:
        """A file with that policy."""
        write_policy(self.folder / "candidate.json", policy)
        return str(self.folder / "candidate.json")


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """A gateway's control, reached over HTTP."""
    world = World(tmp_path)
    keys = open_keys(str(tmp_path / "state"))
    admin = make_admin(OnlyLine(world.plane, world.trials, Nowhere()), keys, dict, world.plane.states)
    with serving(Guard(admin, Gate(), always_keyed=False)) as url:
        yield Terminal(world, url, tmp_path)


def test_show_tells_both_arms_and_the_verdict_so_far(terminal: Terminal) -> None:
    """In words for people, and as JSON with all counts."""
    terminal.types("canary", terminal.policy(), "--share", "0.25", "--no-worse-than", "0.02", "--auto")
    terminal.world.count(ALIKE)
    said = terminal.types("show")
    assert f"canary {OTHER.version[:12]}: share 0.25" in said
    assert "auto both" in said
    assert "live: 0.00% fail" in said
    assert "0.5 USD per 1,000" in said
    assert "1000 texts compared, 100.00% answered alike" in said
    assert "verdict: no worse than allowed (drop 0.0000" in said
    told = json.loads(terminal.types("show", "--json"))
    assert told["canary"]["share"] == 0.25
    assert told["trials"][0]["rule"]["no_worse_than"] == 0.02
    assert told["trials"][0]["verdict"]["decision"] == "promote"


def test_show_says_when_next_to_nothing_is_compared(terminal: Terminal) -> None:
    """A verdict that stays open for want of idle moments is told from one that needs more texts."""
    terminal.types("canary", terminal.policy(), "--share", "0.25")
    terminal.world.count(TrialCounts(pairs=PairCounts(same=9, shed=800, busy=99)))
    assert "one text in a hundred" not in terminal.types("show")
    terminal.world.count(TrialCounts(pairs=PairCounts(same=9, shed=802, busy=99)))
    assert "fewer than one text in a hundred is compared" in terminal.types("show")


def test_the_one_candidate_on_trial_needs_no_name(terminal: Terminal) -> None:
    """Promoted and told; with none or two on trial the command asks which."""
    with pytest.raises(InputError, match="no candidate is on trial"):
        terminal.types("promote")
    terminal.types("shadow", terminal.policy(), "--share", "1")
    said = terminal.types("promote")
    assert "revision 3: shadow" in said
    assert "promoted by an operator: nothing is proven yet" in said
    terminal.types("shadow", terminal.policy(single_variant_policy("fake-other")), "--share", "1")
    terminal.types("canary", terminal.policy(single_variant_policy("fake-large")), "--share", "0.1")
    with pytest.raises(InputError, match="both a canary and a shadow"):
        terminal.types("withdraw")
    terminal.types("withdraw", "canary")
    assert [kind for kind, _ in terminal.world.plane.current().trials()] == ["shadow"]
    history = json.loads(terminal.types("history", "--json"))
    assert history[-1]["trials"] == {"shadow": single_variant_policy("fake-other").version}


def test_begin_says_what_became_of_the_trial_that_was_there(terminal: Terminal) -> None:
    """It goes on with its rule, or gives way with its counts, or refuses another rule."""
    said = terminal.types("canary", terminal.policy(), "--share", "0.1", "--max-error-rate", "0.1", "--auto")
    assert said.rstrip().endswith("begins")
    terminal.world.count(ALIKE)
    terminal.types("show")
    assert "goes on" in terminal.types("canary", terminal.policy(), "--share", "0.2")
    canary = json.loads(terminal.types("show", "--json"))["canary"]
    assert (canary["rule"]["max_error_rate"], canary["auto"]) == (0.1, "both")
    with pytest.raises(PolicyError, match="--anew"):
        terminal.types("canary", terminal.policy(), "--share", "0.2", "--no-worse-than", "0.3")
    said = terminal.types("canary", terminal.policy(), "--share", "0.2", "--no-worse-than", "0.3", "--anew")
    assert f"begins, in place of {OTHER.version[:12]} and its 1000 texts compared" in said
    said = terminal.types("canary", terminal.policy(), "--share", "0.3", "--no-auto")
    assert json.loads(terminal.types("show", "--json"))["canary"]["auto"] == "off"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--share", "0"), "--share 0 "),
        (("--share", "1.5"), "--share 1.5"),
        (("--share", "0.1", "--no-worse-than", "0"), "no_worse_than"),
        (("--share", "0.1", "--confidence", "1"), "confidence"),
        (("--share", "0.1", "--audit-share", "2"), "audit_share"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_by_name(
    terminal: Terminal, options: tuple[str, ...], words: str
) -> None:
    """Before anything is sent."""
    with pytest.raises(InputError, match=words):
        terminal.types("canary", terminal.policy(), *options)
    assert len(terminal.world.state.history()) == 1


class Nowhere:
    """Finds no family."""

    async def bring(self, folder: Path) -> FamilyReference:
        """Refuse."""
        raise InputError("no such family", where=folder)


@pytest.mark.parametrize(
    ("served", "named", "candidate"), [("support", "support", None), ("x", None, "support")]
)
def test_a_served_name_is_meant_even_where_a_folder_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, served: str, named: str | None, candidate: str | None
) -> None:
    """A folder is taken only where no family is served by that name."""
    (tmp_path / "support").mkdir()
    (tmp_path / "support" / "family.json").write_text("{}")
    write_policy(tmp_path / "candidate.json", OTHER)
    monkeypatch.chdir(tmp_path)
    asked: list[tuple[str | None, str | None]] = []

    def begin(kind: str, body: dict[str, Any], _: str, *, family: str | None) -> dict[str, Any]:
        asked.append((family, body["family"]))
        revision = {"number": 2, "reason": kind, "rulings": [], kind: {"since_revision": 2}}
        return {"revision": revision}

    monkeypatch.setattr(trial_cmds, "begin_trial", begin)
    monkeypatch.setattr(trial_cmds, "list_families", lambda _: {"families": [{"served_as": served}]})
    words = ["canary", "candidate.json", "--share", "0.1", "--family", "support"]
    assert CliRunner().invoke(command, words, catch_exceptions=False).exit_code == 0
    assert asked == [(named, None if candidate is None else str(tmp_path / candidate))]


@pytest.mark.parametrize("option", ["--candidate", "--family"])
def test_a_candidates_folder_is_told_apart_from_the_name_of_a_family(
    terminal: Terminal, tmp_path: Path, option: str
) -> None:
    """It may stand where it stood before gateways had several families."""
    folder = tmp_path / "candidate"
    folder.mkdir()
    (folder / "family.json").write_text("{}")
    with pytest.raises(PolicyError, match="no such family"):
        terminal.types("shadow", terminal.policy(), "--share", "1", option, str(folder))
