"""The supervisor: looks, decides, runs one step, and writes down where that leaves the proxy."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from contract.errors import InputError, SluiceError
from contract.policy import Policy, read_policy
from sluicegate.proxy import recipe, steps
from sluicegate.proxy.gateway import Gateway, View
from sluicegate.proxy.line import line_of
from sluicegate.proxy.moves import SHARES, Facts, Move, enough_texts, next_move
from sluicegate.proxy.plan import Plan
from sluicegate.proxy.questions import asked_lately, most_asked, why_none
from sluicegate.proxy.standing import TRAIN_NOW, InForce, Phase, Today, read_standing, write_standing
from tables.collected.store import STORE, CollectedStore
from tables.collected.training import Counts

log = logging.getLogger(__name__)

MORE = 1.5
"""After a training that led nowhere, the next begins with so many times as many texts."""
RETRY_S, MOST_S = 10.0, 60.0
"""Between looks: after a step that failed, and where counting a large store takes long itself."""
OTHER_POLICY = "another policy is in force: sluice policy show"
OTHER_QUESTION = "another question is asked now: sluice proxy train learns it instead"
ASK_TO_TRAIN = "sluice proxy train tries again"
_NONE = Counts(0, 0, 0, 0, {}, 0.0, 0.0, 0.0, 0)


class Supervisor:
    """Takes a proxy from one phase to the next. A kill at any point costs the step that was under way.

    Args:
        plan: what it was told.
        stopping: whether to end.
        tell: hears the line, twice a second while a step runs, else after each look.
        view: of the gateway; None: as it answers at its ports.
        why_no_answer: asks the upstream one collected text as a stage will, and says why that fails.
        now: the time.

    Attributes:
        standing: where the proxy stands.
        counting_s: what it took to count what was collected.
    """

    def __init__(
        self,
        plan: Plan,
        stopping: Callable[[], bool],
        tell: Callable[[str], None],
        *,
        view: View | None = None,
        why_no_answer: Callable[[Plan, str], str] = recipe.why_no_answer,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.standing = read_standing(plan.folder)
        self._asked = plan
        self._plan = plan.of_round(self.standing.options)
        self._why_no_answer = why_no_answer
        self._refused, self._ask_again_at = "", 0.0
        self._tell = tell
        self._view = view or Gateway(plan.url, plan.admin_url, self._plan.family)
        self._now = now
        self._runner = steps.Runner(plan.folder / "logs", stopping, self._tell_again)
        self._counts = _NONE
        self.counting_s = 0.0

    def once(self) -> Move:
        """Look once, and make the move that follows. Raises steps.Stopped."""
        facts = self._look()
        self._note(today=self._today())
        if facts is not None and self.standing.phase == "full":
            self._look_at_what_is_in_force(facts)
        self._tell_again()
        if self._forget_texts():
            return "go_back"
        if facts is None or not self.standing.question:
            return "wait"
        move = next_move(self.standing, facts, trains=self._plan.trains)
        if move == "train" and not self._asked.keep_texts:
            return "wait"
        if move != "wait":
            self._make(move)
            self._tell_again()
        return move

    def end_what_was_left(self) -> None:
        """End the step of a proxy that was killed, which would keep its own step from beginning again."""
        self._runner.end_what_was_left()

    def _look(self) -> Facts | None:
        """Return what is there to act on; None while no gateway answers, or nothing was ever collected."""
        plan = self._plan
        began = time.monotonic()
        if not (plan.collected / STORE).exists():
            return None
        store = CollectedStore.open(plan.collected)
        found = most_asked(store, "" if self.standing.phase == "collecting" else self.standing.question)
        self.counting_s = time.monotonic() - began
        facts = self._view.look()
        if found is None:
            self._note(problem=why_none(store))
            return facts
        sha256, question, self._counts = found
        if self.standing.phase == "collecting" and (
            not self.standing.round or sha256 != self.standing.question
        ):
            needed = plan.needed_texts or enough_texts(
                len(question.labels), plan.max_disagreement, plan.confidence
            )
            self._note(question=sha256, needed_texts=needed)
        problem = ""
        if self._counts.rows and not self._counts.kept_texts:
            problem = "no texts are kept, so nothing can be trained: --keep-texts"
        problem = problem or self._refused
        if self.standing.phase == "collecting" and (problem or not self.standing.round):
            self._note(problem=problem)
        if facts is not None:
            asked = (plan.folder / TRAIN_NOW).exists()
            facts = replace(facts, texts=self._counts.kept_texts, train_asked=asked)
        return facts

    def _today(self) -> Today:
        day = self._now().date().isoformat()
        return self.standing.today.counted(day, self._view.counters())

    def _make(self, move: Move) -> None:
        plan, number = self._plan, self.standing.round
        match move:
            case "train":
                self._train()
            case "tune":
                self._tune()
            case "load":
                if self._may_ask(self.standing.question):
                    self._run(steps.load_words(plan, number))
            case "unload":
                self._run(steps.unload_words(plan))
            case "begin_shadow":
                self._enter("shadow")
                if self._run(steps.trial_words(plan, number, "shadow")):
                    self._note(trial_begun=True)
            case "begin_canary" if self.standing.phase == "shadow":
                self._enter("canary")
            case "begin_canary":
                if self._run(steps.trial_words(plan, number, "canary")):
                    self._note(trial_begun=True)
            case "end_shadow":
                self._run(steps.withdraw_words(plan, "shadow"))
            case "settle":
                self._enter("full", in_force=None)
                self._forget_rounds()
            case "go_back":
                self._go_back(f"the {self.standing.phase} of round {number} was withdrawn")

    def _train(self) -> None:
        if self.standing.phase != "training" and not self._begin_round():
            return
        plan, number = self._plan, self.standing.round
        if self._is_for_another():
            return
        try:
            recipe.prepare(plan, self.standing.question, plan.round_folder(number))
        except InputError as problem:
            self._go_back(str(problem))
            return
        if self._run(steps.compress_words(plan, number), or_back=True):
            self._enter("certifying")

    def _is_for_another(self) -> bool:
        """Return whether the round was begun for another upstream, key or price; if so, go back."""
        if not recipe.asks_otherwise(self._plan, self._plan.round_folder(self.standing.round)):
            return False
        self._go_back("the training under way was for another upstream, key or price", more=False)
        return True

    def _begin_round(self) -> bool:
        """Enter a training under the options of this start; return False where the upstream says no."""
        question, before = self.standing.question, None
        if self.standing.phase == "full":
            store = CollectedStore.open(self._plan.collected)
            if self.standing.problem == OTHER_QUESTION and (found := most_asked(store, lately=True)):
                question = found[0]
            before = InForce.model_validate(
                {name: getattr(self.standing, name) for name in InForce.model_fields}
            )
        if not self._may_ask(question):
            return False
        options = {**self._asked.round_options, "family": self._plan.family}
        self._plan = self._asked.of_round(options)
        number = self.standing.round + 1
        shutil.rmtree(self._plan.round_folder(number), ignore_errors=True)  # of one that led nowhere
        self._enter(
            "training", round=number, policy_version="", question=question,
            in_force=before, options=options,
        )  # fmt: skip
        (self._plan.folder / TRAIN_NOW).unlink(missing_ok=True)
        return True

    def _may_ask(self, question: str) -> bool:
        """Return whether the upstream answers a stage; if not, say so, and ask again a minute later."""
        if time.monotonic() < self._ask_again_at:
            return False
        self._refused = self._why_no_answer(self._asked, question)
        self._ask_again_at = time.monotonic() + MOST_S if self._refused else 0.0
        self._note(problem=self._refused)
        return not self._refused

    def _look_at_what_is_in_force(self, facts: Facts) -> None:
        known = {"", OTHER_POLICY, OTHER_QUESTION}
        problem = "" if self.standing.problem in known else self.standing.problem
        if facts.in_force != self.standing.policy_version:
            problem = OTHER_POLICY
        elif self._counts.rows and self.standing.question not in asked_lately(
            CollectedStore.open(self._plan.collected)
        ):
            problem = OTHER_QUESTION
        self._note(problem=problem)

    def _forget_texts(self) -> bool:
        """Once there is no consent, remove rounds' copies of texts; return whether a training ended by it."""
        if self._asked.keep_texts:
            return False
        learning = self.standing.phase in ("training", "certifying")
        if learning:
            self._go_back("texts are not kept any more: --keep-texts")
        self._forget_rounds()
        return learning

    def _forget_rounds(self) -> None:
        """Remove copies of texts of rounds that are over."""
        phase, number = self.standing.phase, self.standing.round
        used = {number} if phase not in ("collecting", "training", "certifying") else set()
        under_way = {number} if phase in ("training", "certifying") else set()
        used |= {self.standing.in_force.round} if self.standing.in_force is not None else set()
        for one in range(1, number + 1):
            if one not in under_way:
                recipe.forget(self._plan.round_folder(one), wholly=one not in used)

    def _tune(self) -> None:
        if self._is_for_another():
            return
        plan, number = self._plan, self.standing.round
        words = steps.tune_words(plan, number)
        code = self._runner.run(words)
        if code not in (steps.DONE, steps.NOT_MET):
            self._go_back(f"{self._runner.last_words(words)}; {ASK_TO_TRAIN}", more=False)
            return
        policy = read_policy(plan.round_folder(number) / recipe.POLICY)
        if code == steps.NOT_MET:
            needed = math.ceil((policy.needed_n or 0) / SHARES["certify"])
            self._go_back(f"round {number}: nothing could be certified", at_least=needed)
            return
        self._enter("loading", policy_version=policy.version, certificate=standing_of(policy))
        self._forget_rounds()

    def _run(self, words: list[str], *, or_back: bool = False) -> bool:
        """Run a step; where it fails, say so, and try again at the next look or go back."""
        code = self._runner.run(words)
        if code == steps.DONE:
            self._note(problem="")
            return True
        problem = f"sluice {' '.join(words[:2])} failed: {self._runner.last_words(words)}"
        if or_back:
            self._go_back(f"{problem}; {ASK_TO_TRAIN}", more=False)
        else:
            self._note(problem=problem)
        return False

    def _go_back(self, why: str, *, at_least: int = 0, more: bool = True) -> None:
        """Go on with what is in force, or else collect on.

        Args:
            why: told on the line.
            at_least: distinct texts of the next training.
            more: whether that begins once there is enough more; else it must be asked for.
        """
        before = self.standing.in_force
        if before is not None:
            recipe.forget(self._plan.round_folder(self.standing.round), wholly=True)
            self._plan = self._asked.of_round(before.options)
            problem = f"{why}; what was in force before is still"
            self._enter("full", **before.model_dump(), in_force=None, problem=problem)
            return
        needed = max(at_least, math.ceil(MORE * max(self._counts.kept_texts, self.standing.needed_texts)))
        self._enter("collecting", problem=why, needed_texts=needed if more else 0, certificate="")
        self._forget_rounds()

    def _enter(self, phase: Phase, **changes: Any) -> None:
        since = self._now().isoformat(timespec="seconds")
        told = {"phase": phase, "since": since, "trial_begun": False, "problem": ""}
        self._note(**{**told, **changes})

    def _note(self, **changes: Any) -> None:
        changed = self.standing.model_copy(update=changes)
        if changed != self.standing:
            self.standing = changed
            write_standing(self._plan.folder, changed)

    def _tell_again(self) -> None:
        self._tell(line_of(self.standing, self._counts.rows, self._counts.kept_texts))


