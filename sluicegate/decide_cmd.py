"""`sluice decide`: the recommended operating point."""

from __future__ import annotations

from pathlib import Path

import click

from contract.errors import TargetNotMet
from report.analysis.decide import decide_runs, decision_table
from report.analysis.economics import read_business
from report.format.tables import to_rich
from sluicegate.common import FILE, FOLDER, json_option, print_json, result_console


@click.command("decide")
@click.argument("runs", type=FOLDER, nargs=-1, required=True)
@click.option(
    "--business",
    type=FILE,
    help="YAML: requests_per_month, usd_per_error, utilisation, usd_per_kwh, usd_per_tonne_co2e, pue, grid, "
    "max_p99_ms, max_accuracy_drop, min_accuracy.",
)
@json_option
def command(runs: tuple[Path, ...], business: Path | None, as_json: bool) -> None:
    """Recommend the cheapest acceptable option of a month, errors and carbon priced in.

    Exit code 3 when no option keeps the limits.

    \b
    Example: sluice decide sluicegate-demo/runs/* --business business.yaml
    """
    decision = decide_runs(list(runs), read_business(business))
    if as_json:
        print_json(decision.dump())
    else:
        result_console.print(to_rich(decision_table(decision)))
        for reason in decision.reasons:
            result_console.print(reason, highlight=False, markup=False, soft_wrap=True)
    if decision.chosen is None:
        raise TargetNotMet(decision.reasons[0])
