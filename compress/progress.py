"""What the pipeline tells while it works, and a terminal that shows it."""

from __future__ import annotations

from types import TracebackType
from typing import Literal, Protocol, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

Outcome = Literal["done", "reused"]


class Progress(Protocol):
    """Told about every step, in order: begin, any number of updates, end. A step that fails never ends."""

    def begin(self, step: str, title: str) -> None:
        """A step starts."""
        ...

    def update(self, step: str, share: float, words: str = "") -> None:
        """A step has come this far (0 to 1)."""
        ...

    def tell(self, step: str, words: str) -> None:
        """A step says what should stay to be read."""
        ...

    def end(self, step: str, outcome: Outcome, words: str = "") -> None:
        """A step is finished, or its earlier result is used."""
        ...


class Silent:
    """Shows nothing."""

    def begin(self, step: str, title: str) -> None:
        """Nothing."""

    def update(self, step: str, share: float, words: str = "") -> None:
        """Nothing."""

    def tell(self, step: str, words: str) -> None:
        """Nothing."""

    def end(self, step: str, outcome: Outcome, words: str = "") -> None:
        """Nothing."""


class TerminalProgress:
    """A bar for the step at work on stderr and a line for each finished one. A context manager."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[words]}"),
            console=self._console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._title = ""

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def begin(self, step: str, title: str) -> None:  # noqa: ARG002
        """Start a bar."""
        self._title = title
        self._task = self._bars.add_task(title, total=1.0, words="")

    def update(self, step: str, share: float, words: str = "") -> None:  # noqa: ARG002
        """Move the bar."""
        if self._task is not None:
            self._bars.update(self._task, completed=share, words=words)

    def tell(self, step: str, words: str) -> None:
        """Print a line above the bar."""
        self._console.print(f"[cyan]{step}[/]: {escape(words)}", highlight=False)

    def end(self, step: str, outcome: Outcome, words: str = "") -> None:
        """Replace the bar by a line."""
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None
        mark = "[green]done  [/]" if outcome == "done" else "[blue]reused[/]"
        self._console.print(f"{mark} {self._title or step}  [dim]{words}[/]", highlight=False)
        self._title = ""
