"""Repeats of one run as one run: their requests one after another, what the server used added up. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from loadtest.scrape import ServerUse
from loadtest.summary import Setting

TIMES = ("intended_at_s", "sent_at_s", "done_at_s")


def pooled_requests(tables: Sequence[pa.Table], settings: Sequence[Setting]) -> pa.Table:
    """Return the requests of all repeats, each moved in time to where the one before it ended.

    So a rate over the whole is one of the time that was measured, not of the time between.
    """
    moved, begin = [], settings[0].window_start_s
    for table, setting in zip(tables, settings, strict=True):
        moved.append(_moved(table, begin - setting.window_start_s))
        begin += setting.duration_s
    return pa.concat_tables(moved)


def _moved(table: pa.Table, by_s: float) -> pa.Table:
    at = {name: pa.array(table[name].to_numpy() + by_s) for name in TIMES}
    return pa.table({name: at.get(name, table[name]) for name in table.column_names}, schema=table.schema)


def pooled_setting(settings: Sequence[Setting]) -> Setting:
    """Return what was asked of all repeats together; the generator's share of a core is the largest."""
    shares = [s.generator_cpu_share for s in settings if s.generator_cpu_share is not None]
    return replace(
        settings[0],
        duration_s=sum(s.duration_s for s in settings),
        generator_cpu_share=max(shares, default=None),
        stopped_early=any(s.stopped_early for s in settings),
        unmetered_reason=next((s.unmetered_reason for s in settings if s.unmetered_reason), None),
    )


def pooled_use(uses: Sequence[ServerUse | None]) -> ServerUse | None:
    """Return what was used in all repeats together; None, or None of a kind, where one does not tell."""
    known = [use for use in uses if use is not None]
    if not known or len(known) < len(uses):
        return None
    cpu: Counter[str] = Counter()
    for use in known:
        cpu.update(use.cpu_seconds or {})
    return ServerUse(
        window_s=sum(use.window_s for use in known),
        served=_sum([use.served for use in known]),
        cpu_seconds=dict(cpu) if all(use.cpu_seconds is not None for use in known) else None,
        joules=_sum([use.joules for use in known]),
        idle_joules=_sum([use.idle_joules for use in known]),
        beside_cpu_seconds=sum(use.beside_cpu_seconds for use in known),
        provenance=known[0].provenance if len({use.provenance for use in known}) == 1 else "none",
        charged_usd=_sum([use.charged_usd for use in known]),
    )


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
