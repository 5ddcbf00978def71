"""Verdicts on candidates: seldom wrong whenever one looks, soon there, and anybody's to compute again."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.trial import ArmCounts, PairCounts, VerdictRule
from router.live.verdict import (
    STAKES,
    decide,
    judge,
    log_wealth_above,
    log_wealth_below,
    lower_bound,
    upper_bound,
)
from tests.support.simulations import most

REFERENCE = VerdictRule()
AGREEMENT = VerdictRule(measured_by="agreement")
Shares = tuple[float, float, float, float]


def first_verdict(
    rule: VerdictRule, shares: Shares, rng: np.random.Generator, *, at_most: int = 6000, look: int = 20
) -> tuple[str, int]:
    """The first decision of a trial with these shares of same, worse, better, neither; and after how many."""
    counts, n = np.zeros(4, dtype=int), 0
    while n < at_most:
        counts += rng.multinomial(look, shares)
        n += look
        same, worse, better, neither = counts.tolist()
        unasked = 0
        if rule.audit_share < 1:
            asked = rng.binomial([worse, better, neither], rule.audit_share)
            unasked = int(worse + better + neither - asked.sum())
            worse, better, neither = asked.tolist()
        pairs = PairCounts(same=same, worse=worse, better=better, neither=neither, unasked=unasked)
        reason, _, _ = decide(rule, pairs, ArmCounts())
        if reason != "open":
            return reason, n
    return "open", n


def test_wealth_is_the_mean_over_stakes_of_a_product_worked_out_by_hand() -> None:
    """Two texts alike and one worse, against a drop of 0.1 or more."""
    by_hand = 0.0
    for stake in STAKES.tolist():
        rate = stake / (1 - 0.1)
        by_hand += (1 + rate * 0.1) ** 2 * (1 + rate * (0.1 - 1)) / len(STAKES)
    assert log_wealth_below([(0.0, 2), (1.0, 1)], 0.1, 1.0) == pytest.approx(math.log(by_hand))


def test_wealth_against_more_is_worked_out_by_hand_too() -> None:
    """The stake of a bet upwards is measured by the least value that may come."""
    by_hand = 0.0
    for stake in STAKES.tolist():
        rate = stake / (0.1 + 1)
        by_hand += (1 - rate * 0.1) ** 2 * (1 + rate * 0.9) / len(STAKES)
    assert log_wealth_above([(0.0, 2), (1.0, 1)], 0.1, -1.0) == pytest.approx(math.log(by_hand))


@pytest.mark.parametrize(
    ("rule", "shares"),
    [(REFERENCE, (0.94, 0.03, 0.015, 0.015)), (AGREEMENT, (0.985, 0.015, 0.0, 0.0))],
    ids=["reference", "agreement"],
)
def test_a_candidate_that_is_worse_than_allowed_is_seldom_promoted(
    rule: VerdictRule, shares: Shares, draws: int
) -> None:
    """A drop of 1.5 points where one is allowed, looked at every 20 texts: at most one run in ten."""
    runs = [first_verdict(rule, shares, np.random.default_rng(seed))[0] for seed in range(draws)]
    assert runs.count("no_worse") <= most(draws, 0.1)


def test_a_candidate_that_drops_exactly_what_is_allowed_is_seldom_judged_either_way(draws: int) -> None:
    """At the limit both verdicts are wrong by no more than the confidence says."""
    shares = (0.95, 0.025, 0.015, 0.01)
    runs = [first_verdict(REFERENCE, shares, np.random.default_rng(seed))[0] for seed in range(draws)]
    assert runs.count("no_worse") <= most(draws, 0.1)
    assert runs.count("worse") <= most(draws, 0.1)


@pytest.mark.parametrize(
    ("rule", "shares", "within"),
    [
        (REFERENCE, (1.0, 0.0, 0.0, 0.0), 460),
        (REFERENCE, (0.98, 0.008, 0.008, 0.004), 3000),
        (REFERENCE, (0.95, 0.02, 0.02, 0.01), 6000),
        (AGREEMENT, (0.998, 0.002, 0.0, 0.0), 2500),
    ],
    ids=["the same answers", "2% differ, equal", "5% differ, equal", "0.2% differ"],
)
def test_a_candidate_that_is_no_worse_is_promoted_within_so_many_texts(
    rule: VerdictRule, shares: Shares, within: int, draws: int
) -> None:
    """docs/decisions states these figures; nine runs in ten keep them."""
    runs = [first_verdict(rule, shares, np.random.default_rng(seed), at_most=within) for seed in range(draws)]
    assert sum(decision != "no_worse" for decision, _ in runs) <= most(draws, 0.1)


def test_a_candidate_that_is_much_worse_is_withdrawn_fast(draws: int) -> None:
    """A drop of ten points is seen within 400 texts in nine runs of ten."""
    runs = [
        first_verdict(REFERENCE, (0.85, 0.12, 0.02, 0.01), np.random.default_rng(seed), at_most=400)
        for seed in range(draws)
    ]
    assert sum(decision != "worse" for decision, _ in runs) <= most(draws, 0.1)


@pytest.mark.simulations
def test_verdicts_hold_with_a_share_of_audits_and_while_traffic_drifts(draws: int) -> None:
    """Half of the differences audited, and harm that comes in waves: the mean so far is what counts."""
    rule = VerdictRule(audit_share=0.5)
    runs = [
        first_verdict(rule, (0.94, 0.03, 0.015, 0.015), np.random.default_rng(seed)) for seed in range(draws)
    ]
    assert sum(decision == "no_worse" for decision, _ in runs) <= most(draws, 0.1)
    wrong = 0
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        same = worse = 0
        for step in range(1, 301):
            rate = 0.03 if (step // 10) % 2 == 0 else 0.0
            found = int(rng.binomial(20, rate))
            same, worse = same + 20 - found, worse + found
            reason, _, _ = decide(REFERENCE, PairCounts(same=same, worse=worse), ArmCounts())
            if reason == "no_worse" and _mean_rate(step) >= 0.01:
                wrong += 1
                break
    assert wrong <= most(draws, 0.1)


def _mean_rate(steps: int) -> float:
    return sum(0.03 if (step // 10) % 2 == 0 else 0.0 for step in range(1, steps + 1)) / steps


def test_what_was_begun_and_not_finished_speaks_for_neither_verdict() -> None:
    """Broken comparisons keep a good candidate from being promoted and a bad one from being withdrawn."""
    good, bad = PairCounts(same=1000), PairCounts(same=800, worse=200)
    assert judge(REFERENCE, good, ArmCounts()).decision == "promote"
    assert judge(REFERENCE, good.plus(PairCounts(unresolved=50)), ArmCounts()).decision == "undecided"
    assert judge(REFERENCE, bad, ArmCounts()).decision == "withdraw"
    assert judge(REFERENCE, bad.plus(PairCounts(unresolved=400)), ArmCounts()).decision == "undecided"


def test_what_was_never_begun_changes_nothing() -> None:
    """Comparisons that were shed before anything was known of the text are no evidence."""
    some = PairCounts(same=300, worse=3)
    assert judge(REFERENCE, some, ArmCounts()) == judge(
        REFERENCE, some.plus(PairCounts(shed=10_000, busy=10_000)), ArmCounts()
    )


def test_guardrails_come_before_everything_else() -> None:
    """Many failures, or many requests over the objective, withdraw a candidate that answers as well."""
    rule = VerdictRule(max_error_rate=0.01, objective_ms=50.0)
    same = PairCounts(same=1000)
    assert judge(rule, same, ArmCounts(requests=1000, failed=2, slow=5)).reason == "no_worse"
    assert judge(rule, same, ArmCounts(requests=1000, failed=60)).reason == "errors"
    assert judge(rule, same, ArmCounts(requests=1000, slow=60)).reason == "slow"


@given(
    st.integers(0, 3000),
    st.integers(0, 60),
    st.integers(0, 60),
    st.integers(0, 60),
    st.integers(0, 20),
    st.sampled_from([REFERENCE, AGREEMENT, VerdictRule(audit_share=0.3), VerdictRule(no_worse_than=0.2)]),
)
def test_bounds_and_verdict_agree(
    same: int, worse: int, better: int, neither: int, unresolved: int, rule: VerdictRule
) -> None:
    """The estimate lies between the bounds, and a verdict is a bound that has passed the limit."""
    pairs = PairCounts(same=same, worse=worse, better=better, neither=neither, unresolved=unresolved)
    verdict = judge(rule, pairs, ArmCounts())
    if verdict.drop is not None and not unresolved:
        assert verdict.drop_low - 1e-9 <= max(-1.0, min(1.0, verdict.drop)) <= verdict.drop_high + 1e-9
    if abs(verdict.log_no_worse - verdict.needed) > 1e-6:
        assert (verdict.decision == "promote") == (verdict.drop_high <= rule.no_worse_than)
    if abs(verdict.log_worse - verdict.needed) > 1e-6:
        assert (verdict.decision == "withdraw") == (verdict.drop_low >= rule.no_worse_than)


@given(st.lists(st.sampled_from([0.0, 1.0, -1.0]), max_size=60), st.randoms())
def test_the_order_of_texts_and_replicas_does_not_matter(
    values: list[float], random: np.random.Generator
) -> None:
    """Wealth of counts is the wealth of any sequence with these counts."""
    shuffled = list(values)
    random.shuffle(shuffled)
    counted = [(value, values.count(value)) for value in (0.0, 1.0, -1.0)]
    one_by_one = [(value, 1) for value in shuffled]
    assert log_wealth_below(counted, 0.05, 1.0) == pytest.approx(log_wealth_below(one_by_one, 0.05, 1.0))
    assert log_wealth_above(counted, 0.05, -1.0) == pytest.approx(log_wealth_above(one_by_one, 0.05, -1.0))


def test_without_a_text_the_bounds_say_nothing() -> None:
    """From lowest to highest: everything is possible yet."""
    assert upper_bound([], -1.0, 1.0, 0.1) == pytest.approx(1.0)
    assert lower_bound([], -1.0, 1.0, 0.1) == pytest.approx(-1.0)
    assert judge(REFERENCE, PairCounts(), ArmCounts()).drop is None


def test_counts_add_up_and_read_back() -> None:
    """Sums of replicas are sums of every count; latencies by bucket keep their places."""
    one = ArmCounts(requests=2, texts=3, usd=0.5, latencies=(1, 1, *(0,) * 20))
    both = one.plus(one)
    assert (both.requests, both.texts, both.usd, both.latencies[:2]) == (4, 6, 1.0, (2, 2))
    assert ArmCounts.model_validate_json(both.model_dump_json()) == both
    assert both.summary()["p99_ms"] == pytest.approx(1.0)
    assert ArmCounts().summary()["p99_ms"] is None
