"""What the dashboard shows: rows of panels, each with what it asks Prometheus for."""

from __future__ import annotations

from dataclasses import dataclass

from contract import metrics as m
from deploy.grafana.expressions import (
    ANSWERED,
    CASCADE,
    CASCADES,
    DEGRADED,
    FIRST,
    MODEL_SHARE,
    QUIET,
    RATE,
    REQUESTS,
    TOTAL,
    quantile,
    rate_of,
    ratio,
)


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
                    Query(quantile(q, TOTAL, "family, model"), f"{{{{family}}}} {{{{model}}}} p{q * 100:g}")
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
                "Degraded and abstained",
                "Texts answered by a cheaper stage than the policy wanted, by reason, or left to a person.",
                "percentunit",
                (
                    Query(
                        ratio(rate_of(DEGRADED, by="reason"), f"ignoring (reason) group_left () {CASCADE}"),
                        "{{reason}}",
                    ),
                    Query(
                        ratio(
                            rate_of(m.ABSTAINED.name, by="family"), f"on (family) group_left () {CASCADES}"
                        ),
                        "{{family}} abstained",
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
            Panel(
                "Gears",
                "Gateway replicas by gear of a policy that has some: idle, busy, overload.",
                "short",
                (Query(f"sum by (family, gear) ({m.GEAR.name})", "{{family}} {{gear}}"),),
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
                    Query(
                        quantile(0.99, f'{{stage="{part}"}}', "family, model"),
                        f"{{{{family}}}} {{{{model}}}} {part}",
                    )
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
                "Models behind HTTP",
                "Texts of requests that failed there, by kind, and what these servers charge per hour.",
                "short",
                (
                    Query(rate_of(m.REMOTE_FAILURES.name, by="stage, kind"), "{{stage}} {{kind}} per s"),
                    Query(f"3600 * {rate_of(m.REMOTE_USD.name, by='stage')}", "{{stage}} USD per h"),
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
                "What the reference alone would have cost for undegraded answers, less what was paid.",
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
