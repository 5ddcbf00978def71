"""Live mathematics on simulated streams: intervals that cover, quiet alarms, budgets that hold, expiry."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from contract.policy import Certificate, Policy, Stage
from router.live.alarm import DropAlarm
from router.live.audit import DropEstimate, audit_probabilities
from router.live.budget import BudgetController
from router.live.drift import ScoreShift, ks_p_value
from router.live.expiry import expiry_reasons, standing

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]


def _stream(rng: np.random.Generator, n: int, harm: float, help_: float) -> tuple[Floats, Floats]:
    """Return audit probabilities [n] and values D / q [n] of a stream with this harm and help.

    The values are 0 where not audited.
    """
    q = rng.uniform(0.1, 0.6, n)
    u = rng.random(n)
    loss = np.where(u < harm, 1.0, np.where(u < harm + help_, -1.0, 0.0))
    audited = rng.random(n) < q
    return q, np.where(audited, loss / q, 0.0)


@given(hnp.arrays(np.float64, st.integers(1, 60), elements=st.floats(0, 1)), st.floats(0.05, 0.9))
def test_audit_probabilities_keep_the_rate_and_the_floor(disagreement: Floats, rate: float) -> None:
    """The mean is the rate asked for (unless all are capped at 1), and none is under the floor.

    Order follows disagreement.
    """
    q = audit_probabilities(disagreement, rate, 0.02)
    assert q.min() >= 0.02 - 1e-12
    assert q.max() <= 1.0
    assert q.mean() == pytest.approx(rate, abs=1e-3)
    order = np.argsort(disagreement)
    assert (np.diff(q[order]) >= -1e-9).all()


def test_auditing_by_the_square_root_takes_fewer_audits_for_the_same_error() -> None:
    """At one audit rate, the estimate's variance is at least a quarter lower than that of uniform audits."""
    score = np.random.default_rng(0).beta(6, 1.5, 20_000)
    disagreement = np.clip(1 - score, 0.001, 1) ** 2
    q = audit_probabilities(disagreement, 0.1, 0.02)
    assert (disagreement / q).mean() < 0.75 * (disagreement / 0.1).mean()


def test_the_drop_interval_covers_at_every_moment_of_nearly_every_stream() -> None:
    """Over 60 streams of 3,000 requests, looked at 30 times each, at most alpha ever miss the true drop."""
    rng = np.random.default_rng(5)
    missed = 0
    for _ in range(60):
        estimate = DropEstimate(q_min=0.1, alpha=0.1)
        _, values = _stream(rng, 3000, 0.05, 0.02)
        bad = False
        for part in values.reshape(30, 100):
            estimate = estimate.after(part, 0)
            low, high = estimate.interval()
            bad = bad or not low <= 0.03 <= high
        missed += bad
        assert high - low < 0.12
    assert missed / 60 <= 0.1


def test_the_drop_interval_covers_the_running_mean_under_drift() -> None:
    """No drop at first, ten points from row 2,000 on: few of 30 streams ever miss the mean."""
    rng = np.random.default_rng(8)
    missed = 0
    for _ in range(30):
        estimate, bad = DropEstimate(q_min=0.5), False
        for start in range(0, 6000, 100):
            values = np.where(rng.random(100) < 0.5, 2.0 * (rng.random(100) < 0.1 * (start >= 2000)), 0.0)
            estimate = estimate.after(values, 50)
            low, high = estimate.interval()
            seen = start + 100
            bad = bad or not low <= 0.1 * max(0, seen - 2000) / seen <= high
        missed += bad
    assert missed / 30 <= 0.1
    assert high - low < 0.04


def test_every_answer_may_be_audited() -> None:
    """With q_min 1 nothing divides by zero, and the interval shuts around the drop."""
    estimate = DropEstimate(q_min=1.0)
    assert estimate.interval() == (-1.0, 1.0)
    for index in range(2000):
        estimate = estimate.seen(float(index % 10 == 0), 1.0)
    low, high = estimate.interval()
    assert low < 0.1 < high
    assert high - low < 0.07


