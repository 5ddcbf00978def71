"""The supervisor: looks, decides, runs one step, and writes down where that leaves the proxy."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from contract.collected import Question
from contract.errors import DataError, InputError, SluiceError
from contract.policy import Policy, read_policy
from sluicegate.proxy import recipe, steps
from sluicegate.proxy.gateway import Gateway, View
from sluicegate.proxy.line import line_of
from sluicegate.proxy.moves import SHARES, Facts, Move, enough_texts, next_move
from sluicegate.proxy.plan import Plan
from sluicegate.proxy.standing import TRAIN_NOW, Phase, Today, read_standing, write_standing
from tables.collected.store import CollectedStore
from tables.collected.training import Counts, count

MORE = 1.5
"""After a training that led nowhere, the next begins with so many times as many texts."""
RETRY_S, MOST_S = 10.0, 60.0
"""Between looks: after a step that failed, and where counting a large store takes long itself."""
_NONE = Counts(0, 0, 0, 0, {}, 0.0, 0.0, 0.0, 0)


class Supervisor:
    """Takes a proxy from one phase to the next. A kill at any point costs the step that was under way.

    Args:
        plan: what it was told.
        stopping: whether to end.
        tell: hears the line, twice a second while a step runs, else after each look.
        view: of the gateway; None: as it answers at its ports.
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
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._plan = plan
        self._tell = tell
        self._view = view or Gateway(plan.url, plan.admin_url, plan.family)
        self._now = now
        self._runner = steps.Runner(plan.folder / "logs", stopping, self._tell_again)
        self._counts = _NONE
        self.counting_s = 0.0
        self.standing = read_standing(plan.folder)

    def once(self) -> Move:
        """Look once, and make the move that follows. Raises steps.Stopped."""
        facts = self._look()
        self._note(today=self._today())
        if facts is not None and self.standing.phase == "full":
            ours = facts.in_force == self.standing.policy_version
            self._note(problem="" if ours else "another policy is in force: sluice policy show")
        self._tell_again()
        if facts is None or not self.standing.question:
            return "wait"
        move = next_move(self.standing, facts, trains=self._plan.trains)
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
        try:
            store = CollectedStore.open(plan.collected)
            found = most_asked(store, self.standing.question if self.standing.round else "")
        except DataError:
            return None
        self.counting_s = time.monotonic() - began
        facts = self._view.look()
        if found is None:
            return facts
        sha256, question, self._counts = found
        if not self.standing.round:
            needed = plan.needed_texts or enough_texts(
                len(question.labels), plan.max_disagreement, plan.confidence
            )
            self._note(question=sha256, needed_texts=needed)
        problem = ""
        if self._counts.rows and not self._counts.kept_texts:
            problem = "no texts are kept, so nothing can be trained: --keep-texts"
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
                self._run(steps.load_words(plan, number))
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
                self._enter("full")
            case "go_back":
                self._go_back(f"the {self.standing.phase} of round {number} was withdrawn")

    def _train(self) -> None:
        plan = self._plan
        if self.standing.phase != "training":
            self._enter("training", round=self.standing.round + 1, policy_version="")
            (plan.folder / TRAIN_NOW).unlink(missing_ok=True)
        number = self.standing.round
        try:
            recipe.prepare(plan, self.standing.question, plan.round_folder(number))
        except InputError as problem:
            self._go_back(str(problem))
            return
        if self._run(steps.compress_words(plan, number), or_back=True):
            self._enter("certifying")

    def _tune(self) -> None:
        plan, number = self._plan, self.standing.round
        words = steps.tune_words(plan, number)
        code = self._runner.run(words)
        if code not in (steps.DONE, steps.NOT_MET):
            self._go_back(self._runner.last_words(words))
            return
        policy = read_policy(plan.round_folder(number) / recipe.POLICY)
        if code == steps.NOT_MET:
            needed = math.ceil((policy.needed_n or 0) / SHARES["certify"])
            self._go_back(f"round {number}: nothing could be certified", at_least=needed)
            return
        self._enter("loading", policy_version=policy.version, certificate=standing_of(policy))

    def _run(self, words: list[str], *, or_back: bool = False) -> bool:
        """Run a step; where it fails, say so, and try again at the next look or go back."""
        code = self._runner.run(words)
        if code == steps.DONE:
            self._note(problem="")
            return True
        problem = f"sluice {' '.join(words[:2])} failed: {self._runner.last_words(words)}"
        if or_back:
            self._go_back(problem)
        else:
            self._note(problem=problem)
        return False

    def _go_back(self, why: str, *, at_least: int = 0) -> None:
        """Collect on; another training begins once there is enough more."""
        needed = max(at_least, math.ceil(MORE * max(self._counts.kept_texts, self.standing.needed_texts)))
        self._enter("collecting", problem=why, needed_texts=needed, certificate="")

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


def most_asked(store: CollectedStore, sha256: str = "") -> tuple[str, Question, Counts] | None:
    """Return the question of that hash, or the one with the most answers that can be learnt.

    That is a choice among texts: such a question is known again by its choices. None where there is none yet.
    """
    questions = store.questions()
    if sha256:
        return sha256, questions[sha256], count(store, sha256)
    able = [name for name, one in questions.items() if one.kind == "choice" and not one.booleans]
    counted = {name: count(store, name) for name in able}
    if not counted:
        return None
    best = max(counted, key=lambda name: counted[name].rows)
    return best, questions[best], counted[best]


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
