"""The decision: which way of answering to run, in money and carbon, and why the others were not taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from contract.errors import RunError
from contract.run import Summary, read_summary
from report.economics import Account, Business, Option, account
from report.figures import money, percent, percent_interval, points, significant
from report.tables import Row, Table


@dataclass(frozen=True)
class Judged:
    """An option with its account, and the limit that it breaks, if any."""

    option: Option
    account: Account
    refused: str = ""


@dataclass(frozen=True)
class Decision:
    """The recommended option (None: none is acceptable), the reasons, and everything that was weighed.

    `sure` says that the winner's interval of total cost lies below the runner-up's.
    """

    chosen: str | None
    sure: bool
    reasons: tuple[str, ...]
    judged: tuple[Judged, ...]
    business: Business

    def dump(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "chosen": self.chosen,
            "sure": self.sure,
            "reasons": list(self.reasons),
            "options": [
                {**asdict(j.option), "account": asdict(j.account), "refused": j.refused or None}
                for j in self.judged
            ],
            "business": self.business.model_dump(mode="json"),
            "grid_g_per_kwh": self.business.intensity(),
        }


def decide(options: Sequence[Option], business: Business) -> Decision:
    """Return the cheapest acceptable option of a month, errors and carbon priced in.

    Acceptable: within the business's limits on p99 and accuracy. Options whose total is unknown cannot win.
    """
    best = max((o.accuracy for o in options if o.accuracy is not None), default=None)
    judged = [Judged(o, account(o, business), _refusal(o, business, best)) for o in options]
    fit = [j for j in judged if not j.refused and j.account.total_usd is not None]
    fit.sort(key=lambda j: (j.account.total_usd, j.account.kg_co2e or 0.0))
    judged.sort(key=lambda j: (bool(j.refused), j.account.total_usd is None, j.account.total_usd or 0.0))
    if not fit:
        why = "no option keeps the limits" if judged else "there is no valid run to decide on"
        return Decision(None, False, (f"Nothing can be recommended: {why}.",), tuple(judged), business)
    winner = fit[0]
    sure, reasons = _reasons(winner, fit, best, business)
    return Decision(winner.option.name, sure, tuple(reasons), tuple(judged), business)


def _refusal(option: Option, business: Business, best: float | None) -> str:
    if business.max_p99_ms is not None and (option.p99_ms is None or option.p99_ms > business.max_p99_ms):
        return f"p99 {significant(option.p99_ms)} ms is over {significant(business.max_p99_ms)} ms"
    if business.min_accuracy is not None and (option.accuracy or 0.0) < business.min_accuracy:
        return f"accuracy {percent(option.accuracy)} is under {percent(business.min_accuracy)}"
    if business.max_accuracy_drop is not None and best is not None:
        drop = best - (option.accuracy or 0.0)
        if drop > business.max_accuracy_drop:
            return f"accuracy drop {points(drop)} points is over {points(business.max_accuracy_drop)}"
    return ""


def _reasons(
    winner: Judged, fit: list[Judged], best: float | None, business: Business
) -> tuple[bool, list[str]]:
    option, cost = winner.option, winner.account
    month = f"{significant(business.requests_per_month, 3)} requests a month"
    reasons = [
        f"{option.name} costs {money(cost.total_usd)} for {month}: {money(cost.compute_usd)} for machines"
        + (f", {money(cost.error_usd)} for wrong answers" if business.usd_per_error else "")
        + (f", {money(cost.energy_usd)} for electricity" if business.usd_per_kwh else "")
        + (f", {money(cost.carbon_usd)} for carbon" if business.usd_per_tonne_co2e else "")
        + "."
    ]
    if option.accuracy is not None and best is not None:
        reasons.append(
            f"It answers {percent_interval(option.accuracy, option.accuracy_interval)} right, "
            f"{points(option.accuracy - best)} points against the most accurate option."
        )
    if cost.kg_co2e is not None:
        reasons.append(
            f"It emits {significant(cost.kg_co2e)} kg CO2e a month (energy {option.energy_provenance}, "
            f"{significant(business.intensity())} g/kWh)."
        )
    if not business.usd_per_error:
        reasons.append("Errors are priced at nothing (usd_per_error), so the cheapest machine wins.")
    if len(fit) == 1:
        return True, [*reasons, "No other option keeps the limits."]
    second = fit[1]
    gap = (second.account.total_usd or 0.0) - (cost.total_usd or 0.0)
    sure = _below(winner, second)
    said = f"{second.option.name} would cost {money(gap)} more"
    certainty = "beyond what the intervals explain" if sure else "within what the intervals explain"
    reasons.append(
        f"{said} a month, {certainty}." if sure else f"{said} a month, {certainty}: measure longer."
    )
    greener = [j for j in fit[1:] if (j.account.kg_co2e or 0.0) < (cost.kg_co2e or 0.0)]
    if greener and cost.kg_co2e is not None:
        least = min(greener, key=lambda j: j.account.kg_co2e or 0.0)
        saved = cost.kg_co2e - (least.account.kg_co2e or 0.0)
        extra = (least.account.total_usd or 0.0) - (cost.total_usd or 0.0)
        reasons.append(
            f"{least.option.name} would emit {significant(saved)} kg CO2e a month less, "
            f"for {money(extra)} more."
        )
    return sure, reasons


def _below(first: Judged, second: Judged) -> bool:
    high = first.account.total_interval[1] if first.account.total_interval else first.account.total_usd
    low = second.account.total_interval[0] if second.account.total_interval else second.account.total_usd
    return high is not None and low is not None and high < low


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
    """Return one option per arm of `report.arms.compare`: price at capacity, the rest at the equal rate."""
    options = []
    for arm in comparison["arms"]:
        equal, capacity = arm["equal"], arm.get("capacity") or {}
        price = capacity.get("usd_per_1k") or {"value": None, "interval": None}
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
            )
        )
    return options


def decide_runs(folders: Sequence[Path], business: Business) -> Decision:
    """Return the decision among the models that were run. Raises RunError."""
    return decide(options_from_runs(folders), business)


def decision_table(decision: Decision) -> Table:
    """Return the month's account of every option, the recommended one strong."""
    rows = []
    for judged in decision.judged:
        cost = judged.account
        interval = cost.total_interval
        total = money(cost.total_usd)
        if interval is not None:
            total += f" [{money(interval[0])}, {money(interval[1])}]"
        chosen = judged.option.name == decision.chosen
        rows.append(
            Row(
                (
                    judged.option.name,
                    total,
                    money(cost.compute_usd),
                    money(cost.error_usd),
                    significant(cost.errors),
                    significant(cost.energy_kwh),
                    significant(cost.kg_co2e),
                    significant(judged.option.p99_ms),
                    "recommended" if chosen else judged.refused,
                ),
                "strong" if chosen else "muted" if judged.refused else "",
            )
        )
    columns = (
        "option", "total a month", "machines", "errors cost", "errors", "kWh", "kg CO2e", "p99 ms", "verdict"
    )  # fmt: skip
    business = decision.business
    note = (
        f"{significant(business.requests_per_month)} requests a month, "
        f"{money(business.usd_per_error)} per wrong answer, utilisation {percent(business.utilisation, 0)}, "
        f"{significant(business.intensity())} gCO2e/kWh, PUE {significant(business.pue)}. "
        "In brackets: every part at the low or high end of its interval."
    )
    return Table(
        "decision", "A month of each option", columns, tuple(rows), (note,), frozenset({"verdict"})
    ).without_empty_columns()
