"""`sluice tune`: thresholds that keep a target, with a certificate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from contract.errors import InputError, TargetNotMet
from contract.policy import write_policy
from router.decide.scores import SCORE_NAMES
from router.mix.shares import Growing
from router.mix.tune import tune_mix
from router.tune.compare import compare_scores as curves_of_scores
from router.tune.targets import Targets
from router.tune.tune import TuneResult, TuneSettings, tune
from sluicegate.common import FILE, json_option, print_json, result_console
from sluicegate.inputs import Table, read_table, table_options, tune_settings

SHARES = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
FRACTION = click.FloatRange(0, 1)
POSITIVE = click.FloatRange(min=0)


@click.command("tune")
@table_options
@click.option(
    "--out", type=FILE, default=Path("policy.json"), show_default=True, help="The policy; always written."
)
@click.option("--max-accuracy-drop", type=FRACTION, help="Against the reference; 0.01 is one point.")
@click.option(
    "--max-disagreement",
    type=FRACTION,
    help="Share of answers that are not the reference's; needs no labels. 0.05 is 5%.",
)
@click.option("--min-accuracy", type=FRACTION, help="Of the answers given; 0.95 is 95%.")
@click.option("--max-f1-drop", type=FRACTION, help="Macro-F1 against the reference.")
@click.option(
    "--max-answered-error",
    type=FRACTION,
    help="Share of the answers not given by the reference that is wrong; without labels, that differs.",
)
@click.option(
    "--max-local-disagreement",
    type=FRACTION,
    help="Share of the answers not given by the reference that differs from its own; needs no labels.",
)
@click.option("--max-recall-drop", multiple=True, metavar="CLASS=X", help="For one class; may be repeated.")
@click.option("--max-slice-drop", multiple=True, metavar="SLICE=X", help="For one slice; may be repeated.")
@click.option("--max-usd-per-1k", type=POSITIVE, help="Mean price of 1,000 requests.")
@click.option("--max-latency-ms", type=POSITIVE, help="Mean over requests.")
@click.option("--max-energy-wh-per-1k", type=POSITIVE, help="Mean energy of 1,000 requests.")
@click.option("--max-escalation-rate", type=FRACTION, help="Share that the first stage hands on.")
@click.option(
    "--objective",
    type=click.Choice(["cheapest", "most-accurate"]),
    default="cheapest",
    show_default=True,
    help="What to prefer among the policies that keep every target.",
)
@click.option("--confidence", type=FRACTION, default=0.9, show_default=True, help="1 - delta.")
@click.option(
    "--certify-share", type=FRACTION, default=0.6, show_default=True, help="Without a split column."
)
@click.option("--uncertified", is_flag=True, help="The empirical optimum, without a certificate.")
@click.option(
    "--abstain",
    is_flag=True,
    help="A last stage that is a person: what no variant is sure of gets no answer. With "
    "--max-answered-error.",
)
@click.option(
    "--abstain-usd-per-1k",
    type=POSITIVE,
    help="What 1,000 texts cost that a person answers. Default: every text is answered that may be.",
)
@click.option(
    "--allow-always-escalate", is_flag=True, help="Let 'send all to the reference' count as certified."
)
@click.option(
    "--gears", is_flag=True, help="A ladder for load too: idle, busy and, with --overload-drop, overload."
)
@click.option(
    "--overload-drop", type=FRACTION, help="What the overload gears may lose, above --max-accuracy-drop."
)
@click.option(
    "--cells",
    type=click.Choice(["class", "score", "auto"]),
    help="Keep the target under every mix of cells, told by predicted class and score or by score alone.",
)
@click.option(
    "--max-share",
    metavar="LABEL=X",
    help="Keep the target at every share of a label (or slice) up to X, as of texts out of scope: oos=0.2.",
)
@click.option(
    "--reference",
    help="Variant that drops count against. Default: the family's teacher; without a family the dearest.",
)
@click.option("--variants", help="Only these, comma-separated.")
@click.option("--max-stages", type=click.IntRange(1), help="Longest cascade to consider.")
@click.option(
    "--score",
    type=click.Choice(list(SCORE_NAMES)),
    default="max_probability",
    show_default=True,
    help="How sure a stage is; some need logits.",
)
@click.option(
    "--method",
    type=click.Choice(["trinomial", "betting", "binomial", "disagreement"]),
    default="trinomial",
    show_default=True,
    help="p-value of drops: exact trinomial test of the net loss; betting on it; exact binomial on harm, or "
    "on disagreement (needs no labels).",
)
@click.option(
    "--compare-scores",
    is_flag=True,
    help="Only show every score's deferral curve and the area under it; no policy is written.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Of the split into tune and certify rows.",
)
@json_option
def command(
    family: Path | None,
    predictions: Path | None,
    labels: str | None,
    costs: Path | None,
    out: Path,
    compare_scores: bool,
    as_json: bool,
    **asked: Any,
) -> None:
    """Find the cheapest policy that keeps the targets, and say how sure that is.

    Exit code 3 means that no safe threshold exists with these data: the policy written then sends
    everything to the reference and says how many more labelled rows would be needed.

    \b
    Example: sluice tune sluicegate-demo/family --max-accuracy-drop 0.02 --out policy.json
    Example: sluice tune --predictions p.parquet --costs c.json --max-accuracy-drop 0.01 \\
               --reference large --out policy.json
    Example: sluice tune family --max-disagreement 0.05 --out policy.json
    Example: sluice tune family --max-answered-error 0.05 --out policy.json
    Example: sluice tune sluicegate-demo/family --max-accuracy-drop 0.01 --gears --overload-drop 0.04
    Example: sluice tune family --max-accuracy-drop 0.05 --cells auto --out policy.json
    Example: sluice tune family --max-accuracy-drop 0.02 --max-share oos=0.2 --out policy.json
    Example: sluice tune family --abstain --max-answered-error 0.05 --out policy.json
    Example: sluice tune sluicegate-demo/family --compare-scores
    """
    if compare_scores:
        _compare(read_table(family, predictions, costs, labels), asked, as_json=as_json)
        return
    targets = _targets(asked)
    table = read_table(family, predictions, costs, labels)
    result = _tuned(table, targets, asked)
    write_policy(out, result.policy)
    if as_json:
        print_json(result.policy.dump())
    else:
        for line in result.explanation:
            result_console.print(line, highlight=False, markup=False, soft_wrap=True)
        result_console.print(f"\nwritten to {out}", highlight=False, soft_wrap=True)
    if not result.met:
        where = "nobody answers" if result.policy.abstains else "everything goes to the reference"
        raise TargetNotMet(f"no safe threshold; {where}")


def _tuned(table: Table, targets: Targets, asked: dict[str, Any]) -> TuneResult:
    settings = _settings(asked, table)
    growing = None
    if asked["max_share"] is not None:
        ((name, share),) = _pairs("max_share", (asked["max_share"],)).items()
        growing = Growing(name, share)
    if asked["cells"] is None and growing is None:
        return tune(table.predictions, table.costs, targets, settings)
    return tune_mix(table.predictions, table.costs, targets, settings, asked["cells"], growing)


def _compare(table: Table, asked: dict[str, Any], *, as_json: bool) -> None:
    curves = curves_of_scores(table.predictions, table.costs, _settings(asked, table))
    if as_json:
        print_json({"scores": [curve.dump() for curve in curves]})
        return
    lines: list[str] = []
    for variant in dict.fromkeys(curve.variant for curve in curves):
        mine = sorted((c for c in curves if c.variant == variant), key=lambda c: -(c.area or 0.0))
        shares = "".join(f"{share:>9.0%}" for share in SHARES)
        lines += ["", f"{variant} -> {mine[0].reference}: accuracy when the least sure share escalates"]
        lines.append(f"  {'score':<16}{'area':>8}{shares}")
        for curve in mine:
            if curve.area is None:
                lines.append(f"  {curve.score:<16}{'-':>8}  {curve.missing}")
            else:
                at = "".join(f"{curve.accuracies[round(share * 100)]:>9.2%}" for share in SHARES)
                lines.append(f"  {curve.score:<16}{curve.area:>8.4f}{at}")
    for line in lines[1:]:
        result_console.print(line, highlight=False, markup=False, soft_wrap=True)


def _targets(asked: dict[str, Any]) -> Targets:
    scalars = (
        "max_accuracy_drop", "max_disagreement", "max_answered_error", "max_local_disagreement",
        "min_accuracy", "max_f1_drop", "max_usd_per_1k",
        "max_latency_ms", "max_energy_wh_per_1k", "max_escalation_rate",
    )  # fmt: skip
    recall, slices = (_pairs(name, asked[name]) for name in ("max_recall_drop", "max_slice_drop"))
    if all(asked[name] is None for name in scalars) and not recall and not slices:
        raise click.UsageError("give at least one target, for example --max-accuracy-drop 0.01")
    return Targets(
        **{name: asked[name] for name in scalars},
        max_recall_drop=recall,
        max_slice_drop=slices,
        objective="most_accurate" if asked["objective"] == "most-accurate" else "cheapest",
    )


def _settings(asked: dict[str, Any], table: Table) -> TuneSettings:
    names = (
        "method", "max_stages", "certify_share", "allow_always_escalate", "abstain", "abstain_usd_per_1k",
        "gears", "overload_drop",
    )  # fmt: skip
    more = {name: asked[name] for name in names}
    return tune_settings(table, asked, certified=not asked["uncertified"], **more)


def _pairs(name: str, given: tuple[str, ...]) -> dict[str, float]:
    found = {}
    for pair in given:
        key, equals, value = pair.rpartition("=")
        try:
            if not equals or not key:
                raise ValueError
            found[key] = float(value)
        except ValueError:
            flag = "--" + name.replace("_", "-")
            raise InputError(f"{flag} takes NAME=FRACTION, not {pair!r}", hint=f"{flag} sport=0.01") from None
    return found
