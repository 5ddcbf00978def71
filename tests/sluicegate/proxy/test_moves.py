"""What a proxy does next, from where it stands and what it sees."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.proxy.line import line_of
from sluicegate.proxy.moves import FEWEST_TEXTS, Facts, Move, enough_texts, next_move
from sluicegate.proxy.standing import Phase, Standing, Today

V = "a" * 64


class World:
    """A gateway that does what it is told, and a proxy that may be killed between any two steps."""

    def __init__(self, decision: str = "promote") -> None:
        self.decision = decision
        self.facts = Facts(texts=1000)
        self.standing = Standing(question="q", needed_texts=500, round=1)

    def on_trial(self, kind: str) -> None:
        """Begin a trial that is decided at once."""
        self.facts = replace(self.facts, trials={kind: (V, self.decision)})

    def act(self, move: Move) -> None:
        """Do what a move does to the gateway."""
        match move:
            case "load":
                self.facts = replace(self.facts, loaded=True)
            case "unload":
                self.facts = replace(self.facts, loaded=False)
            case "begin_shadow":
                self.on_trial("shadow")
            case "end_shadow":
                self.facts = replace(self.facts, trials={})
            case "begin_canary" if self.standing.phase == "canary":
                self.on_trial("canary")
                if self.decision == "promote":
                    self.facts = replace(self.facts, trials={}, in_force=V)

    def write(self, move: Move) -> None:
        """Write down what a move leads to."""
        phases: dict[tuple[Phase, Move], Phase] = {
            ("collecting", "train"): "training",
            ("training", "train"): "certifying",
            ("certifying", "tune"): "loading",
            ("loading", "begin_shadow"): "shadow",
            ("shadow", "begin_canary"): "canary",
            ("shadow", "settle"): "full",
            ("canary", "settle"): "full",
            ("shadow", "go_back"): "collecting",
            ("canary", "go_back"): "collecting",
        }
        phase = phases.get((self.standing.phase, move), self.standing.phase)
        begun = self.standing.phase == phase and move in {"begin_shadow", "begin_canary"}
        again = self.standing.trial_begun and self.standing.phase == phase
        version = V if phase not in {"collecting", "training", "certifying"} else ""
        needed = 5000 if move == "go_back" else self.standing.needed_texts
        self.standing = self.standing.model_copy(
            update={
                "phase": phase,
                "trial_begun": begun or again,
                "policy_version": version,
                "needed_texts": needed,
            }
        )


@given(st.lists(st.booleans(), min_size=60, max_size=60))
def test_a_proxy_that_is_killed_anywhere_still_gets_there(killed: list[bool]) -> None:
    """Whatever steps are made twice, since what they led to was not written, the end is the same."""
    world = World()
    for lost in killed:
        move = next_move(world.standing, world.facts)
        world.act(move)
        if not lost:
            world.write(move)
    for _ in range(20):
        move = next_move(world.standing, world.facts)
        world.act(move)
        world.write(move)

    assert world.standing.phase == "full"
    assert next_move(world.standing, world.facts) == "wait"


def test_a_withdrawn_trial_leads_back_to_collecting() -> None:
    """A candidate that is worse is not put on trial again; more is collected first."""
    world = World("withdraw")
    made = []
    for _ in range(12):
        move = next_move(world.standing, world.facts)
        made.append(move)
        world.act(move)
        world.write(move)

    assert "go_back" in made
    assert "begin_canary" not in made
    assert world.standing.phase == "collecting"
    assert not world.facts.loaded
    assert made[-1] == "wait"


@pytest.mark.parametrize("phase", get_args(Phase))
def test_one_that_only_collects_does_nothing_else_wherever_a_proxy_left_off(phase: Phase) -> None:
    """No phase that a proxy was ended in has it train, load or begin a trial."""
    standing = Standing(phase=phase, question="q", needed_texts=5, round=1, policy_version=V)
    for facts in (Facts(texts=9999, train_asked=True), Facts(loaded=True, trials={"canary": (V, "promote")})):
        assert next_move(standing, facts, trains=False) == "wait"


def test_a_trial_that_has_gone_without_being_promoted_was_withdrawn() -> None:
    """The gateway withdraws by itself; the proxy sees that it is gone."""
    standing = Standing(phase="canary", question="q", policy_version=V, trial_begun=True)
    assert next_move(standing, Facts(loaded=True, trials={})) == "go_back"


@pytest.mark.parametrize("phase", get_args(Phase))
def test_a_policy_that_somebody_put_in_force_settles_a_trial(
    phase: Literal["collecting", "training", "certifying", "loading", "shadow", "canary", "full"],
) -> None:
    """Where the round's policy is in force already, no trial begins."""
    move = next_move(Standing(phase=phase, question="q", policy_version=V), Facts(loaded=True, in_force=V))
    assert (move == "settle") == (phase in {"shadow", "canary"})


def test_training_begins_when_there_is_enough_or_when_it_is_asked_for() -> None:
    """Asked for, it begins with less, but never with nothing to learn from."""
    standing = Standing(question="q", needed_texts=500)
    assert next_move(standing, Facts(texts=499)) == "wait"
    assert next_move(standing, Facts(texts=500)) == "train"
    assert next_move(standing, Facts(texts=500), trains=False) == "wait"
    assert next_move(standing, Facts(texts=FEWEST_TEXTS, train_asked=True)) == "train"
    assert next_move(standing, Facts(texts=FEWEST_TEXTS - 1, train_asked=True)) == "wait"
    full = Standing(phase="full", question="q", needed_texts=500, policy_version=V)
    assert next_move(full, Facts(texts=5000)) == "wait"
    assert next_move(full, Facts(texts=5000, train_asked=True)) == "train"


def test_a_tighter_promise_needs_more_texts() -> None:
    """Half the disagreement takes about twice the texts, and many labels take some each."""
    assert enough_texts(2, 0.02, 0.9) > 1.5 * enough_texts(2, 0.05, 0.9)
    assert enough_texts(150, 0.05, 0.9) >= 3000


def test_a_day_counts_what_counters_grew_by() -> None:
    """A counter that begins again at zero, as a gateway does, loses nothing."""
    today = Today().counted("d1", {"saved_usd": 2.0, "here": 10, "elsewhere": 30})
    today = today.counted("d1", {"saved_usd": 3.0, "here": 20, "elsewhere": 40})
    today = today.counted("d1", {"saved_usd": 0.5, "here": 5, "elsewhere": 0})
    assert (today.saved_usd, today.here, today.elsewhere) == (3.5, 25, 40)

    tomorrow = today.counted("d2", {"saved_usd": 0.75, "here": 6, "elsewhere": 1})
    assert (tomorrow.saved_usd, tomorrow.here, tomorrow.share_here) == (0.25, 1, 0.5)


def test_the_line_says_phase_rows_share_savings_and_certificate() -> None:
    """One line holds all that a user watches."""
    standing = Standing(
        phase="full", certificate="certified", today=Today(day="d", saved_usd=1.234, here=87, elsewhere=13)
    )
    assert line_of(standing, 3412, 3000) == (
        "in force | 3,412 answers collected | 87.0% answered here today | 1.23 USD saved today | certified"
    )
    assert "120 of 500 texts" in line_of(Standing(needed_texts=500), 130, 120)