@pytest.mark.parametrize(
    "make",
    [
        lambda: DropEstimate(q_min=0.0),
        lambda: DropEstimate(q_min=0.5, alpha=1.0),
        lambda: DropAlarm(epsilon=0.02, delta=0.0, q_min=0.1),
        lambda: DropAlarm(epsilon=0.02, delta=0.1, q_min=2.0),
        lambda: BudgetController(rate=1.2, certified=0.5),
        lambda: BudgetController(rate=0.2, certified=0.5, eta=0.0),
        lambda: BudgetController(rate=0.2, certified=float("nan")),
    ],
)
def test_live_values_refuse_settings_out_of_range(make: Callable[[], object]) -> None:
    """What no stream could be held to is refused when it is made."""
    with pytest.raises(ValueError, match="needs"):
        make()


def test_a_drop_estimate_fed_singly_or_in_batches_is_the_same_and_survives_json() -> None:
    """One request at a time, or many at once, or through JSON halfway: the same state."""
    rng = np.random.default_rng(2)
    q, values = _stream(rng, 50, 0.3, 0.1)
    whole = DropEstimate(q_min=0.1).after(values, int((values != 0).sum()))
    single = DropEstimate(q_min=0.1)
    for index, (probability, value) in enumerate(zip(q.tolist(), values.tolist(), strict=True)):
        single = single.seen(value * probability if value != 0 else None, probability)
        if index == 20:
            single = DropEstimate.load(json.loads(json.dumps(single.dump())))
    assert single.total == pytest.approx(whole.total)
    assert single.interval() == pytest.approx(whole.interval())
    assert single.escalated().n == 51


def test_a_loss_or_probability_out_of_range_is_refused() -> None:
    """Audits with impossible figures raise, in the estimate and in the alarm."""
    for state in (DropEstimate(q_min=0.1), DropAlarm(epsilon=0.02, delta=0.1, q_min=0.1)):
        with pytest.raises(ValueError, match="probability"):
            state.seen(0.0, 0.05)
        with pytest.raises(ValueError, match="loss"):
            state.seen(1.5, 0.5)


def test_the_alarm_is_false_in_at_most_delta_of_whole_lives() -> None:
    """With the drop exactly as promised, at most a tenth of 100 lives of 2,500 requests ever alarm."""
    rng = np.random.default_rng(11)
    fired = 0
    for _ in range(100):
        _, values = _stream(rng, 2500, 0.04, 0.02)
        fired += _first_alarm(values, 0.02) is not None
    assert fired / 100 <= 0.1


def _first_alarm(values: Floats, epsilon: float) -> int | None:
    alarm = DropAlarm(epsilon=epsilon, delta=0.1, q_min=0.1)
    for value in values.tolist():
        # a weighted value stands for an audit at q_min with a loss scaled to match
        alarm = alarm.seen(value * 0.1 if value else None, 0.1)
        if alarm.firing:
            break
    return alarm.fired_at


def test_the_alarm_finds_a_broken_model_and_says_when() -> None:
    """With a drop of 12 points against 2 promised, all of 30 streams alarm, half within 1,500 requests."""
    rng = np.random.default_rng(3)
    delays = [_first_alarm(_stream(rng, 6000, 0.14, 0.02)[1], 0.02) for _ in range(30)]
    assert all(delay is not None for delay in delays)
    assert float(np.median([delay for delay in delays if delay is not None])) < 1500


def test_an_alarm_survives_json_and_stays_on() -> None:
    """State written and read back goes on as before; an alarm that fired keeps its moment."""
    alarm = DropAlarm(epsilon=0.02, delta=0.1, q_min=0.5)
    for _ in range(200):
        alarm = alarm.seen(1.0, 0.5)
    back = DropAlarm.load(json.loads(json.dumps(alarm.dump())))
    assert back == alarm
    assert back.firing
    assert back.seen(0.0, 1.0).fired_at == alarm.fired_at
    assert back.wealth > 10


def test_score_shift_is_quiet_on_like_traffic_and_loud_on_unlike() -> None:
    """Scores from the same law stay quiet; scores from another are called shifted; JSON keeps the state."""
    rng = np.random.default_rng(0)
    shift = ScoreShift.from_scores(rng.beta(5, 1, 5000), window=1000)
    assert shift.state == "quiet"
    same = shift.seen(rng.beta(5, 1, 3000))
    assert same.state == "quiet"
    other = ScoreShift.load(json.loads(json.dumps(same.dump()))).seen(rng.beta(2, 2, 3000))
    assert other.state == "shifted"
    assert ks_p_value(rng.beta(5, 1, 500), rng.beta(2, 2, 500)) < 1e-6


