"""Replay against a second, plainer reading of policy.json, and the figures summed up from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.costs import Cost
from contract.errors import PolicyError, PredictionsError
from contract.policy import ClassRule, Policy, Stage
from contract.predictions import OUTSIDE, UNLABELLED, Predictions, VariantPredictions
from router.decide.simulate import simulate
from router.tune.compare import compare_scores
from router.tune.targets import Targets
from router.tune.tune import TuneSettings, tune

World = Callable[..., Predictions]
NAMES = ("p", "q", "r")


def _plain_reading(policy: dict[str, Any], table: Predictions, row: int) -> tuple[str, int]:
    """Return the variant and the class that the words of the format give for one row."""
    stages = {stage["variant"]: stage for stage in policy["stages"]}
    order = list(stages)
    name = order[0]
    while True:
        variant = table.variants[name]
        predicted = int(variant.prediction[row])
        if name == order[-1]:
            return name, predicted
        rule = stages[name]["per_class"].get(table.labels[predicted] if predicted >= 0 else None, {})
        threshold = rule.get("threshold", stages[name]["threshold"])
        if variant.confidence[row] >= threshold:
            return name, predicted
        name = rule.get("next") or order[order.index(name) + 1]


@given(st.data())
def test_replay_follows_the_words_of_the_format(data: st.DataObject) -> None:
    """For any per-class policy and any table, with ties and strangers, both readings agree on every row."""
    grid = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
    n = data.draw(st.integers(1, 12))
    variants = {
        name: VariantPredictions(
            np.array(
                data.draw(st.lists(st.sampled_from([OUTSIDE, 0, 1]), min_size=n, max_size=n)), dtype=np.int64
            ),
            np.array(data.draw(st.lists(grid, min_size=n, max_size=n))),
        )
        for name in NAMES
    }
    table = Predictions(("x", "y"), np.zeros(n, dtype=np.int64), variants)
    rules: list[dict[str, ClassRule]] = []
    for place in range(2):
        targets = st.sampled_from([None, *NAMES[place + 1 :]])
        drawn = data.draw(st.dictionaries(st.sampled_from(["x", "y"]), st.tuples(grid, targets)))
        rules.append(
            {label: ClassRule(threshold=t, next=following) for label, (t, following) in drawn.items()}
        )
    policy = Policy(
        status="uncertified",
        reference="r",
        stages=(
            Stage(variant="p", threshold=data.draw(grid), per_class=rules[0]),
            Stage(variant="q", threshold=data.draw(grid), per_class=rules[1]),
            Stage(variant="r"),
        ),
    )
    costs = dict(zip(NAMES, (Cost(1.0), Cost(2.0), Cost(4.0)), strict=True))
    found = simulate(table, costs, policy)
    content = json.loads(json.dumps(policy.dump()))
    for row, answer in enumerate(found.answers()):
        variant, predicted = _plain_reading(content, table, row)
        assert answer["variant"] == variant
        assert answer["label"] == (table.labels[predicted] if predicted >= 0 else None)
        assert answer["escalated"] == (variant != "p")
    assert sum(found.figures["stage_share"].values()) == pytest.approx(1.0)
    assert 1.0 <= found.figures["usd_per_1k"] <= 7.0


def test_figures_of_four_rows_by_hand() -> None:
    """Accuracy, drop, escalation, shares, cost, class and slice figures of a table one can check on paper."""
    small = VariantPredictions(np.array([0, 0, 1, 1]), np.array([0.9, 0.4, 0.8, 0.3]))
    large = VariantPredictions(np.array([0, 1, 0, 1]), np.array([0.9, 0.9, 0.9, 0.9]))
    slices = {"odd": np.array([False, True, False, True])}
    table = Predictions(("x", "y"), np.array([0, 1, 0, 1]), {"s": small, "l": large}, slices=slices)
    policy = Policy(
        status="uncertified", reference="l", stages=(Stage(variant="s", threshold=0.5), Stage(variant="l"))
    )
    figures = simulate(table, {"s": Cost(1.0, 2.0), "l": Cost(10.0)}, policy).figures
    assert figures["n"] == 4
    assert figures["accuracy"] == 0.75
    assert figures["reference_accuracy"] == 1.0
    assert figures["accuracy_drop"] == 0.25
    assert figures["escalation_rate"] == 0.5
    assert figures["stage_share"] == {"s": 0.5, "l": 0.5}
    assert figures["usd_per_1k"] == 6.0
    assert figures["latency_ms"] is None
    assert figures["per_class"]["x"] == {"recall": 0.5, "precision": 1.0, "n": 2}
    assert figures["per_class"]["y"]["precision"] == pytest.approx(2 / 3)
    assert figures["per_slice"]["odd"]["accuracy"] == 1.0
    assert figures["per_slice"]["odd"]["escalation_rate"] == 1.0
    assert figures["accuracy_interval"][0] < 0.75 < figures["accuracy_interval"][1]


def test_unlabelled_rows_count_in_costs_and_not_in_accuracy() -> None:
    """Accuracy is over labelled rows; with none it is null, and everything else is still there."""
    variant = VariantPredictions(np.array([0, 1]), np.array([0.9, 0.9]))
    table = Predictions(("x", "y"), np.array([0, UNLABELLED]), {"s": variant})
    policy = Policy(status="uncertified", reference="s", stages=(Stage(variant="s"),))
    half = simulate(table, {"s": Cost(1.0)}, policy).figures
    assert (half["accuracy"], half["n"], half["n_labelled"]) == (1.0, 2, 1)
    none = simulate(replace(table, label=np.array([UNLABELLED] * 2)), {"s": Cost(1.0)}, policy).figures
    assert none["accuracy"] is None
    assert none["macro_f1"] is None
    assert none["accuracy_drop"] is None
    assert none["usd_per_1k"] == 1.0


def test_a_gateway_scoring_logits_agrees_with_replay_of_the_table(
    world: World, costs: dict[str, Cost]
) -> None:
    """Scored stage by stage in batches, float32 logits give rows the same stage, answer and confidence."""
    from router.decide.cascade import compile_policy
    from router.decide.simulate import replay

    predictions = world(1500, logits=True)
    for score in ("max_probability", "margin", "per_class", "deferral", "agreement"):
        result = tune(
            predictions, costs, Targets(max_accuracy_drop=0.02), TuneSettings(certified=False, score=score)
        )
        compiled = compile_policy(result.policy, predictions.labels)
        expected = replay(compiled, predictions)
        waiting = {0: np.arange(len(predictions))}
        seen = np.full((len(predictions), len(compiled.stages)), -9)
        for stage in compiled.stages:
            rows = waiting.pop(stage.index, np.zeros(0, dtype=np.int64))
            if len(rows) == 0:
                continue
            logits = predictions.variants[stage.variant].logits
            assert logits is not None
            scored = stage.score_logits(logits[rows], seen[rows, : stage.index])
            seen[rows, stage.index] = scored.predicted
            verdict = compiled.decide_batch(stage.index, scored.predicted, scored.score)
            done = verdict == -1
            assert (expected.stage[rows[done]] == stage.index).all()
            assert (expected.answer[rows[done]] == scored.predicted[done]).all()
            assert expected.confidence[rows[done]] == pytest.approx(scored.confidence[done])
            for target in np.unique(verdict[~done]).tolist():
                waiting[target] = np.concatenate([waiting.get(target, rows[:0]), rows[verdict == target]])
        assert not waiting


def test_scores_are_compared_side_by_side_and_say_what_they_lack(
    world: World, costs: dict[str, Cost]
) -> None:
    """Every score has a curve per cheaper variant, none beats the oracle, and missing logits are named."""
    with_logits = compare_scores(world(2000, logits=True), costs, TuneSettings(reference="large"))
    areas = {(c.score, c.variant): c.area for c in with_logits if c.area is not None}
    assert {score for score, _ in areas} >= {
        "max_probability",
        "margin",
        "entropy",
        "per_class",
        "deferral",
        "oracle",
    }
    for (score, variant), area in areas.items():
        assert area <= areas["oracle", variant] + 1e-9, score
    curve = next(c for c in with_logits if c.score == "max_probability")
    assert len(curve.rates) == len(curve.accuracies) == 101
    assert curve.accuracies[0] < curve.accuracies[-1]
    without = compare_scores(world(2000), costs, TuneSettings(reference="large"))
    missing = {c.score: c.missing for c in without if c.missing}
    assert "logits" in str(missing["margin"])
    assert "logits" in str(missing["entropy"])


def test_comparing_scores_reads_the_tune_part_alone(world: World, costs: dict[str, Cost]) -> None:
    """Garbled rows to certify with change no curve."""
    predictions = world(1500)
    split = np.array(["tune", "certify", "certify"])[np.arange(1500) % 3]
    marked = replace(predictions, split=split)
    garbled = replace(marked, label=np.where(split == "certify", 0, predictions.label))
    settings = TuneSettings(reference="large")
    assert compare_scores(marked, costs, settings) == compare_scores(garbled, costs, settings)


def test_comparing_scores_refuses_what_is_not_there_by_name(world: World, costs: dict[str, Cost]) -> None:
    """An unknown reference or variant, a missing cost and missing labels are named."""
    predictions = world(100)
    with pytest.raises(PredictionsError, match="'huge'"):
        compare_scores(predictions, costs, TuneSettings(reference="huge"))
    with pytest.raises(PredictionsError, match="'huge'"):
        compare_scores(predictions, costs, TuneSettings(variants=("cheap", "huge")))
    with pytest.raises(PredictionsError, match="costs lack variant 'large'"):
        compare_scores(predictions, {"cheap": Cost(1.0), "middle": Cost(2.0)})
    with pytest.raises(PredictionsError, match="no row of the tune part has a label"):
        compare_scores(replace(predictions, label=np.full(100, -1)), costs)


def test_a_reference_that_the_table_lacks_is_refused_by_name(world: World, costs: dict[str, Cost]) -> None:
    """A drop against a variant without predictions cannot be told, so replay names it."""
    policy = Policy(status="uncertified", reference="huge", stages=(Stage(variant="cheap"),))
    with pytest.raises(PolicyError, match="reference 'huge'"):
        simulate(world(50), costs, policy)


def test_figures_per_slice_are_those_of_its_rows_alone(world: World, costs: dict[str, Cost]) -> None:
    """Macro-F1, USD, latency and energy of a slice equal those of a replay of its rows."""
    predictions = replace(
        world(400), slices={"odd": np.arange(400) % 2 == 1, "none": np.zeros(400, dtype=bool)}
    )
    stages = (Stage(variant="cheap", threshold=0.8), Stage(variant="large"))
    policy = Policy(status="uncertified", reference="large", stages=stages)
    per_slice = simulate(predictions, costs, policy).figures["per_slice"]
    alone = simulate(predictions.take(np.arange(400) % 2 == 1), costs, policy).figures
    for key in ("macro_f1", "usd_per_1k", "latency_ms", "energy_wh_per_1k", "accuracy", "escalation_rate"):
        assert per_slice["odd"][key] == pytest.approx(alone[key])
    assert per_slice["none"]["usd_per_1k"] is None


def test_a_rule_for_a_class_that_the_rows_lack_is_no_obstacle_to_replay(
    world: World, costs: dict[str, Cost]
) -> None:
    """A table without one of the classes replays as if its rule were not there."""
    predictions = world(100)
    ruled = Stage(variant="cheap", threshold=0.8, per_class={"zebra": ClassRule(threshold=0.1)})
    plain = Stage(variant="cheap", threshold=0.8)
    found = [
        simulate(
            predictions,
            costs,
            Policy(status="uncertified", reference="large", stages=(s, Stage(variant="large"))),
        ).figures["accuracy"]
        for s in (ruled, plain)
    ]
    assert found[0] == found[1]


def test_the_explanation_says_who_escalates_what_it_saves_and_risks_and_how_sure(
    world: World, costs: dict[str, Cost]
) -> None:
    """A certified cascade's explanation has all its parts in plain words, and the choices beside it."""
    predictions = world(6000, skills=(0.9, 0.95, 0.97))
    result = tune(predictions, costs, Targets(max_accuracy_drop=0.02), TuneSettings(reference="large"))
    text = "\n".join(result.explanation)
    for part in (
        "answers when",
        "Who escalates",
        "What it costs",
        "What it risks",
        "How sure: with 90% confidence",
    ):
        assert part in text
    assert {a.verdict for a in result.alternatives} >= {"chosen", "passed"}
    json.dumps([a.dump() for a in result.alternatives])
