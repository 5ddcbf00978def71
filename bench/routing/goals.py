"""The measured goals, one function each; every one returns its section of the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.routing.tables import Figures, figures, markdown, read, with_split
from contract.formulas import wilson_interval
from router.tune.compare import compare_scores
from router.tune.targets import Method, Targets
from router.tune.tune import TuneSettings, tune

GOAL_RULE = (
    "The goal is a mean test drop of 0.50 points or less at 4.29 USD per 10,000 or less. The rule named "
    "for it is the target itself, `--max-accuracy-drop 0.005` (the row 0.50): it keeps the drop with "
    "room to spare, and at 4.51 USD misses the cost by 5%. Other rows keep both (0.75 above, a budget "
    "of 4 below), but they are picked by their test figures, so they show where the curve lies and not "
    "what a rule would have reached."
)
SEEDS = (1, 5, 10, 50, 100)
DRAWS = 200


def api_marketplace(data: Path) -> str:
    """Return FrugalML's RAFDB table: cost and accuracy by drop target and by budget.

    Tuned on one half, read on the other.
    """
    table = read(data, "frugalml_rafdb")
    predictions, costs = table.predictions, table.costs
    halves = []
    for seed in SEEDS:
        rows = np.random.default_rng(seed).permutation(len(predictions))
        halves.append((predictions.take(rows[: len(rows) // 2]), predictions.take(rows[len(rows) // 2 :])))

    def measured(targets: Targets, **settings: str) -> list[Figures]:
        found = []
        for seed, (fitted, held) in zip(SEEDS, halves, strict=True):
            asked = TuneSettings(certified=False, reference="microsoft", seed=seed, **settings)  # type: ignore[arg-type]
            found.append(figures(tune(fitted, costs, targets, asked).policy, held, costs, "microsoft"))
        return found

    by_target = []
    for drop in (0.0, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02):
        got = measured(Targets(max_accuracy_drop=drop))
        by_target.append([f"{drop * 100:.2f}", *_means(got)])
    plain = measured(Targets(max_accuracy_drop=0.005), per_class="never")
    by_target.append(["0.50, no rules per class", *_means(plain)])
    by_budget = []
    for usd in (1, 2, 3, 3.5, 4, 4.29, 5, 6, 7, 8, 10):
        got = measured(Targets(max_usd_per_1k=usd / 10, objective="most_accurate"))
        by_budget.append([f"{usd:g}", *_means(got)])
    published = markdown(
        ["Published (same table, same seeds, half to train)", "USD per 10,000", "accuracy"],
        [
            ["best single API", "10.00", "71.69%"],
            ["FrugalML", "4.29", "71.69%"],
            ["FrugalML, fixed base", "4.31", "71.69%"],
            ["FrugalML, quality score only", "5.14", "71.69%"],
        ],
    )
    head = ["test drop, points (mean, each seed)", "USD per 10,000 (mean, each seed)", "test accuracy"]
    return "\n\n".join(
        [
            "## A marketplace of APIs (FrugalML, RAFDB: 15,339 rows, four services)",
            "Half of the rows to tune (`--uncertified`), the other half to count on, read anew for every row "
            "of these tables; seeds 1, 5, 10, 50, 100 (`numpy.random.default_rng(seed).permutation`). Drops "
            "count against the best API.",
            markdown(["--max-accuracy-drop, points", *head], by_target),
            GOAL_RULE,
            "The cost-accuracy curve (`--max-usd-per-1k`, `--objective most-accurate`):",
            markdown(["budget, USD per 10,000", *head], by_budget),
            published,
            "The spread between seeds is that of the halves: where the tune half flatters the best API, "
            "the test "
            "half does the opposite, so single seeds lie on both sides of their target.",
        ]
    )


def _means(got: list[Figures]) -> list[str]:
    drops, usd = [g.drop * 100 for g in got], [g.usd * 10 for g in got]
    return [
        f"{np.mean(drops):+.2f} ({', '.join(f'{d:+.2f}' for d in drops)})",
        f"{np.mean(usd):.2f} ({', '.join(f'{u:.2f}' for u in usd)})",
        f"{np.mean([g.accuracy for g in got]):.2%}",
    ]


def two_stages(data: Path) -> str:
    """Return how often certified and naive two-stage cascades break their promise, and what they escalate.

    Each is tuned on random draws of ImageNet rows.
    """
    table = read(data, "imagenet_resnets")
    predictions, costs = table.predictions, table.costs
    names = ("resnet18", "resnet152")
    lines = []
    ways: list[tuple[str, bool, Method]] = [
        ("naive (empirical optimum)", False, "betting"),
        ("fixed sequence, betting", True, "betting"),
        ("fixed sequence, exact binomial on harm", True, "binomial"),
        ("fixed sequence, exact binomial on disagreement", True, "disagreement"),
    ]
    for certify, epsilon in ((1000, 0.01), (5000, 0.01), (5000, 0.02)):
        for name, certified, method in ways:
            drops, escalations = [], []
            for draw in range(DRAWS):
                rows = np.random.default_rng(draw).permutation(len(predictions))
                seen = with_split(predictions, rows[: 2000 + certify], 2000)
                settings = TuneSettings(
                    variants=names, reference="resnet152", certified=certified, method=method, seed=draw
                )
                policy = tune(seen, costs, Targets(max_accuracy_drop=epsilon), settings).policy
                got = figures(policy, predictions.take(rows[2000 + certify :]), costs, "resnet152")
                drops.append(got.drop)
                escalations.append(
                    got.escalation
                    if len(policy.stages) > 1
                    else float(policy.stages[0].variant == "resnet152")
                )
            lines.append(
                [
                    f"{certify:,}",
                    f"{epsilon * 100:.0f}",
                    name,
                    _violations(drops, epsilon),
                    f"{np.mean(escalations):.3f}",
                ]
            )
    return "\n\n".join(
        [
            "## ResNet-18 -> ResNet-152 on ImageNet (50,000 rows)",
            f"{DRAWS} random draws; 2,000 rows to tune, others to certify, delta = 0.1; the drop counted "
            f"on all "
            "remaining rows. In hindsight 1 point needs an escalation of 0.395. The naive way tunes on "
            "both parts.",
            markdown(
                ["rows to certify", "epsilon, points", "how", "violations (95% interval)", "mean escalation"],
                lines,
            ),
        ]
    )


def _violations(drops: list[float], epsilon: float) -> str:
    count = sum(drop > epsilon for drop in drops)
    low, high = wilson_interval(count, len(drops))
    return f"{count / len(drops):.1%} ({low:.1%} to {high:.1%})"


def three_stages(data: Path) -> str:
    """Return what two and three stages cost at one point, without a certificate.

    Tuned on one half of ImageNet.
    """
    table = read(data, "imagenet_resnets")
    predictions, costs = table.predictions, table.costs
    lines = []
    for stages in (2, 3):
        costs_seen, drops = [], []
        for seed in SEEDS:
            rows = np.random.default_rng(seed).permutation(len(predictions))
            settings = TuneSettings(reference="resnet152", certified=False, max_stages=stages, seed=seed)
            policy = tune(
                predictions.take(rows[:25_000]), costs, Targets(max_accuracy_drop=0.01), settings
            ).policy
            got = figures(policy, predictions.take(rows[25_000:]), costs, "resnet152")
            costs_seen.append(got.usd)
            drops.append(got.drop * 100)
        lines.append(
            [
                f"at most {stages}",
                f"{np.mean(costs_seen):.3f} ({', '.join(f'{c:.3f}' for c in costs_seen)})",
                f"{np.mean(drops):+.2f} ({', '.join(f'{d:+.2f}' for d in drops)})",
            ]
        )
    return "\n\n".join(
        [
            "## Three ResNets at 1 point, tuned on half, uncertified",
            "GFLOPs per image on the other half; seeds 1, 5, 10, 50, 100. In hindsight: ResNet-152 alone "
            "11.51, "
            "two stages 5.45, three stages 5.28.",
            markdown(["stages", "GFLOPs (mean, each seed)", "drop, points (mean, each seed)"], lines),
        ]
    )


def ties_and_strangers(data: Path) -> str:
    """Return violations on API tables with ties and answers outside the label set.

    They are counted on the full table.
    """
    lines = []
    for name, n in (("frugalml_command", 2000), ("frugalml_digit", 1000)):
        table = read(data, name)
        predictions, costs = table.predictions, table.costs
        ways = [
            ("certified (betting)", TuneSettings(reference="microsoft")),
            (
                "naive, one threshold per stage",
                TuneSettings(reference="microsoft", certified=False, per_class="never"),
            ),
            (
                "naive, score by class",
                TuneSettings(reference="microsoft", certified=False, per_class="never", score="per_class"),
            ),
        ]
        for title, settings in ways:
            got = []
            for draw in range(DRAWS):
                rows = np.random.default_rng(draw).permutation(len(predictions))[:n]
                asked = TuneSettings(**{**settings.__dict__, "seed": draw})
                policy = tune(predictions.take(rows), costs, Targets(max_accuracy_drop=0.02), asked).policy
                got.append(figures(policy, predictions, costs, "microsoft"))
            lines.append(
                [
                    name,
                    f"{n:,}",
                    title,
                    _violations([g.drop for g in got], 0.02),
                    f"{max(g.drop for g in got) * 100:.2f}",
                    f"{np.mean([g.usd for g in got]):.2f}",
                ]
            )
    return "\n\n".join(
        [
            "## Ties and answers outside the label set (FrugalML, COMMAND and DIGIT)",
            f"2 points against the best API, delta = 0.1, {DRAWS} draws of labelled rows (40% tune, 60% "
            f"certify; the naive "
            "ways use all of them); the drop counted on the full table, the rows drawn for tuning and "
            "certifying among them. The best API alone costs 4.1.",
            markdown(
                [
                    "table",
                    "rows drawn",
                    "how",
                    "violations (95% interval)",
                    "worst drop, points",
                    "USD per 1,000",
                ],
                lines,
            ),
        ]
    )


def score_areas(data: Path) -> str:
    """Return the areas under the deferral curves of every score on two tables."""
    lines = []
    # The services' dearest is not their best: drops count against the best.
    references = {"imagenet_resnets": None, "frugalml_rafdb": "microsoft", "frugalml_command": "microsoft"}
    for name, best in references.items():
        table = read(data, name)
        settings = TuneSettings(reference=best)
        curves = [c for c in compare_scores(table.predictions, table.costs, settings) if c.area is not None]
        for variant in dict.fromkeys(c.variant for c in curves):
            areas = {c.score: c.area for c in curves if c.variant == variant}
            reference = next(c.reference for c in curves if c.variant == variant)
            shown = [
                "-" if (area := areas.get(score)) is None else f"{area:.4f}"
                for score in ("max_probability", "per_class", "deferral", "agreement", "oracle")
            ]
            lines.append([name, f"{variant} -> {reference}", *shown])
    return "\n\n".join(
        [
            "## Scores side by side",
            "Mean accuracy over all escalation rates (`--compare-scores`) on the 40% of rows to tune on: "
            "fitted on one half of them and drawn on the other, both ways. "
            "Margin and entropy need logits, which these tables lack.",
            markdown(
                ["table", "cascade", "max_probability", "per_class", "deferral", "agreement", "oracle"], lines
            ),
        ]
    )
