"""The decision: which way of answering to run, in money and carbon, and why the others were not taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from contract.formulas import Interval
from report.analysis.economics import Account, Business, Option, account
from report.analysis.options import options_from_runs
from report.format.figures import money, percent, percent_interval, points, significant
from report.format.tables import Row, Table


@dataclass(frozen=True)
class Judged:
    """An option with its account, and the limit that it breaks, if any."""

    option: Option
    account: Account
    refused: str = ""


@dataclass(frozen=True)
class Decision:
    """The recommended option (None: none is acceptable), the reasons, and everything that was weighed.

    `sure` says that every other option costs more throughout the interval of the difference.
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
    interval = lead(option, second.option, business)
    leads = [lead(option, other.option, business) for other in fit[1:]]
    sure = all(found is not None and found[0] > 0 for found in leads)
    said = f"{second.option.name} would cost {money(gap)} more a month"
    if interval is not None:
        said += f" (between {money(interval[0])} and {money(interval[1])})"
    reasons.append(f"{said}." if sure else f"{said}: the difference may be chance, so measure longer.")
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


def lead(winner: Option, other: Option, business: Business) -> Interval | None:
    """Return the interval of what `other` costs more in a month; None where a total is unknown.

    Errors are compared text by text where both answered the same texts and one is the baseline of the
    other's drop; every other part is put at the end that narrows the lead, then at the one that widens it.
    """
    paired = _more_errors(winner, other)
    if paired is not None:
        winner = replace(winner, accuracy_interval=None)
        other = replace(other, accuracy_interval=None)
    mine, theirs = account(winner, business), account(other, business)
    if mine.total_usd is None or theirs.total_usd is None:
        return None
    low, high = mine.total_interval or (mine.total_usd, mine.total_usd)
    other_low, other_high = theirs.total_interval or (theirs.total_usd, theirs.total_usd)
    low, high = other_low - high, other_high - low
    if paired is not None:
        expected = (winner.accuracy or 0.0) - (other.accuracy or 0.0)
        price = business.requests_per_month * business.usd_per_error
        low, high = low + (paired[0] - expected) * price, high + (paired[1] - expected) * price
    return low, high


def _more_errors(winner: Option, other: Option) -> Interval | None:
    """Return the paired interval of the winner's accuracy less the other's, where there is one."""
    if other.drop_interval is not None and other.baseline == winner.name:
        return other.drop_interval
    if winner.drop_interval is not None and winner.baseline == other.name:
        return -winner.drop_interval[1], -winner.drop_interval[0]
    return None


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
                    money(cost.error_usd if decision.business.usd_per_error else None),
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
