"""The options to decide among, read from runs or from a comparison of arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contract.errors import RunError
from contract.run import Summary, read_summary
from report.analysis.economics import Option


def options_from_runs(folders: Sequence[Path]) -> list[Option]:
    """Return one option per model (and policy) from the valid runs of it.

    Accuracy is pooled, weighted by n; p99 comes from the lowest rate asked; cost and energy from the run
    with the highest goodput, where the machine is used as it would be.

    Raises:
        RunError: for a broken folder, or when every run is void.
    """
    groups: dict[str, list[Summary]] = {}
    void: list[str] = []
    for folder in folders:
        run = read_summary(folder)
        if run.valid:
            groups.setdefault(run.model, []).append(run)
        else:
            void.append(f"{folder.name}: {run.void_reason or 'void'}")
    if not groups:
        raise RunError(
            f"no valid run to decide on ({'; '.join(void)})" if void else "no runs were given",
            hint="sluice loadtest URL --data FILE --rate R --duration S --out RUN",
        )
    return [_option(model, runs) for model, runs in groups.items()]


def _option(model: str, runs: list[Summary]) -> Option:
    labelled = [r for r in runs if r.accuracy is not None]
    calm = min(runs, key=lambda r: r.rate_asked_per_s)
    busy = max(runs, key=lambda r: r.goodput_per_s or 0.0)
    widest = max(labelled, key=lambda r: r.n, default=None)
    accuracy = (
        float(np.average([r.accuracy or 0.0 for r in labelled], weights=[r.n for r in labelled]))
        if labelled
        else None
    )
    interval = None
    if widest is not None and widest.accuracy_interval is not None and accuracy is not None:
        shift = accuracy - (widest.accuracy or 0.0)
        interval = (widest.accuracy_interval[0] + shift, widest.accuracy_interval[1] + shift)
    return Option(
        name=model,
        accuracy=accuracy,
        accuracy_interval=interval,
        usd_per_1k=busy.usd_per_1k,
        usd_interval=_usd_interval(busy),
        energy_wh_per_1k=busy.energy_wh_per_1k,
        energy_provenance=busy.energy_provenance,
        p99_ms=calm.p99_ms,
        goodput_per_s=busy.goodput_per_s,
        n=sum(r.n for r in runs),
    )


def _usd_interval(run: Summary) -> tuple[float, float] | None:
    if run.usd_per_1k is None or run.goodput_interval_per_s is None or not run.goodput_per_s:
        return None
    low, high = run.goodput_interval_per_s
    return run.usd_per_1k * run.goodput_per_s / high, run.usd_per_1k * run.goodput_per_s / max(low, 1e-9)


def options_from_comparison(comparison: Mapping[str, Any]) -> list[Option]:
    """Return one option per compared arm: price at capacity, the rest at the equal rate."""
    options = []
    for arm in comparison["arms"]:
        equal, capacity = arm["equal"], arm.get("capacity") or {}
        price = capacity.get("usd_per_1k") or {"value": None, "interval": None}
        drop = equal.get("accuracy_drop") or {"value": None, "interval": None}
        options.append(
            Option(
                name=arm["name"],
                accuracy=equal["accuracy"]["value"],
                accuracy_interval=equal["accuracy"]["interval"],
                usd_per_1k=price["value"],
                usd_interval=price["interval"],
                energy_wh_per_1k=equal["energy_wh_per_1k"]["value"],
                energy_provenance=comparison["energy_provenance"],
                p99_ms=equal["p99_ms"]["value"],
                goodput_per_s=(capacity.get("goodput_per_s") or {}).get("value"),
                n=equal["n"],
                baseline=comparison["arms"][0]["name"],
                drop_interval=drop["interval"],
            )
        )
    return options