def standing_of(policy: Policy) -> str:
    """Return the standing of a policy's certificate in a few words."""
    found = policy.certificate
    if found is None:
        return f"{policy.status}: no certificate"
    return (
        f"certified: at most {found.epsilon:.1%} answered otherwise, at {1 - found.delta:.0%} confidence, "
        f"on {found.n_certify:,} texts"
    )


def supervise(
    plan: Plan,
    stopping: Callable[[], bool],
    tell: Callable[[str], None],
    wait: Callable[[float], object] = time.sleep,
) -> None:
    """Supervise until told to stop; what goes wrong is told, and tried again."""
    supervisor = Supervisor(plan, stopping, tell)
    supervisor.end_what_was_left()
    while not stopping():
        try:
            move = supervisor.once()
        except steps.Stopped:
            return
        except (SluiceError, OSError) as problem:
            tell(f"{supervisor.standing.phase} | {problem}")
            move = "wait"
        except Exception as problem:
            log.exception("a step of the proxy failed in a way that none should")
            tell(f"{supervisor.standing.phase} | {type(problem).__name__}: {problem}")
            move = "wait"
        if move == "wait" or supervisor.standing.problem:
            counting_s = min(MOST_S, 20 * supervisor.counting_s)
            wait(max(1.0 if move == "wait" else RETRY_S, counting_s))


def ask_to_train(folder: Path) -> None:
    """Have the proxy of a folder train at its next look, with what there is."""
    if not folder.is_dir():
        raise InputError(
            "there is no proxy here", where=folder, hint="sluice proxy --upstream URL --out FOLDER"
        )
    (folder / TRAIN_NOW).touch()
