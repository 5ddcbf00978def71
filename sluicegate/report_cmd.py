"""`sluice report`: one page of evidence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from contract.errors import RunError
from contract.family import read_family
from contract.files import read_json
from contract.policy import read_policy
from report.render import Evidence, render_report
from sluicegate.common import ANY_PATH, FILE, FOLDER, json_option, print_json, result_console


@click.command("report")
@click.argument("family", type=ANY_PATH, required=False)
@click.option("--policy", "policies", type=FILE, multiple=True, help="May be repeated.")
@click.option("--predictions", type=FILE, help="Replay the policies on this table; needs --costs.")
@click.option("--costs", type=FILE, help="costs.json for --predictions.")
@click.option("--run", "runs", type=FOLDER, multiple=True, help="A run folder; may be repeated.")
@click.option("--comparison", type=FILE, help="comparison.json of a demo.")
@click.option("--business", type=FILE, help="YAML of business figures; see `sluice decide --help`.")
@click.option("--out", type=FILE, required=True, help="The HTML page; Markdown and figures go beside it.")
@json_option
def command(family: Path | None, out: Path, as_json: bool, **given: Any) -> None:
    """Draw a report: frontier, policy, load, provenance, in one HTML page that needs nothing else.

    \b
    Example: sluice report sluicegate-demo/family --policy sluicegate-demo/policy.json \\
               --run sluicegate-demo/runs/cascade-equal-1 --out report.html
    """
    folder = None if family is None else (family if family.is_dir() else family.parent)
    paths = render_report(
        Evidence(
            family=None if family is None else read_family(family),
            family_folder=folder,
            policies=[read_policy(path) for path in given["policies"]],
            runs=list(given["runs"]),
            comparison=None
            if given["comparison"] is None
            else read_json(given["comparison"], error=RunError),
            business=given["business"],
            predictions=given["predictions"],
            costs=given["costs"],
        ),
        out,
    )
    if as_json:
        print_json({"paths": [str(path) for path in paths]})
        return
    for path in paths:
        result_console.print(str(path), highlight=False, soft_wrap=True)
