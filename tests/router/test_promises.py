"""What may be called certified, what the certificate says, and what the explanation makes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from contract.costs import Cost
from contract.errors import InputError
from contract.predictions import Predictions, VariantPredictions
from router.decide.simulate import simulate
from router.tune.candidates import chain_counts, chains_of
from router.tune.sample import fit_scores, make_sample
from router.tune.settings import content_hash
from router.tune.targets import Constraint, Targets
from router.tune.tune import TuneResult, TuneSettings, tune
from tests.support.simulations import most

World = Callable[..., Predictions]
Costs = dict[str, Cost]
PLAIN = TuneSettings(reference="large", per_class="never")


def _blind(predictions: Predictions, share: float) -> Predictions:
    hidden = np.random.default_rng(1).random(len(predictions)) < share
    return replace(predictions, label=np.where(hidden, -1, predictions.label))


@pytest.mark.parametrize("kind", ["accuracy_drop", "error", "f1_drop", "harm"])
def test_rows_without_a_label_dilute_no_loss_but_disagreement(world: World, kind: Any) -> None:
    """A target on answers concerns labelled rows only, slices included; disagreement concerns all."""
    predictions = replace(_blind(world(400), 0.5), slices={"vip": np.arange(400) % 2 == 0})
    names = ("cheap", "large")
    model = fit_scores(predictions, names, "max_probability", seed=0)
    sample = make_sample(predictions, names, dict.fromkeys(names, 1.0), model)
    known = predictions.label >= 0
    constraint = Constraint("x", kind, 0.1, 1, slice_="vip", classes=(0, 1, 2, 3))
    assert (constraint.rows(sample) == (known & predictions.slices["vip"])).all()
    differ = Constraint("x", "disagreement", 0.1, 1)
    assert differ.rows(sample).all()


def test_a_slice_certificate_is_not_diluted_by_unlabelled_rows(costs: Costs, draws: int) -> None:
    """Disagreement with half the labels gone: a slice that loses 10 points is never certified at 6."""
    rng = np.random.default_rng(0)
    n, broken = 4000, 0
    for draw in range(draws):
        label = rng.integers(0, 2, n)
        vip = rng.random(n) < 0.5
        cheap = np.where(vip & (rng.random(n) < 0.10), 1 - label, label)
        large = VariantPredictions(label, np.ones(n))
        table = {"cheap": VariantPredictions(cheap, rng.random(n)), "large": large}
        whole = Predictions(("a", "b"), label, table, slices={"vip": vip})
        asked = Targets(max_accuracy_drop=0.2, max_slice_drop={"vip": 0.06})
        settings = replace(PLAIN, method="disagreement", seed=draw)
        policy = tune(_blind(whole, 0.5), costs, asked, settings).policy
        broken += simulate(whole, costs, policy).figures["per_slice"]["vip"]["accuracy_drop"] > 0.06
    assert broken <= most(draws, 0.1)


def test_sending_all_to_the_reference_is_not_certified_unasked(world: World, costs: Costs) -> None:
    """A budget that no cheaper candidate keeps leaves the reference: no safe threshold, until it is asked."""
    dear = {"cheap": Cost(1.0, 50.0), "middle": Cost(4.0, 50.0), "large": Cost(10.0, 9.0)}
    targets = Targets(max_accuracy_drop=0.05, max_latency_ms=10.0)
    assert tune(world(2000), dear, targets, PLAIN).policy.status == "no_safe_threshold"
    asked = tune(world(2000), dear, targets, replace(PLAIN, allow_always_escalate=True))
    assert asked.policy.status == "certified"
    cheap = {"cheap": Cost(12.0), "middle": Cost(14.0), "large": Cost(10.0)}
    alone = tune(world(2000), cheap, Targets(max_accuracy_drop=0.05), PLAIN)
    assert alone.policy.status == "certified"
    assert alone.explanation[1].startswith("Do not route: 'large'")


def test_always_escalating_after_a_failed_test_says_how_many_rows(world: World, costs: Costs) -> None:
    """What could not be shown is not said to be false; the number of rows needed stays."""
    settings = replace(PLAIN, allow_always_escalate=True)
    result = tune(world(150), costs, Targets(max_accuracy_drop=0.02), settings)
    assert result.policy.status == "certified"
    assert "could be shown" in result.explanation[1]
    assert result.policy.needed_n is not None
    assert result.policy.needed_n > 90


def test_a_budget_alone_is_met_by_one_stage_within_it_however_few_rows(world: World, costs: Costs) -> None:
    """What a single variant costs is known, so a certificate needs no luck; needed_n is never about 0."""
    asked = Targets(max_usd_per_1k=4.0, objective="most_accurate")
    result = tune(world(60), costs, asked, PLAIN)
    assert result.policy.status == "certified"
    small = Targets(max_usd_per_1k=0.5, objective="most_accurate")
    nothing = tune(world(60), costs, small, PLAIN)
    assert nothing.policy.needed_n is None
    rate = Targets(max_escalation_rate=0.0, max_usd_per_1k=9.0, objective="most_accurate")
    assert tune(world(200), costs, rate, PLAIN).policy.status == "certified"


def test_certified_budgets_are_broken_in_at_most_delta_of_draws(
    world: World, costs: Costs, draws: int
) -> None:
    """Alone and beside a drop target: the mean cost on the whole population keeps the budget."""
    everyone = world(40_000)
    for targets in (
        Targets(max_usd_per_1k=6.0, objective="most_accurate"),
        Targets(max_accuracy_drop=0.09, max_usd_per_1k=7.5),
    ):
        broken = met = 0
        for draw in range(draws):
            rows = np.random.default_rng(draw).choice(40_000, 2000, replace=False)
            result = tune(everyone.take(rows), costs, targets, replace(PLAIN, seed=draw))
            met += result.met
            usd = simulate(everyone, costs, result.policy).figures["usd_per_1k"]
            broken += result.met and usd > (targets.max_usd_per_1k or 0)
        assert broken <= most(draws, 0.1)
        assert met >= 0.6 * draws


def test_the_certificate_names_the_budgets_beside_a_drop(world: World, costs: Costs) -> None:
    """All targets are in the certificate, and the explanation promises the same."""
    result = tune(world(4000), costs, Targets(max_accuracy_drop=0.06, max_usd_per_1k=8.0), PLAIN)
    assert result.policy.certificate is not None
    assert [t.metric for t in result.policy.certificate.targets] == ["accuracy_drop", "usd_per_1k"]
    assert any("usd_per_1k under 8" in line for line in result.explanation)


def test_the_most_accurate_policy_may_cost_more_than_the_reference(world: World) -> None:
    """With that objective a better and dearer variant is found, though a drop target is given."""
    costs = {"cheap": Cost(1.0), "middle": Cost(4.0), "large": Cost(10.0)}
    asked = Targets(max_accuracy_drop=0.02, objective="most_accurate")
    result = tune(world(4000), costs, asked, TuneSettings(reference="middle", per_class="never"))
    assert result.policy.status == "certified"
    assert result.policy.expected.accuracy_drop is not None
    assert result.policy.expected.accuracy_drop < -0.05


def test_expected_figures_of_rules_per_class_are_paired_and_count_their_rows(costs: Costs) -> None:
    """Judged on 20,000 of 24,000 rows: the interval is that of 20,000, the drop against these."""
    rng = np.random.default_rng(0)
    n = 24_000
    label = rng.integers(0, 2, n)
    cheap = np.where(rng.random(n) < np.where(label == 0, 0.02, 0.4), 1 - label, label)
    table = {
        "cheap": VariantPredictions(cheap, rng.random(n)),
        "large": VariantPredictions(np.where(rng.random(n) < 0.1, 1 - label, label), np.ones(n)),
    }
    settings = TuneSettings(reference="large", certified=False)
    result = tune(Predictions(("a", "b"), label, table), costs, Targets(max_accuracy_drop=0.05), settings)
    expected = result.policy.expected
    assert expected.accuracy is not None
    assert expected.accuracy_interval is not None
    assert result.policy.stages[0].per_class
    width = expected.accuracy_interval[1] - expected.accuracy_interval[0]
    once = 2 * 1.96 * np.sqrt(expected.accuracy * (1 - expected.accuracy) / 20_000)
    assert width == pytest.approx(once, rel=0.01)


def test_needed_n_of_an_accuracy_counts_candidates_as_dear_as_the_reference(world: World) -> None:
    """One variant that is right often enough: more rows would help, and the number is given."""
    predictions = world(60, skills=(0.7, 0.85, 0.95))
    settings = TuneSettings(variants=("large",))
    result = tune(predictions, {"large": Cost(1.0)}, Targets(min_accuracy=0.92), settings)
    assert not result.met
    assert result.policy.needed_n is not None


def test_a_minimum_accuracy_reads_the_right_way_round(world: World, costs: Costs) -> None:
    """The certificate and every line speak of the accuracy asked for, not of one less it."""
    result = tune(world(4000), costs, Targets(min_accuracy=0.88), PLAIN)
    certificate = result.policy.certificate
    assert certificate is not None
    assert (certificate.metric, certificate.epsilon) == ("min_accuracy", 0.88)
    assert any("accuracy over 0.88" in line for line in result.explanation)
    assert not any("min_accuracy" in line for line in result.explanation)
    with pytest.raises(InputError, match="min_accuracy is 0; it must be above 0"):
        tune(world(100), costs, Targets(min_accuracy=0.0), PLAIN)


def _methods(result: TuneResult) -> list[str]:
    return [t.method for t in result.policy.certificate.targets] if result.policy.certificate else []


def test_harm_and_disagreement_are_told_apart_and_a_switch_is_said(world: World, costs: Costs) -> None:
    """The certificate names what was counted; without labels the explanation says so."""
    predictions = world(6000, skills=(0.9, 0.97, 0.995))
    targets = Targets(max_accuracy_drop=0.05)
    harm = tune(predictions, costs, targets, replace(PLAIN, method="binomial"))
    blind = tune(replace(predictions, label=np.full(6000, -1)), costs, targets, PLAIN)
    assert _methods(harm) == ["exact binomial on harm"]
    assert _methods(blind) == ["exact binomial on disagreement"]
    assert any(line.startswith("Without labels") for line in blind.explanation)


def test_an_alternative_that_passed_is_not_called_untested(world: World, costs: Costs) -> None:
    """On plenty of rows the naive choice is tested too, and its line says what came out."""
    for seed in range(6):
        settings = replace(PLAIN, seed=seed)
        result = tune(world(8000, seed=seed), costs, Targets(max_accuracy_drop=0.05), settings)
        shown = {(a.variants, a.thresholds): a for a in result.alternatives}
        assert len(shown) == len(result.alternatives)
        assert all((a.p_value is None) == (a.verdict == "naive") for a in result.alternatives)


def test_a_search_that_leaves_cascades_out_says_so(world: World) -> None:
    """From nine variants on not every subset is searched: the count is told, with fewer it is not."""
    base = world(200)
    names = [f"v{i}" for i in range(9)]
    many = replace(base, variants={name: base.variants["cheap"] for name in names})
    costs = {name: Cost(1.0 + i) for i, name in enumerate(names)}
    settings = TuneSettings(certified=False, per_class="never", reference="v8")
    result = tune(many, costs, Targets(max_accuracy_drop=0.5), settings)
    assert any("Of 511 possible cascades the 401" in line for line in result.explanation)
    assert chain_counts(8) == (255, 255)
    assert chain_counts(9)[0] == len(list(chains_of(9)))


def test_the_hash_of_data_in_memory_covers_all_they_hold(world: World) -> None:
    """Another slice, split or logit is other data."""
    base = replace(world(50, logits=True), slices={"s": np.zeros(50, dtype=bool)})
    large = base.variants["large"]
    assert large.logits is not None
    others = [
        replace(base, slices={"s": np.ones(50, dtype=bool)}),
        replace(base, split=np.full(50, "tune")),
        replace(base, variants={**base.variants, "large": replace(large, logits=large.logits + 1)}),
    ]
    assert len({content_hash(p) for p in (base, *others)}) == 4