@pytest.mark.parametrize("drift", ["none", "slow", "sudden", "wave"])
def test_the_budget_holds_within_a_point_on_drifting_streams(drift: str) -> None:
    """Whatever the scores do, the escalated share over 20,000 requests is within a point of the budget."""
    rng = np.random.default_rng(4)
    n = 20_000
    at = np.arange(n) / n
    shape = {"none": 0 * at, "slow": at, "sudden": (at > 0.5) * 1.0, "wave": np.sin(12 * at) ** 2}[drift]
    scores = np.clip(rng.beta(5, 1.5, n) - 0.3 * shape, 0, 1)
    control = BudgetController(rate=0.3, certified=0.0, eta=0.02)
    for score in scores.tolist():
        control = control.seen(score)
    assert control.escalation_rate == pytest.approx(0.3, abs=0.01)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=300), st.floats(0.05, 0.9))
def test_the_budget_never_takes_a_threshold_below_the_certified_one(scores: list[float], rate: float) -> None:
    """While quality ranks first the threshold stays at or above the certificate's on any scores."""
    control = BudgetController(rate=rate, certified=0.6)
    for score in scores:
        control = control.seen(score)
        assert control.threshold >= 0.6
        assert control.adapted == (control.threshold != 0.6)
    assert BudgetController(**json.loads(json.dumps(control.dump()))) == control


def test_a_budget_that_wants_less_than_the_certificate_allows_says_so() -> None:
    """Hard traffic at the clamp is a conflict; an operator who ranks the budget first gets it held."""
    strict = BudgetController(rate=0.1, certified=0.9)
    loose = BudgetController(rate=0.1, certified=0.9, on_conflict="keep_budget")
    rng = np.random.default_rng(0)
    for score in rng.uniform(0, 1, 5000).tolist():
        strict, loose = strict.seen(score), loose.seen(score)
    assert strict.in_conflict
    assert strict.threshold == pytest.approx(0.9, abs=0.002)
    assert loose.adapted
    assert loose.escalation_rate == pytest.approx(0.1, abs=0.02)


def _policy() -> Policy:
    certificate = Certificate(
        method="m",
        epsilon=0.01,
        delta=0.1,
        n_tune=1,
        n_certify=1,
        seed=0,
        data_sha256="d",
        variants={"a": "1", "b": "2"},
    )
    stages = (Stage(variant="a", threshold=0.5), Stage(variant="b"))
    return Policy(status="certified", reference="b", stages=stages, certificate=certificate)


def test_a_certificate_expires_with_its_artifacts_and_its_data() -> None:
    """A certificate holds for the very hashes it names, and lapses by name when one changes.

    An adapted threshold is shown as such.
    """
    policy = _policy()
    assert expiry_reasons(policy, {"a": "1", "b": "2", "c": "3"}, "d") == ()
    assert "'a' changed" in expiry_reasons(policy, {"a": "9", "b": "2"})[0]
    assert "no longer served" in expiry_reasons(policy, {"a": "1"})[0]
    assert expiry_reasons(policy, {"a": "1", "b": "2"}, "e") == ("the labelled data changed",)
    assert standing(policy, {"a": "1", "b": "2"}, adapted=False) == "certified"
    assert standing(policy, {"a": "1", "b": "2"}, adapted=True) == "adapted"
    assert standing(policy, {"a": "9", "b": "2"}, adapted=True) == "expired"
    assert standing(policy, {"a": "1", "b": "2"}, "e", adapted=False) == "expired"
    assert policy.certificate is not None
    loose = policy.model_copy(update={"certificate": policy.certificate.model_copy(update={"variants": {}})})
    assert expiry_reasons(loose, {"a": "1", "b": "2"})[0] == "variant 'a' is not bound to a build"
    assert standing(loose, {"a": "1", "b": "2"}, adapted=False) == "expired"
    assert expiry_reasons(loose, {}) == ()
    plain = Policy(status="uncertified", reference="b", stages=(Stage(variant="b"),))
    assert standing(plain, {}, adapted=True) == "uncertified"
    assert expiry_reasons(plain, {}) == ()
