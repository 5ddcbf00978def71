"""How the commands of a running gateway's live state speak: lines, and tables of revisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table

from serve.control.admin_client import policy_history
from sluicegate.common import print_json, result_console

Columns = Mapping[str, Callable[[dict[str, Any]], str]]

WHEN: Columns = {
    "number": lambda entry: str(entry["number"]),
    "created_at": lambda entry: str(entry["created_at"]),
    "reason": lambda entry: str(entry["reason"]),
}
POLICY: Columns = {"policy": lambda entry: str(entry["policy_version"][:12])}
STAGES: Columns = {"stages": lambda entry: " -> ".join(entry["stages"])}


def say(line: str) -> None:
    """Print a line of the result as it is."""
    result_console.print(line, highlight=False, markup=False, soft_wrap=True)


def show_history(admin_url: str, family: str | None, columns: Sequence[Columns], *, as_json: bool) -> None:
    """Print the revisions of a family on a gateway, oldest first, with these columns."""
    revisions = policy_history(admin_url, family=family)
    if as_json:
        print_json(revisions)
        return
    cells = {name: cell for part in columns for name, cell in part.items()}
    shown = Table()
    for name in cells:
        shown.add_column(name)
    for entry in revisions:
        shown.add_row(*(cell(entry) for cell in cells.values()))
    result_console.print(shown)
