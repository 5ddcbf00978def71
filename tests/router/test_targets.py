"""Targets: each holds on the rows tuned on, all hold together, and wrong requests are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from contract.costs import Cost
from contract.errors import InputError, PolicyError, PredictionsError
from contract.policy import Policy, Stage
from contract.predictions import Predictions
from router.decide.cascade import compile_policy
from router.decide.simulate import Simulation, simulate
from router.tune.targets import Constraint, Targets
from router.tune.tune import TuneResult, TuneSettings, split_parts, tune

World = Callable[..., Predictions]
Costs = dict[str, Cost]
BEST = {"objective": "most_accurate"}
PLAIN = TuneSettings(certified=False, per_class="never")


def _sliced(predictions: Predictions) -> Predictions:
    vip = np.arange(len(predictions)) % 5 == 0
    return replace(predictions, slices={"vip": vip})


def _tuned(
    predictions: Predictions, costs: Costs, settings: TuneSettings = PLAIN, **asked: Any
) -> tuple[TuneResult, dict[str, Any]]:
    result = tune(predictions, costs, Targets(**asked), settings)
    return result, simulate(predictions, costs, result.policy).figures


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ({"max_accuracy_drop": 0.02}, lambda f, r: f["accuracy_drop"] <= 0.02),
        ({"min_accuracy": 0.9}, lambda f, r: f["accuracy"] >= 0.9),
        (
            {"max_recall_drop": {"a": 0.01}},
            lambda f, r: r["a"] - f["per_class"]["a"]["recall"] <= 0.01,
        ),
        (
            {"max_slice_drop": {"vip": 0.01}},
            lambda f, r: f["per_slice"]["vip"]["accuracy_drop"] <= 0.01,
        ),
        ({"max_usd_per_1k": 6.0, **BEST}, lambda f, r: f["usd_per_1k"] <= 6.0),
        ({"max_latency_ms": 5.0, **BEST}, lambda f, r: f["latency_ms"] <= 5.0),
        ({"max_energy_wh_per_1k": 0.1, **BEST}, lambda f, r: f["energy_wh_per_1k"] <= 0.1),
        ({"max_escalation_rate": 0.2, **BEST}, lambda f, r: 0 < f["escalation_rate"] <= 0.2),
        (
            {
                "max_accuracy_drop": 0.03,
                "max_recall_drop": {"b": 0.02},
                "max_slice_drop": {"vip": 0.03},
                "max_escalation_rate": 0.95,
            },
            lambda f, r: (
                f["accuracy_drop"] <= 0.03
                and r["b"] - f["per_class"]["b"]["recall"] <= 0.02
                and f["per_slice"]["vip"]["accuracy_drop"] <= 0.03
                and f["escalation_rate"] <= 0.95
            ),
        ),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_each_target_is_kept_on_the_rows_tuned_on(
    world: World,
    costs: Costs,
    asked: dict[str, Any],
    kept: Callable[[dict[str, Any], dict[str, float]], bool],
) -> None:
    """An uncertified optimum keeps its targets where it was found and costs less than the reference."""
    predictions = _sliced(world(4000))
    result, figures = _tuned(predictions, costs, **asked)
    alone = simulate(
        predictions, costs, Policy(status="uncertified", reference="large", stages=(Stage(variant="large"),))
    )
    recalls = {label: figure["recall"] for label, figure in alone.figures["per_class"].items()}
    assert result.met
    assert kept(figures, recalls)
    assert figures["usd_per_1k"] < costs["large"].usd_per_1k


def test_a_macro_f1_drop_is_kept_nearly(world: World, costs: Costs) -> None:
    """The search linearises macro-F1, so what replay finds is within a tenth of a point of the target."""
    predictions = world(4000)
    _, figures = _tuned(predictions, costs, max_f1_drop=0.02)
    alone = simulate(
        predictions, costs, Policy(status="uncertified", reference="large", stages=(Stage(variant="large"),))
    )
    assert alone.figures["macro_f1"] - figures["macro_f1"] <= 0.021
    assert figures["usd_per_1k"] < costs["large"].usd_per_1k


def test_the_most_accurate_within_budget_is_at_least_as_accurate_as_the_cheapest(
    world: World, costs: Costs
) -> None:
    """Objectives differ in the way their names say."""
    predictions = world(4000)
    _, cheap = _tuned(predictions, costs, max_accuracy_drop=0.03)
    _, best = _tuned(
        predictions, costs, max_accuracy_drop=0.03, max_usd_per_1k=9.0, objective="most_accurate"
    )
    assert best["accuracy"] >= cheap["accuracy"]
    assert best["usd_per_1k"] <= 9.0


def test_a_budget_alone_is_certified_as_a_budget(world: World, costs: Costs) -> None:
    """Without a quality target the certificate speaks of the budget, and other rows keep it too."""
    result = tune(
        world(4000),
        costs,
        Targets(max_usd_per_1k=7.0, objective="most_accurate"),
        TuneSettings(per_class="never"),
    )
    assert result.policy.status == "certified"
    assert result.policy.certificate is not None
    assert result.policy.certificate.metric == "usd_per_1k"
    assert simulate(world(4000, seed=9), costs, result.policy).figures["usd_per_1k"] <= 7.0


def test_do_not_route_when_one_variant_alone_is_as_good_and_cheaper(world: World) -> None:
    """A dear and useless large variant leaves one variant alone, and the explanation says so."""
    predictions = world(3000)
    same = replace(predictions, variants={**predictions.variants, "middle": predictions.variants["large"]})
    costs = {"cheap": Cost(5.0), "middle": Cost(1.0), "large": Cost(10.0)}
    result = tune(same, costs, Targets(max_accuracy_drop=0.01), TuneSettings(reference="large"))
    assert [stage.variant for stage in result.policy.stages] == ["middle"]
    assert result.policy.status == "certified"
    assert result.explanation[1].startswith("Do not route: 'middle' alone")


def test_no_safe_threshold_says_how_many_rows_are_needed(world: World, costs: Costs) -> None:
    """Too few rows: everything goes to the reference, with a number that is then enough."""
    result = tune(world(150), costs, Targets(max_accuracy_drop=0.02), TuneSettings(reference="large"))
    assert not result.met
    assert result.policy.status == "no_safe_threshold"
    assert [stage.variant for stage in result.policy.stages] == ["large"]
    assert result.policy.needed_n is not None
    assert result.policy.needed_n > 90
    assert any("more than the 90 now" in line for line in result.explanation)


def test_always_escalating_is_certified_only_if_asked(world: World, costs: Costs) -> None:
    """The same rows with the flag: certified, since the reference alone drops nothing."""
    settings = TuneSettings(reference="large", allow_always_escalate=True)
    result = tune(world(150), costs, Targets(max_accuracy_drop=0.02), settings)
    assert result.policy.status == "certified"
    assert [stage.variant for stage in result.policy.stages] == ["large"]
    assert result.policy.certificate is not None
    assert "by construction" in result.policy.certificate.method


def test_without_labels_disagreement_bounds_the_drop(world: World, costs: Costs) -> None:
    """Unlabelled rows certify by disagreement with the reference, and cost more than labelled ones would."""
    predictions = world(6000, skills=(0.9, 0.97, 0.995))
    blind = replace(predictions, label=np.full(6000, -1))
    settings = TuneSettings(reference="large")
    unseen = tune(blind, costs, Targets(max_accuracy_drop=0.05), settings)
    seen = tune(predictions, costs, Targets(max_accuracy_drop=0.05), settings)
    assert unseen.policy.status == "certified"
    assert unseen.policy.expected.accuracy is None
    usd = [simulate(predictions, costs, r.policy).figures["usd_per_1k"] for r in (unseen, seen)]
    assert usd[0] >= usd[1]
    drop = simulate(predictions, costs, unseen.policy).figures["accuracy_drop"]
    assert drop <= 0.05
    assert tune(blind, costs, Targets(max_accuracy_drop=0.05)).policy.reference == "large"
    with pytest.raises(PredictionsError, match="needs labels"):
        tune(blind, costs, Targets(min_accuracy=0.9), settings)


def test_disagreement_is_a_target_of_its_own(world: World, costs: Costs) -> None:
    """Asked for by name it reads no label, and the certificate has that name, with labels or without."""
    predictions = world(6000, skills=(0.9, 0.97, 0.995))
    blind = replace(predictions, label=np.full(6000, -1))
    settings = TuneSettings(reference="large")
    found = [tune(rows, costs, Targets(max_disagreement=0.05), settings) for rows in (predictions, blind)]
    for result in found:
        certificate = result.policy.certificate
        assert certificate is not None
        assert (certificate.metric, certificate.epsilon) == ("disagreement", 0.05)
        assert any("disagreement under 0.05" in line for line in result.explanation)
        shown = simulate(predictions, costs, result.policy)
        said = np.array([answer["label"] for answer in shown.answers()])
        differ = said != np.array(predictions.labels)[predictions.variants["large"].prediction]
        assert differ.mean() <= 0.05
        assert shown.figures["usd_per_1k"] < costs["large"].usd_per_1k


def test_rules_per_class_need_no_labels(world: World, costs: Costs) -> None:
    """Where one class is easier it has rules of its own without labels too, and no figure of accuracy."""
    predictions = world(6000, skills=(0.8, 0.9, 0.995))
    cheap = predictions.variants["cheap"]
    sure = np.where(predictions.label == 0, 0, cheap.prediction)
    confidence = np.where(sure == 0, cheap.confidence * 0.6, cheap.confidence)
    table = {**predictions.variants, "cheap": replace(cheap, prediction=sure, confidence=confidence)}
    blind = replace(predictions, label=np.full(6000, -1), variants=table)
    policy = tune(blind, costs, Targets(max_disagreement=0.05), TuneSettings(reference="large")).policy
    assert policy.status == "certified"
    assert any(stage.per_class for stage in policy.stages)
    assert (policy.expected.accuracy, policy.expected.accuracy_drop) == (None, None)


def test_without_labels_temperatures_are_fitted_on_the_references_answers(world: World, costs: Costs) -> None:
    """Logits twice as large as they should be are halved, as by labels; the reference is believed."""
    predictions = world(4000, skills=(0.8, 0.9, 0.999), logits=True)
    blind = replace(predictions, label=np.full(4000, -1))
    settings = TuneSettings(reference="large")
    policies = [
        tune(rows, costs, Targets(max_disagreement=0.05), settings).policy for rows in (predictions, blind)
    ]
    seen, unseen = ({stage.variant: stage.temperature for stage in policy.stages} for policy in policies)
    shared = (seen.keys() & unseen.keys()) - {"large"}
    assert shared
    for name in shared:
        assert unseen[name] == pytest.approx(seen[name], rel=0.1)
        assert unseen[name] != 1.0
    assert unseen["large"] == 1.0


def test_the_test_split_is_never_read(world: World, costs: Costs) -> None:
    """Garbling the test rows changes nothing in the policy but the hash of the data."""
    predictions = world(3000)
    split = np.array(["tune", "certify", "test"])[np.arange(3000) % 3]
    marked = replace(predictions, split=split, sha256="x")
    garbled = replace(marked, label=np.where(split == "test", 0, predictions.label))
    first, second = (tune(p, costs, Targets(max_accuracy_drop=0.03)).policy for p in (marked, garbled))
    assert first == second
    fitted, kept = split_parts(marked, TuneSettings())
    assert kept is not None
    assert len(fitted) == len(kept) == 1000


def _named(error: type[Exception], match: str) -> Any:
    return pytest.raises(error, match=match)


def test_what_cannot_be_asked_is_refused_by_name(world: World, costs: Costs) -> None:
    """Each wrong request names the thing that is wrong."""
    predictions = _sliced(world(300))
    drop = Targets(max_accuracy_drop=0.02)
    with _named(PredictionsError, "'certify' is empty"):
        tune(replace(predictions, split=np.full(300, "tune")), costs, drop)
    with _named(PredictionsError, "no variant 'huge'"):
        tune(predictions, costs, drop, TuneSettings(variants=("cheap", "huge")))
    with _named(PredictionsError, "no variant 'huge'"):
        tune(predictions, costs, drop, TuneSettings(reference="huge"))
    with _named(PredictionsError, "costs lack variant 'middle'"):
        tune(predictions, {k: v for k, v in costs.items() if k != "middle"}, drop)
    with _named(PredictionsError, "needs latency_ms of 'cheap'"):
        tune(predictions, {**costs, "cheap": Cost(1.0)}, Targets(max_latency_ms=5.0))
    with _named(InputError, "class 'z'"):
        tune(predictions, costs, Targets(max_recall_drop={"z": 0.1}))
    with _named(InputError, "slice 'gold'"):
        tune(predictions, costs, Targets(max_slice_drop={"gold": 0.1}))
    with _named(PredictionsError, r"no row for the target slice_drop\[none\]"):
        tune(
            replace(predictions, slices={"none": np.zeros(300, dtype=bool)}),
            costs,
            Targets(max_slice_drop={"none": 0.1}),
        )
    with _named(InputError, "as a fraction"):
        tune(predictions, costs, Targets(max_accuracy_drop=2.0))
    with _named(InputError, "no target"):
        tune(predictions, costs, Targets())
    with _named(InputError, "confidence"):
        tune(predictions, costs, drop, TuneSettings(confidence=1.0))
    with _named(PolicyError, "`cheap/logits`"):
        tune(predictions, costs, drop, TuneSettings(score="margin"))
    with _named(PredictionsError, "a part empty"):
        tune(predictions.take(np.arange(1)), costs, drop)


def test_a_policy_that_does_not_fit_the_table_is_refused_by_name(world: World, costs: Costs) -> None:
    """Replay names the absent variant, the unknown class, the missing cost and the missing logits."""
    predictions = world(50)

    def run(*stages: Stage) -> Simulation:
        return simulate(predictions, costs, Policy(status="uncertified", reference="large", stages=stages))

    with _named(PredictionsError, "'huge'"):
        run(Stage(variant="huge"))
    ruled = Stage.model_validate({"variant": "cheap", "threshold": 0.5, "per_class": {"q": {"threshold": 1}}})
    with _named(PolicyError, "class 'q'"):
        compile_policy(
            Policy(status="uncertified", reference="large", stages=(ruled, Stage(variant="large"))),
            predictions.labels,
        )
    with _named(PolicyError, "score 'margin' needs"):
        run(Stage(variant="cheap", score="margin", threshold=0.5), Stage(variant="large"))
    with _named(PolicyError, "temperature needs"):
        run(Stage(variant="cheap", temperature=2.0, threshold=0.5), Stage(variant="large"))
    with _named(PolicyError, "lacks its score_parameters"):
        run(Stage(variant="cheap", score="per_class", threshold=0.5), Stage(variant="large"))
    with _named(PolicyError, "which the predictions lack"):
        simulate(
            predictions,
            {**costs, "huge": Cost(1.0)},
            Policy(status="uncertified", reference="large", stages=(Stage(variant="huge"),)),
        )


def test_harm_and_disagreement_never_ask_less_than_the_net_loss(world: World) -> None:
    """Row by row: net loss <= harm <= disagreement, so their certificates are safe for the drop."""
    from router.tune.sample import fit_scores, make_sample

    predictions = world(500)
    names = ("cheap", "large")
    sample = make_sample(
        predictions,
        names,
        dict.fromkeys(names, 1.0),
        fit_scores(predictions, names, "max_probability", seed=0),
    )
    net, harm, differ = (
        Constraint("accuracy_drop", kind, 0.1, 1).losses(sample)
        for kind in ("accuracy_drop", "harm", "disagreement")
    )
    assert (net <= harm).all()
    assert (harm <= differ).all()


def test_no_drop_at_all_can_be_asked(world: World, costs: Costs) -> None:
    """A target of zero is met by a cascade that is no worse on these rows, rules per class included."""
    predictions = world(3000, skills=(0.9, 0.93, 0.94))
    settings = TuneSettings(reference="large", certified=False)
    result = tune(predictions, costs, Targets(max_accuracy_drop=0.0), settings)
    assert result.met
    assert result.policy.expected.accuracy_drop is not None
    assert result.policy.expected.accuracy_drop <= 1e-9
