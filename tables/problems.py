"""What is wrong with the rows of a file, told all at once."""

from __future__ import annotations

from collections.abc import Sequence

from contract.errors import DataError

LISTED = 20


def refuse(problems: Sequence[tuple[str, str]], *, where: object, hint: str | None = None) -> None:
    """Raise DataError that lists the first twenty of some (place, rule) problems, if there are any."""
    if not problems:
        return
    if len(problems) == 1:
        place, rule = problems[0]
        raise DataError(rule, where=place, hint=hint)
    lines = [f"{len(problems):,} rows break a rule"]
    lines += [f"  {place}: {rule}" for place, rule in problems[:LISTED]]
    if len(problems) > LISTED:
        lines.append(f"  and {len(problems) - LISTED:,} more")
    raise DataError("\n".join(lines), where=where, hint=hint)
