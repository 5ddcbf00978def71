"""`sluice demo`: the whole path on BBC News, from weights to a report."""

from __future__ import annotations

import fcntl
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import click

from compress.pipeline import run_pipeline
from compress.progress import TerminalProgress
from contract.errors import EnvironmentProblem, FamilyError, TargetNotMet
from contract.family import Family
from contract.files import inside, write_json
from contract.policy import Policy, write_policy
from loadtest.comparison import FULL, QUICK, Comparison, Effort
from loadtest.runner import LoadPlan
from loadtest.scenario import compare
from report.analysis.arms import Arm, Searched
from report.analysis.arms import compare as figures_of
from report.format.tables import to_rich
from report.render import Evidence, headline, render_report
from report.sections.frontier import write_frontier
from report.sections.run_tables import arms_table
from router.tune.targets import Targets
from router.tune.tune import TuneResult, TuneSettings, tune
from serve.local.launcher import start
from serve.settings.gateway import Settings
from sluicegate.common import FOLDER, json_option, print_json, progress_console, result_console
from sluicegate.extras import require
from sluicegate.inputs import read_table
from sluicegate.progress import series_progress

MAX_DROP = 0.02
CONFIDENCE = 0.9


@dataclass(frozen=True)
class Layout:
    """Where the demo keeps what it makes."""

    root: Path

    @property
    def family(self) -> Path:
        """The family's folder."""
        return self.root / "family"

    @property
    def policy(self) -> Path:
        """The certified policy."""
        return self.root / "policy.json"

    @property
    def runs(self) -> Path:
        """The folder of all runs."""
        return self.root / "runs"

    @property
    def comparison(self) -> Path:
        """The figures of the final table."""
        return self.root / "comparison.json"

    @property
    def report(self) -> Path:
        """The page."""
        return self.root / "report.html"


@click.command("demo")
@click.option("--quick", is_flag=True, help="The same joints with fewer steps, within 3 minutes.")
@click.option(
    "--out", type=FOLDER, default=Path("sluicegate-demo"), show_default=True, help="Keeps all that is made."
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of certificate and traffic."
)
@json_option
def command(quick: bool, out: Path, seed: int, as_json: bool) -> None:
    """Build a family from BBC News, certify a policy, serve it, load it, and report.

    Finished steps are kept in --out: run it again, or after Ctrl-C, and it goes on from there. Exits 3 when
    no threshold could be certified.

    \b
    Example: sluice demo
    Example: sluice demo --quick --out /tmp/demo
    """
    require("sluice demo", "serve", "cpu", "compress", "demo", install="demo")
    started = time.monotonic()
    layout = Layout(out.resolve())
    with _only_one(layout.root):
        family = _compress(layout, quick)
        result, single = _tune(layout, seed)
        compared = _serve_and_load(layout, family, single, seed, QUICK if quick else FULL)
        figures = _report(layout, family, result.policy, compared, seed)
    paths = {
        "family": layout.family, "policy": layout.policy, "runs": layout.runs,
        "comparison": layout.comparison, "report": layout.report,
    }  # fmt: skip
    if as_json:
        table = [{"arm": arm["name"], **arm} for arm in figures["arms"]]
        shown = {name: str(path) for name, path in paths.items()}
        print_json({"paths": shown, "table": table, "policy": result.policy.dump(), "figures": figures})
    else:
        result_console.print(to_rich(arms_table(figures)))
        _say(result_console, headline(figures))
        for name, path in paths.items():
            _say(result_console, f"{name:<11}{path}")
        _say(progress_console, f"{time.monotonic() - started:.0f} s in all")
    require_certified(result.policy)


def require_certified(policy: Policy) -> None:
    """Raise TargetNotMet when no threshold was safe: the cascade then sends everything to the reference."""
    if policy.status == "no_safe_threshold":
        needed = (
            "" if policy.needed_n is None else f"; about {policy.needed_n:,} labelled rows would be needed"
        )
        raise TargetNotMet(
            f"no threshold is certified for a drop within {MAX_DROP:.0%}, all texts go to "
            f"{policy.reference!r}{needed}"
        )


