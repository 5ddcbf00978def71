"""The page docs/benchmarks/gateway.md, from the figures of a run."""

from __future__ import annotations

import statistics
from typing import Any

from bench.gateway import cpu_parts
from contract.policy import Policy

CASCADE = "cascade"
OURS = ("student", CASCADE, "teacher")
GOALS = ((1, 0.8), (16, 1.15), (64, 1.15))
CASCADE_GOAL = 2.2
INTRODUCTION = """\
One text a request, {texts} held-out texts of the family `{name}` cut to 14 words, no cache anywhere; `wrk`
with one thread on the same cores. Every server answers with the same INT8 student; the gateway also with
the cascade in front of it, and with the teacher. Peers run at the best settings of the search below, for
each number of clients. Servers one after the other, in {rounds} rounds of {seconds:g} s, each in the other
order; medians, and goals by the medians. CPU is all that the machine spent per request, less `wrk`'s own."""
COMMANDS = """\
To measure again, with nothing else running (`--only search`, `--only rounds --rounds 1`, `--only cpu` do it
in parts; the figures are kept):

    python -m bench.decisions --data clinc150 --out OUT --only family
    sluice tune OUT/family --reference student-int8 --variants linear,student-int8 \\
        --max-accuracy-drop 0.01 --out OUT/policy.json
    python -m bench.gateway --family OUT/family --policy OUT/policy.json --teacher large
"""
CPU = """\
## Where the CPU time goes

ms per request at {clients} clients: in the running gateway, and each part measured alone. The goal is a whole
within 25% of the sum of its parts."""
CPU_GOAL = 0.25


def render(figures: dict[str, Any]) -> str:
    """Return the page in Markdown."""
    rows = _rows(figures["compared"])
    machine = figures["machine"]
    return "\n".join(
        [
            "# The gateway beside other servers",
            "",
            INTRODUCTION.format(
                texts=figures["texts"],
                name=figures["family"]["name"],
                rounds=rounds(figures),
                seconds=figures["seconds"],
            ),
            "",
            f"The cascade that is judged: {figures['policy']}.",
            "",
            f"Machine: {machine['cpu']}, {machine['cores']:g} cores.",
            "",
            "| server | clients | requests/s | p50 ms | p99 ms | CPU ms/request | errors |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            *(_line(name, clients, row) for (name, clients), row in rows.items()),
            "",
            "## Goals",
            "",
            "| goal | figure | met |",
            "| --- | --- | --- |",
            *_goals(rows),
            "",
            "## The search",
            "",
            "| peer | settings | requests/s at 1 | at 16 | at 64 |",
            "| --- | --- | --- | --- | --- |",
            *(_tried(one) for one in figures["searched"]),
            "",
            *_cpu(figures.get("cpu", [])),
            COMMANDS,
        ]
    )


def rounds(figures: dict[str, Any]) -> int:
    """Return how many rounds the figures hold."""
    return len({one["round"] for one in figures["compared"]})


def named(policy: Policy) -> str:
    """Return a policy as the page names it: whether it is certified, its stages, and what escalates."""
    stages = " -> ".join(stage.variant for stage in policy.stages)
    rate = policy.expected.escalation_rate
    escalates = "" if rate is None else f", {rate:.1%} expected to escalate"
    return f"cascade, {policy.status}: {stages}{escalates}"


def _ours(name: str) -> bool:
    return name in OURS or name.startswith(CASCADE)


def _rows(compared: list[dict[str, Any]]) -> dict[tuple[str, int], dict[str, float]]:
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for one in compared:
        found.setdefault((one["server"], one["clients"]), []).append(one)
    keys = ("per_s", "p50_ms", "p99_ms", "cpu_ms")
    rows = {
        at: {key: statistics.median(one[key] for one in runs) for key in keys}
        | {"errors": sum(one["errors"] for one in runs)}
        for at, runs in found.items()
    }
    return dict(sorted(rows.items(), key=lambda item: (item[0][1], _ours(item[0][0]), item[0][0])))


def _line(name: str, clients: int, row: dict[str, float]) -> str:
    shown = f"**{name}** (gateway)" if _ours(name) else name
    return (
        f"| {shown} | {clients} | {row['per_s']:,.0f} | {row['p50_ms']:.2f} | {row['p99_ms']:.1f} "
        f"| {row['cpu_ms']:.2f} | {row['errors']:.0f} |"
    )


def _goals(rows: dict[tuple[str, int], dict[str, float]]) -> list[str]:
    lines = []
    for clients, wanted in GOALS:
        peers = {name: row for (name, at), row in rows.items() if at == clients and not _ours(name)}
        if not peers or ("student", clients) not in rows:
            continue
        best = max(peers, key=lambda name: peers[name]["per_s"])
        mine = rows["student", clients]
        ratio = mine["per_s"] / peers[best]["per_s"]
        goal = f"student at {clients}: {wanted} of the best peer ({best})"
        lines.append(f"| {goal} | {ratio:.2f} | {_met(ratio, wanted)} |")
        lines.append(
            f"| its p99 no worse | {mine['p99_ms']:.1f} ms against {peers[best]['p99_ms']:.1f} ms "
            f"| {_met(peers[best]['p99_ms'], mine['p99_ms'])} |"
        )
    for clients in (16, 64):
        if ("cascade", clients) in rows and ("student", clients) in rows:
            ratio = rows["cascade", clients]["per_s"] / rows["student", clients]["per_s"]
            goal = f"cascade at {clients}: {CASCADE_GOAL} times the student"
            lines.append(f"| {goal} | {ratio:.2f} | {_met(ratio, CASCADE_GOAL)} |")
    return lines


def _cpu(found: list[dict[str, Any]]) -> list[str]:
    lines = [CPU.format(**found[0]), ""] if found else []
    for one in found:
        whole, alone = one["in_the_gateway"], one["alone"]
        ratio = sum(whole.values()) / sum(alone.values())
        met = "met" if abs(ratio - 1) <= CPU_GOAL else "missed"
        lines += [f"{one['server']}, {one['per_s']:,.0f} requests/s; {ratio:.2f} times the sum: {met}.", ""]
        lines += [*cpu_parts.table(whole, alone), ""]
    return lines


def _met(figure: float, wanted: float) -> str:
    return "yes" if figure >= wanted else "no"


def _tried(one: dict[str, Any]) -> str:
    settings = ", ".join(f"{name.lower()} {value}" for name, value in one["options"].items())
    rates = " | ".join(f"{driven['per_s']:,.0f}" for driven in one["driven"])
    return f"| {one['peer']} | {settings} | {rates} |"
