"""Progress of load on stderr: what is asked now, quiet where nobody watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from loadtest.runner import LoadProgress
from loadtest.sweep import StepProgress
from sluicegate.common import progress_console


@contextmanager
def load_progress() -> Iterator[Callable[[LoadProgress], None]]:
    """Show how far one load is."""
    with series_progress() as watch:
        yield lambda load: watch(StepProgress("load", 1, 1, load))


@contextmanager
def series_progress() -> Iterator[Callable[[StepProgress], None]]:
    """Show which of a series of loads is at work, and how far it is."""
    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24),
        TextColumn("{task.completed}/{task.total} sent, {task.fields[errors]} errors"), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=progress_console, transient=True) as shown:
        task = shown.add_task("load", total=None, errors=0)

        def watch(now: StepProgress) -> None:
            of = "" if now.steps is None else f" of {now.steps}"
            title = f"{now.title} ({now.step}{of})" if now.steps != 1 else now.title
            load = now.load
            shown.update(task, description=title, completed=load.sent, total=load.planned, errors=load.errors)

        yield watch
