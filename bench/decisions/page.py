"""The page on decisions, from figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

INTRODUCTION = """\
# Decisions: what is answered without the large model

CLINC150, its 150 intents and its out-of-scope queries as one more class. The labels stand for the large
model: whoever answers otherwise disagrees with it. Both sides learn from the same {train:,} texts
({oos_train} out of scope). The {held:,} held-out rows ({oos_held:.1%} out of scope) are divided {draws}
times: {certifying:,} rows to tune and certify with (delta = {delta:g}), all others to count on. `shad0wllm`
{version} ({student} table, its C core, its own certifier) uses all rows of a draw to certify; ours uses a
quarter of them to choose thresholds, since a cascade has several, and certifies with the rest.

Machine: {cpu}, {cores:g} cores; one thread.
"""
LOCAL = """\
## Share answered, at a limit on the answers given

Of the answers given without the large model at most so many differ from its own: what the rival certifies,
here `sluice tune --max-local-disagreement`. "Broken" counts the draws in which the remaining rows saw more.
"By the first stage" is that of the policy: tuning minds USD alone here, where a local stage costs next to
nothing beside the large model, and in some draws leaves the table before the student out. So these shares are
no shares answered in the time of a table.
"""
PROMISES = """\
### How often a promise is broken

The rows that remain are a sample themselves, so that a promise which holds may look broken on them, the more
the nearer a certificate comes to its limit. So the same once more with all held-out rows as the traffic, and
the rows that certify drawn from them with replacement: a promise is then broken or not, without chance in the
counting. Wanted: at most one in ten.
"""
ALL = """\
## ... at a limit on all answers

Of all answers, the large model's own included, at most so many differ (`--max-disagreement`).
"""
TIMES = """\
## Time of a decision, in process

One text at a time, encoding, scores and verdicts included, {texts:,} held-out texts; what the large model has
to answer is counted until that is known. Policies of the first draw, at {alpha:.0%} of local answers, with
the stages that tuning left in them.
"""
SDK_GOAL = 1.2
SDK = """\
## At the SDK: /v1/decisions beside /v1/classify

