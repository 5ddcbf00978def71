"""The Grafana dashboard, made of its panels.

python -m deploy.grafana.generate        writes dashboard.json beside this file
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from deploy.grafana.expressions import REQUESTS
from deploy.grafana.panels import ROWS, Panel

OUT = Path(__file__).with_name("dashboard.json")
DATA_SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")


def make_dashboard() -> dict[str, Any]:
    """Return the dashboard in Grafana's JSON form."""
    built = (
        dashboard.Dashboard("Sluicegate gateway")
        .uid("sluicegate-gateway")
        .description("Answers, routing, work and energy of a Sluicegate gateway")
        .tags(["sluicegate", "generated"])
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(
            dashboard.QueryVariable("model")
            .label("Model")
            .query(f"label_values({REQUESTS}, model)")
            .datasource(DATA_SOURCE)
            .include_all(True)
            .multi(True)
        )
    )
    for title, panels in ROWS:
        built = built.with_row(dashboard.Row(title))
        for panel in panels:
            built = built.with_panel(_panel(panel))
    found: dict[str, Any] = json.loads(json.dumps(built.build(), cls=JSONEncoder))
    return found


def _panel(panel: Panel) -> Any:
    makers = {"lines": timeseries.Panel, "table": table.Panel, "stat": stat.Panel}
    drawn = (
        makers[panel.kind]()
        .title(panel.title)
        .description(panel.description)
        .unit(panel.unit)
        .datasource(DATA_SOURCE)
        .height(8)
        .span(panel.width)
    )
    for index, query in enumerate(panel.queries):
        asked = prometheus.Dataquery().expr(query.expression).ref_id(chr(ord("A") + index))
        if query.legend:
            asked = asked.legend_format(query.legend)
        if panel.kind == "table":
            asked = asked.instant().format(PromQueryFormat.TABLE)
        drawn = drawn.with_target(asked)
    if panel.kind == "lines":
        drawn = drawn.min(0).fill_opacity(25 if panel.stacked else 0).show_points(common.VisibilityMode.NEVER)
        if panel.stacked:
            drawn = drawn.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL))
    return drawn


def main() -> None:
    """Write the dashboard."""
    OUT.write_text(json.dumps(make_dashboard(), indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