def _compress(layout: Layout, quick: bool) -> Family:
    recipes = resources.files("sluicegate") / "recipes"
    name = "demo-quick.yaml" if quick else "demo.yaml"
    with resources.as_file(recipes / name) as recipe, TerminalProgress(progress_console) as progress:
        family = run_pipeline(recipe, layout.family, progress=progress)
    write_frontier(family, layout.family / "frontier.svg")
    return family


def _tune(layout: Layout, seed: int) -> tuple[TuneResult, str]:
    """Write the policy; also return the cheapest single variant that is certified for the same drop."""
    table = read_table(layout.family, None, None)
    if table.family is None:
        raise FamilyError("the family has no manifest", where=layout.family)
    settings = TuneSettings(
        reference=table.family.teacher,
        confidence=CONFIDENCE,
        seed=seed,
        artifact_sha256=table.artifacts,
        machine=table.machine,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    targets = Targets(max_accuracy_drop=MAX_DROP)
    result = tune(table.predictions, table.costs, targets, settings)
    write_policy(layout.policy, result.policy)
    alone = tune(table.predictions, table.costs, targets, replace(settings, max_stages=1))
    _say(progress_console, f"policy: {result.policy.status}")
    for line in result.explanation:
        _say(progress_console, "  " + line)
    return result, alone.policy.stages[0].variant


def _serve_and_load(layout: Layout, family: Family, single: str, seed: int, effort: Effort) -> Comparison:
    if family.data is None:
        raise FamilyError("the family has no held-out texts", where=layout.family)
    port, admin_port = _free_ports()
    settings = Settings(
        family=str(layout.family), policy=str(layout.policy), port=port, admin_port=admin_port
    )
    began = time.monotonic()
    shutil.rmtree(layout.runs, ignore_errors=True)
    with start(settings, lambda words: _say(progress_console, f"gateway: {words}")) as gateway:
        _say(progress_console, f"gateway: ready at {gateway.url} after {time.monotonic() - began:.1f} s")
        plan = LoadPlan(
            url=gateway.url, data=inside(layout.family, family.data.path), split="test",
            slice_column="slice", rate_per_s=1.0, duration_s=1.0, seed=seed,
        )  # fmt: skip
        _say(progress_console, "load: teacher, single variant and cascade, open loop")
        arms = {"teacher": family.teacher, "single": single, "cascade": "cascade"}
        with series_progress() as progress:
            return compare(plan, arms, layout.runs, effort=effort, progress=progress)


def _report(
    layout: Layout, family: Family, policy: Policy, compared: Comparison, seed: int
) -> dict[str, Any]:
    arms = [
        Arm(
            a.name,
            a.model,
            a.equal_runs,
            a.capacity_runs,
            Searched(
                a.capacity.rate_per_s, a.capacity.limited_by, a.capacity.confirmed, a.capacity.interval_per_s
            ),
        )
        for a in compared.arms
    ]
    figures = figures_of(arms, seed=seed)
    write_json(layout.comparison, figures)
    render_report(
        Evidence(
            family=family,
            family_folder=layout.family,
            policies=[policy],
            runs=[run for arm in compared.arms for run in (*arm.equal_runs, *arm.capacity_runs)],
            comparison=figures,
            steps=[step.run for arm in compared.arms for step in arm.capacity.steps if step.run],
        ),
        layout.report,
    )
    return figures


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Refuse a second demo in the same folder. The lock goes with the process, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EnvironmentProblem(
                f"another demo is at work in {folder}", hint="wait for it, or give another --out"
            ) from None
        yield


def _free_ports() -> tuple[int, int]:
    """Return two free ports of loopback from 8000 up: those that the system draws may go to Ray meanwhile."""
    found: list[int] = []
    for port in range(8000, 9000):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == 2:
            return found[0], found[1]
    raise EnvironmentProblem("no two ports from 8000 to 8999 are free", hint="stop what listens there")


def _say(console: Any, words: str) -> None:
    console.print(words, highlight=False, markup=False, soft_wrap=True)
