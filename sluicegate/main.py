"""The command `sluice`: finds the sub-command, runs it, and turns errors into exit codes, once.

Exit codes: 0 done, 1 failed, 2 usage, 3 ran but the target was not met, 130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from types import FrameType

import click

from sluicegate.own_packages import put_first

# The help texts live here so that `sluice --help` imports no command.
COMMANDS = {
    "demo": "Build a family from BBC News, certify a policy, serve it, load it, report.",
    "compress": "Turn a recipe and labelled data into a family of variants.",
    "inspect": "Show a family: accuracy, latency, size, energy and cost of every variant.",
    "tune": "Find thresholds that keep a target, with a certificate.",
    "label": "Say which rows to label, and certify with few labels.",
    "simulate": "Replay a policy on predictions: accuracy, escalation, cost.",
    "verify": "Recompute a certificate from the rows, or check a state's chain of revisions.",
    "serve": "Start the gateway in the foreground.",
    "stand-in": "Answer as a large model's server does, from a family, to try things on.",
    "collect": "Pass every question on to a large model, and keep what it answers.",
    "proxy": "Stand in front of a large model, learn from it, and answer what is certified.",
    "family": "Push, list and roll back the family of a running gateway.",
    "policy": "Show, push, list and roll back the policy of a running gateway.",
    "keys": "Make, list, rotate and revoke API keys, with limits and quotas.",
    "loadtest": "Drive a gateway with labelled, open-loop traffic and write a run.",
    "sweep": "Find what rate a gateway holds within an objective.",
    "runs": "List, tag, compare and prune the runs of load tests.",
    "gate": "Compare two runs; fail when the newer one is worse.",
    "report": "Draw a report from a family, policies and runs.",
    "decide": "Recommend an operating point, in money and carbon.",
}


class LazyGroup(click.Group):
    """A group that imports a sub-command when it is run, so that help costs nothing."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one sub-command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(
            f"sluicegate.{cmd_name.replace('-', '_')}_cmd"
        ).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of sub-commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("sluicegate"), prog_name="sluice")
def cli() -> None:
    """Answer with small models, escalate only what they are unsure about, and know what that costs.

    Start with `sluice demo`. Results go to stdout (--json for programs), progress to stderr.
    """


WHEN_INTERRUPTED = {
    "compress": "finished steps are kept, the same command goes on from there",
    "demo": "finished steps are kept, the same command goes on from there",
    "loadtest": "no run was written",
}


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line and exit.

    SIGTERM and a closed terminal unwind as Ctrl-C does, so that everything that was started is stopped;
    `serve` has its own way.
    """
    left_out = put_first()
    from contract.errors import SluiceError, TargetNotMet
    from sluicegate.extras import explain_missing

    _fill_closed_streams()
    # All by name: a shell starts background jobs with SIGINT ignored. What nohup ignores stays so.
    hangup = getattr(signal, "SIGHUP", signal.SIGTERM)
    for number in (signal.SIGINT, signal.SIGTERM, hangup):
        if number != hangup or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        for folder in left_out:
            click.echo(f"PYTHONPATH: {folder} is left out: it has modules of the names of ours", err=True)
        code = cli.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Exit as leaving:
        sys.exit(leaving.exit_code)
    except click.ClickException as problem:
        problem.show()
        sys.exit(problem.exit_code)
    except TargetNotMet as missed:
        click.echo(f"target not met: {missed}", err=True)
        sys.exit(3)
    except SluiceError as problem:
        click.echo(f"error: {problem}", err=True)
        sys.exit(1)
    except ModuleNotFoundError as missing:
        told = explain_missing(missing.name)
        if told is None:
            raise
        click.echo(f"error: {told}", err=True)
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort):
        _leave_interrupted(next((word for word in sys.argv[1:] if word in COMMANDS), ""))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as problem:
        if not _in_a_folder():
            click.echo("error: the working directory is gone\n  try: cd to one that is there", err=True)
        else:
            click.echo(f"error: {problem.filename or 'system'}: {problem.strerror or problem}", err=True)
        sys.exit(1)


def _fill_closed_streams() -> None:
    """Open /dev/null on each closed standard stream, whose number another file or pipe would get."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _leave_interrupted(command: str) -> None:
    if command == "serve":
        # Stopped before its own handlers were in place: nothing had been started.
        sys.exit(0)
    with suppress(OSError):
        click.echo("; ".join(["interrupted", *filter(None, [WHEN_INTERRUPTED.get(command)])]), err=True)
    sys.exit(130)


def _in_a_folder() -> bool:
    try:
        return Path.cwd().is_dir()
    except OSError:
        return False


if __name__ == "__main__":
    main()
