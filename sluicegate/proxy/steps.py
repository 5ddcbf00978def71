"""The steps of a proxy: each a command of ours, which anybody may run by hand, with a log of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from contract.errors import InputError
from contract.files import read_json, write_json
from sluicegate.proxy.plan import Plan
from sluicegate.proxy.recipe import FAMILY, POLICY, RECIPE

DONE, NOT_MET = 0, 3
_LOOK_EVERY_S = 0.5
_RUNNING = "running.json"


class Stopped(Exception):
    """The proxy was told to stop while a step was under way."""


class Runner:
    """Runs commands, one at a time, below everything else on the machine.

    Args:
        logs: folder of their output.
        stopping: whether to end now.
        meanwhile: called twice a second while one runs.
    """

    def __init__(
        self, logs: Path, stopping: Callable[[], bool], meanwhile: Callable[[], None] = lambda: None
    ) -> None:
        self._logs = logs
        self._stopping = stopping
        self._meanwhile = meanwhile

    def run(self, words: Sequence[str]) -> int:
        """Return the exit code of `sluice WORDS`. Raises Stopped, once it has ended it."""
        self._logs.mkdir(parents=True, exist_ok=True)
        found = shutil.which("nice")
        nice = [found, "-n", "19"] if found else []
        with self.log_of(words).open("ab") as log:
            log.write(f"$ sluice {' '.join(words)}\n".encode())
            log.flush()
            process = subprocess.Popen(
                [*nice, sys.executable, "-m", "sluicegate", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "COLUMNS": "120"},
            )
            self._remember(process.pid)
            try:
                while True:
                    try:
                        return process.wait(_LOOK_EVERY_S)
                    except subprocess.TimeoutExpired:
                        if self._stopping():
                            raise Stopped from None
                        self._meanwhile()
            finally:
                if process.poll() is None:
                    process.terminate()
                    try:
                        process.wait(10)
                    except subprocess.TimeoutExpired:
                        process.kill()
                        process.wait()

    def end_what_was_left(self) -> None:
        """End the command of a runner that was killed itself, if it still runs."""
        try:
            told = read_json(self._logs / _RUNNING)
            process = psutil.Process(int(told["pid"]))
            if process.create_time() == told["created"]:
                process.terminate()
                process.wait(20)
        except (InputError, psutil.Error):
            return

    def _remember(self, pid: int) -> None:
        with suppress(psutil.Error):
            write_json(self._logs / _RUNNING, {"pid": pid, "created": psutil.Process(pid).create_time()})

    def log_of(self, words: Sequence[str]) -> Path:
        """Return the file that a command's output goes to."""
        return self._logs / f"{words[0]}.log"

    def last_words(self, words: Sequence[str]) -> str:
        """Return the last line that a command has written."""
        lines = self.log_of(words).read_text("utf-8", "replace").strip().splitlines()
        return lines[-1].strip() if lines else ""


def compress_words(plan: Plan, number: int) -> list[str]:
    """Return the command that trains; finished steps are kept, so that it goes on after a kill."""
    folder = plan.round_folder(number)
    return ["compress", str(folder / RECIPE), "--out", str(folder / FAMILY)]


def tune_words(plan: Plan, number: int) -> list[str]:
    """Return the command that certifies."""
    folder = plan.round_folder(number)
    return [
        "tune", str(folder / FAMILY), "--max-disagreement", f"{plan.max_disagreement:g}",
        "--confidence", f"{plan.confidence:g}", "--seed", str(plan.seed), "--out", str(folder / POLICY),
    ]  # fmt: skip


def load_words(plan: Plan, number: int) -> list[str]:
    """Return the command that loads the family, while everything still goes to the upstream."""
    family = str(plan.round_folder(number) / FAMILY)
    return ["family", "load", family, "--as", plan.family, "--admin-url", plan.admin_url]


def unload_words(plan: Plan) -> list[str]:
    """Return the command that has everything passed on again."""
    return ["family", "unload", plan.family, "--admin-url", plan.admin_url]


def trial_words(plan: Plan, number: int, kind: str) -> list[str]:
    """Return the command that puts the round's policy on trial."""
    folder = plan.round_folder(number)
    share = plan.shadow_share if kind == "shadow" else plan.canary_share
    auto = "--auto-withdraw" if kind == "shadow" else "--auto"
    return [
        "policy", kind, str(folder / POLICY), "--family", plan.family, "--candidate", str(folder / FAMILY),
        "--share", f"{share:g}", "--measured-by", "agreement", "--no-worse-than", f"{plan.trial_bound:g}",
        "--confidence", f"{plan.trial_confidence:g}", auto, "--admin-url", plan.admin_url,
    ]  # fmt: skip


def withdraw_words(plan: Plan, kind: str) -> list[str]:
    """Return the command that ends a trial."""
    return ["policy", "withdraw", kind, "--family", plan.family, "--admin-url", plan.admin_url]
