"""The Grafana dashboard, generated from contract.metrics, and what it asks Prometheus for.

python deploy/grafana/generate.py        writes dashboard.json beside this file
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser
from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from contract import metrics as m

OUT = Path(__file__).with_name("dashboard.json")
DATA_SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
VARIABLES = {"$__rate_interval": "5m", "$model": "cascade"}

REQUESTS, DURATION = m.REQUESTS.name, m.REQUEST_DURATION.name
ESCALATIONS, DEGRADED = m.ESCALATIONS.name, m.DEGRADED.name
RATE = "[$__rate_interval]"


@dataclass(frozen=True)
class Query:
    """One expression and how its series are named."""

    expression: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One panel: what it shows, in which unit, and what a reader should make of it."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    width: int = 8
    kind: str = "lines"
    stacked: bool = False


def quantile(share: float, selector: str, by: str) -> str:
    """Return the expression of a quantile of the duration histogram."""
    return f"histogram_quantile({share}, sum by ({by}, le) (rate({DURATION}_bucket{selector}{RATE})))"


def ratio(part: str, whole: str) -> str:
    """Return the expression of one rate over another."""
    return f"{part} / {whole}"


def rate_of(name: str, selector: str = "", by: str = "") -> str:
    """Return the summed rate of a counter."""
    grouped = f"sum by ({by}) " if by else "sum"
    return f"{grouped}(rate({name}{selector}{RATE}))"


ANSWERED = rate_of(REQUESTS, '{outcome="ok"}')
CASCADE = rate_of(REQUESTS, '{model="cascade",outcome="ok"}')
CASCADES = rate_of(REQUESTS, '{model="cascade",outcome="ok"}', "family")
FIRST = f"max by (family) ({rate_of(ESCALATIONS, by='family, from_variant')})"
MODEL_SHARE = ratio(rate_of(m.CPU_SECONDS.name, '{variant!="gateway"}'), rate_of(m.CPU_SECONDS.name))
QUIET = f"quantile_over_time(0.05, sum(rate({m.ENERGY.name}[5m]))[1d:5m])"
TOTAL = '{stage="total",model=~"$model"}'

ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Answers",
        (
            Panel(
                "Texts per second",
                "By outcome; everything but ok and client_error spends error budget.",
                "reqps",
                (Query(rate_of(REQUESTS, '{model=~"$model"}', "outcome"), "{{outcome}}"),),
                stacked=True,
            ),
            Panel(
                "Latency",
                "Of whole requests, of the models chosen above.",
                "s",
                tuple(
                    Query(quantile(q, TOTAL, "model"), f"{{{{model}}}} p{q * 100:g}")
                    for q in (0.5, 0.95, 0.99)
                ),
            ),
            Panel(
                "Without an answer",
                "Overloaded, past the deadline, or failed; client errors do not count.",
                "percentunit",
                (
                    Query(
                        ratio(
                            rate_of(REQUESTS, '{outcome=~"overloaded|deadline|server_error"}'),
                            rate_of(REQUESTS, '{outcome!="client_error"}'),
                        ),
                        "without an answer",
                    ),
                ),
            ),
        ),
    ),
    (
        "Routing",
        (
            Panel(
                "Escalation rate",
                "Live, beside what the policy in force expects. Far apart means that the "
                "traffic is not what the policy was tuned on.",
                "percentunit",
                (
                    Query(ratio(FIRST, CASCADES), "{{family}} live"),
                    Query(f"max by (family) ({m.POLICY_EXPECTED_ESCALATION.name})", "{{family}} expected"),
                ),
            ),
            Panel(
                "Who answers",
                "Share of the cascade's texts that each variant answered.",
                "percentunit",
                (
                    Query(
                        ratio(
                            rate_of(REQUESTS, '{model="cascade",outcome="ok"}', "family, variant"),
                            f"on (family) group_left () {CASCADES}",
                        ),
                        "{{family}} {{variant}}",
                    ),
                ),
                stacked=True,
            ),
            Panel(
                "Degraded",
                "Texts answered by a cheaper stage than the policy wanted, by reason.",
                "percentunit",
                (
                    Query(
                        ratio(rate_of(DEGRADED, by="reason"), f"ignoring (reason) group_left () {CASCADE}"),
                        "{{reason}}",
                    ),
                ),
            ),
            Panel(
                "Confidence",
                "Median confidence of given answers. A shift without a new policy is an early "
                "sign that traffic has changed.",
                "percentunit",
                (
                    Query(
                        f"histogram_quantile(0.5, sum by (variant, le) "
                        f"(rate({m.CONFIDENCE.name}_bucket{RATE})))",
                        "{{variant}}",
                    ),
                ),
            ),
            Panel(
                "Policy in force",
                "Version and status.",
                "none",
                (Query(f"max by (family, version, status) ({m.POLICY_INFO.name})"),),
                kind="table",
            ),
            Panel(
                "Revision",
                "Of the live state; replicas that disagree show as flicker.",
                "none",
                (
                    Query(f"max by (family) ({m.REVISION.name})", "{{family}}"),
                    Query(f"max({m.FAMILIES.name})", "families"),
                ),
                kind="stat",
            ),
        ),
    ),
    (
        "Work",
        (
            Panel(
                "Waiting texts",
                "By variant.",
                "short",
                (Query(f"sum by (variant) ({m.QUEUE_ITEMS.name})", "{{variant}}"),),
            ),
            Panel(
                "Texts per call",
                "Mean size of a variant's batches.",
                "short",
                (
                    Query(
                        ratio(
                            rate_of(f"{m.BATCH_ITEMS.name}_sum", by="variant"),
                            rate_of(f"{m.BATCH_ITEMS.name}_count", by="variant"),
                        ),
                        "{{variant}}",
                    ),
                ),
            ),
            Panel(
                "Time by part",
                "p99 of queueing, inference and escalation; the model is the variant where a "
                "variant's own time is shown.",
                "s",
                tuple(
                    Query(quantile(0.99, f'{{stage="{part}"}}', "model"), f"{{{{model}}}} {part}")
                    for part in ("queue", "inference", "escalation")
                ),
            ),
            Panel(
                "Cores busy",
                "CPU seconds per second by variant; gateway is everything else.",
                "short",
                (Query(rate_of(m.CPU_SECONDS.name, by="variant"), "{{variant}}"),),
                stacked=True,
                width=12,
            ),
            Panel(
                "CPU per 1,000 texts",
                "CPU seconds of all processes per 1,000 answered texts.",
                "s",
                (Query(f"1000 * {ratio(rate_of(m.CPU_SECONDS.name), ANSWERED)}", "CPU seconds"),),
                width=12,
            ),
        ),
    ),
    (
        "Faults",
        (
            Panel(
                "Stages not asked",
                "Gateway replicas whose breaker of a stage is open or probing: the stage fails there.",
                "short",
                (
                    Query(
                        f'sum by (stage, state) ({m.STAGE_BREAKER.name}{{state!="closed"}})',
                        "{{stage}} {{state}}",
                    ),
                ),
            ),
            Panel(
                "Sent twice",
                "Texts of lost calls that were retried or refused, and of late calls hedged and won.",
                "reqps",
                (
                    Query(rate_of(m.STAGE_RETRIES.name, by="stage, outcome"), "{{stage}} retry {{outcome}}"),
                    Query(rate_of(m.STAGE_HEDGES.name, by="stage, outcome"), "{{stage}} hedge {{outcome}}"),
                ),
            ),
            Panel(
                "Clients that left",
                "Requests dropped since their client hung up before there was an answer.",
                "reqps",
                (Query(rate_of(m.CLIENTS_LEFT.name), "left"),),
            ),
        ),
    ),
    (
        "Money",
        (
            Panel(
                "Spent per hour",
                "USD by the variant that ran; an escalated text pays for every stage.",
                "currencyUSD",
                (Query(f"3600 * {rate_of(m.USD.name, by='variant')}", "{{variant}}"),),
                stacked=True,
            ),
            Panel(
                "Spent per hour by key",
                "Who asked; none is requests without a key.",
                "currencyUSD",
                (Query(f"3600 * {rate_of(m.USD.name, by='key')}", "{{key}}"),),
                stacked=True,
            ),
            Panel(
                "Saved per hour",
                "What the reference alone would have cost for the cascade's texts, less what they cost.",
                "currencyUSD",
                (Query(f"3600 * {rate_of(m.SAVED_USD.name)}", "saved"),),
            ),
            Panel(
                "Refused by a key's limits",
                "Texts a second beyond a key's rate or daily quota, by key and limit.",
                "reqps",
                (Query(rate_of(m.LIMITED.name, by="key, limit"), "{{key}} {{limit}}"),),
            ),
        ),
    ),
    (
        "Trials",
        (
            Panel(
                "Texts by arm",
                "While a candidate is on trial: what each arm answered, a shadow off the path.",
                "reqps",
                (Query(rate_of(m.ARM_TEXTS.name, by="arm"), "{{arm}}"),),
            ),
            Panel(
                "Differences",
                "Of the texts compared with the live policy, by what came of it; unfinished ones count as "
                "the worst they could be.",
                "reqps",
                (Query(rate_of(m.ARM_PAIRS.name, by="arm, outcome"), "{{arm}} {{outcome}}"),),
            ),
            Panel(
                "Failed, escalated and degraded by arm",
                "Failed requests, and texts that went on or got a cheaper answer than wanted.",
                "reqps",
                (
                    Query(rate_of(m.ARM_REQUESTS.name, '{outcome="failed"}', by="arm"), "{{arm}} failed"),
                    Query(rate_of(m.ARM_ESCALATED.name, by="arm"), "{{arm}} escalated"),
                    Query(rate_of(m.ARM_DEGRADED.name, by="arm"), "{{arm}} degraded"),
                ),
            ),
            Panel(
                "p99 by arm",
                "A shadow's own time, which waits for idle moments, is not what clients would see.",
                "s",
                (
                    Query(
                        f"histogram_quantile(0.99, sum by (arm, le) "
                        f"(rate({m.ARM_DURATION.name}_bucket{RATE})))",
                        "{{arm}}",
                    ),
                ),
                width=12,
            ),
            Panel(
                "USD per 1,000 texts by arm",
                "At the family's prices, by the stages that ran.",
                "currencyUSD",
                (
                    Query(
                        f"1000 * {rate_of(m.ARM_USD.name, by='arm')} / {rate_of(m.ARM_TEXTS.name, by='arm')}",
                        "{{arm}}",
                    ),
                ),
                width=12,
            ),
        ),
    ),
    (
        "Energy",
        (
            Panel(
                "Power",
                "By how it is known: estimates can be off by 40% against a meter.",
                "watt",
                (Query(rate_of(m.ENERGY.name, by="provenance"), "{{provenance}}"),),
                width=12,
            ),
            Panel(
                "Energy per text",
                "Everything, idle share included; the models' part above the machine's quietest times; and "
                "what the policy expects of the models.",
                "joule",
                (
                    Query(ratio(rate_of(m.ENERGY.name), ANSWERED), "everything"),
                    Query(ratio(f"({rate_of(m.ENERGY.name)} - {QUIET}) * {MODEL_SHARE}", ANSWERED), "models"),
                    Query(f"max({m.POLICY_EXPECTED_ENERGY.name})", "models, expected"),
                ),
                width=12,
            ),
        ),
    ),
)


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


def expressions_in(board: dict[str, Any]) -> list[str]:
    """Return every expression of a dashboard's panels, Grafana's variables replaced by examples."""
    found = []
    for panel in board["panels"]:
        for inner in (panel, *panel.get("panels", [])):
            for target in inner.get("targets", []):
                text = target["expr"]
                for variable, example in VARIABLES.items():
                    text = text.replace(variable, example)
                found.append(text)
    return found


def selectors_of(expression: str) -> Iterator[promql_parser.VectorSelector]:
    """Yield every series selector of a PromQL expression. Raises ValueError when it does not parse."""
    todo: list[Any] = [promql_parser.parse(expression)]
    while todo:
        node = todo.pop()
        if isinstance(node, promql_parser.VectorSelector):
            yield node
        elif isinstance(node, promql_parser.MatrixSelector):
            todo.append(node.vector_selector)
        else:
            todo += [child for child in _children(node) if child is not None]


def _children(node: Any) -> Iterable[Any]:
    if isinstance(node, promql_parser.BinaryExpr):
        return [node.lhs, node.rhs]
    if isinstance(node, promql_parser.AggregateExpr):
        return [node.expr, node.param]
    if isinstance(node, promql_parser.Call):
        return list(node.args)
    if isinstance(node, promql_parser.ParenExpr | promql_parser.UnaryExpr | promql_parser.SubqueryExpr):
        return [node.expr]
    return []


def metric_names_in(board: dict[str, Any]) -> set[str]:
    """Return the sample names that a dashboard needs; a live scrape should hold every one."""
    return {str(s.name) for expression in expressions_in(board) for s in selectors_of(expression)}


def main() -> None:
    """Write the dashboard."""
    OUT.write_text(json.dumps(make_dashboard(), indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
