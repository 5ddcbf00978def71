"""Progress on stderr: one line per piece of work, quiet where nobody watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from loadtest.runner import LoadProgress
from sluicegate.common import progress_console


@contextmanager
def load_progress(title: str = "load") -> Iterator[Callable[[LoadProgress], None]]:
    """Show how far a load is."""
    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(),
        TextColumn("{task.completed}/{task.total} sent, {task.fields[errors]} errors"), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=progress_console, transient=True) as shown:
        task = shown.add_task(title, total=None, errors=0)

        def update(progress: LoadProgress) -> None:
            shown.update(task, completed=progress.sent, total=progress.planned, errors=progress.errors)

        yield update