OpenAI's SDK asks both in turn over one connection, one call at a time: {calls} texts in each of {rounds}
rounds, all {labels} labels offered, and two of them. `typed` is `decisions.create`; `untyped` leaves out the
types that the SDK makes of a request and a reply, as `/v1/classify` is asked here too. The last column is
what the SDK alone spends, with replies from memory. {policy}.

    python -m bench.gateway.at_the_sdk FAMILY POLICY"""


def render(figures: Mapping[str, Any]) -> str:
    """Return the page in Markdown."""
    parts = [
        INTRODUCTION.format(**figures["setting"], **figures["machine"]),
        LOCAL,
        _shares(figures["lines"], "local"),
        _verdict(figures["lines"]),
        *([_promises(figures["promises"])] if "promises" in figures else []),
        ALL,
        _shares(figures["lines"], "all"),
        "Accuracy of each alone on the held-out rows, answering everything: "
        + ", ".join(f"{name} {share:.1%}" for name, share in figures["accuracy"].items())
        + ".",
    ]
    if "times" in figures:
        parts += [TIMES.format(**figures["times"]), _times(figures["times"]["found"])]
    if "sdk" in figures:
        parts += [_sdk(figures["sdk"])]
    if "savings" in figures:
        parts += [_savings(figures["savings"])]
    parts += [
        "To measure again, with nothing else running (resumable: what OUT holds is kept; `--only PART` does "
        "one of\nfamily, shares, promises, times, sdk, savings):",
        "    python -m bench.decisions --data clinc150 --out OUT",
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _shares(lines: Sequence[Mapping[str, Any]], scope: str) -> str:
    rows = [
        "| limit | who | answered (range) | by the first stage | differ, mean "
        "| broken (95% interval) | right in all |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for line in sorted((one for one in lines if one["scope"] == scope), key=lambda one: -one["alpha"]):
        low, high = line["local_range"]
        least, most = line["broken_interval"]
        rows.append(
            f"| {line['alpha']:.0%} | {line['name']} | {line['local']:.1%} ({low:.1%} to {high:.1%}) "
            f"| {line['first']:.1%} | {line['wrong']:.2%} "
            f"| {line['broken']} of {line['draws']} ({least:.0%} to {most:.0%}) | {line['accuracy']:.2%} |"
        )
    return "\n".join(rows)


def _verdict(lines: Sequence[Mapping[str, Any]]) -> str:
    said = []
    for alpha in sorted({line["alpha"] for line in lines}, reverse=True):
        own = [line for line in lines if line["scope"] == "local" and line["alpha"] == alpha]
        rival = next(line for line in own if line["name"].startswith("shad0w"))
        ours = next(line for line in own if line["name"] == "deep table -> student")
        said.append(
            f"At {alpha:.0%}: {ours['local']:.1%} against {rival['local']:.1%}, "
            f"broken {ours['broken']} and {rival['broken']} of {ours['draws']} times"
        )
    return "; ".join(said) + "."


def _promises(lines: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        "| limit | who | answered | differ, mean | broken (95% interval) |",
        "| --- | --- | --- | --- | --- |",
    ]
    for line in sorted(lines, key=lambda one: -one["alpha"]):
        least, most = line["broken_interval"]
        rows.append(
            f"| {line['alpha']:.0%} | {line['name']} | {line['local']:.1%} | {line['wrong']:.2%} "
            f"| {line['broken']} of {line['draws']} ({least:.0%} to {most:.0%}) |"
        )
    return PROMISES + "\n" + "\n".join(rows)


def _times(found: Mapping[str, Mapping[str, Any]]) -> str:
    rows = ["| who | stages | p50, µs | p90, µs | mean, µs |", "| --- | --- | --- | --- | --- |"]
    for name, times in found.items():
        p90 = f"{times['p90']:,.1f}" if "p90" in times else "-"
        stages = times.get("stages", "its table")
        rows.append(f"| {name} | {stages} | {times['p50']:,.1f} | {p90} | {times['mean']:,.1f} |")
    return "\n".join(rows)


def _sdk(found: Mapping[str, Any]) -> str:
    """Return the section on both forms of the wire at the SDK."""
    rows = [
        "| asked | p50, ms | p99, ms | of classify's p50, median of rounds (range) | the SDK's own CPU, ms |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, one in found["seen"].items():
        low, high = one["ratio_range"]
        rows.append(
            f"| {name} | {one['p50_ms']:.2f} | {one['p99_ms']:.2f} "
            f"| {one['ratio']:.2f} ({low:.2f} to {high:.2f}) | {found['sdk_cpu_ms'][name]:.2f} |"
        )
    judged = {name: one["ratio"] for name, one in found["seen"].items() if name != "classify"}
    said = "; ".join(
        f"{name}: {ratio:.2f}, {'met' if ratio <= SDK_GOAL else 'missed'}" for name, ratio in judged.items()
    )
    return "\n\n".join([SDK.format(**found), "\n".join(rows), f"Wanted: {SDK_GOAL} at most. {said}."])


def _savings(found: Mapping[str, Any]) -> str:
    rows = [
        "## Before a model of {delay_ms:g} ms and {usd_per_1k:g} USD per 1,000".format(**found),
        "The stand-in (`sluice stand-in --variant large`: six layers) asked through OpenAI's SDK as a chat\n"
        "model held to a JSON schema, and the gateway before it through `/v1/decisions` of the same SDK,\n"
        f"{found['texts']:,} held-out texts each once, {found['clients']} out at a time. The price is "
        f"that of the model's calls.\nPolicy: {found['policy']}.",
        "| asked | p50, ms | p99, ms (95% interval) | USD per 1,000 (95% interval) | right (95% interval) |",
    ]
    lines = ["| --- | --- | --- | --- | --- |"]
    for name, one in found["found"].items():
        p99 = (
            "" if one["p99_interval_ms"] is None else " ({:,.1f} to {:,.1f})".format(*one["p99_interval_ms"])
        )
        usd = "{:.4f} ({:.4f} to {:.4f})".format(one["usd_per_1k"], *one["usd_interval"])
        right = "{:.1%} ({:.1%} to {:.1%})".format(one["accuracy"], *one["accuracy_interval"])
        lines.append(f"| {name} | {one['p50_ms']:,.1f} | {one['p99_ms']:,.1f}{p99} | {usd} | {right} |")
    low, high = found["difference_interval"]
    tail = (
        f"Answered without it: {found['local']:.1%}. Right, with Sluicegate less without, paired: "
        f"{100 * found['difference']:+.2f} points ({100 * low:+.2f} to {100 * high:+.2f})."
    )
    return "\n\n".join([rows[0], rows[1], "\n".join([rows[2], *lines]), tail])
