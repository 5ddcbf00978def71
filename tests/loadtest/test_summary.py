"""The figures of a run, on tables whose figures are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from contract.formulas import quantile_interval, wilson_interval
from loadtest.exchange import NO_ANSWER, TIMED_OUT
from loadtest.scrape import ServerUse
from loadtest.summary import Economy, summarise
from tests.loadtest.tables import setting, summary_of, table

ECONOMY = Economy(usd_per_core_hour=0.04, cores=2, grid_g_per_kwh=500, basis={"prices": "test"})


def test_percentiles_are_exact() -> None:
    """p50 and p99 of 1 to 1,000 ms are samples, not two-digit approximations; the interval is by rank."""
    values = list(np.random.default_rng(0).permutation(np.arange(1, 1001)))
    summary = summary_of(table(values), slo_ms=900.0)
    assert (summary.p50_ms, summary.p99_ms) == (500, 990)
    assert summary.p99_interval_ms == quantile_interval(values, 0.99)
    assert summary.goodput_per_s == pytest.approx(90.0)
    assert "n = 1000" in summary.interval_method


def test_too_few_samples_have_no_p99_interval() -> None:
    """Under 368 samples a two-sided interval of p99 does not exist, and the summary says so."""
    summary = summary_of(table([1.0] * 367))
    assert summary.p99_interval_ms is None
    assert "too few" in summary.interval_method


def test_errors_miss_the_objective_and_are_not_fast_answers() -> None:
    """A refusal in 1 ms is an error, not a latency; a timeout is both."""
    status = [200] * 90 + [500] * 5 + [NO_ANSWER] * 3 + [TIMED_OUT] * 2
    summary = summary_of(table([10.0] * 90 + [1.0] * 8 + [1000.0] * 2, status=status))
    assert summary.errors == 10
    assert summary.goodput_per_s == pytest.approx(90.0)
    assert (summary.p50_ms, summary.p99_ms) == (10.0, 1000.0)
    assert summary.by_variant["v"].n == 90


def test_accuracy_counts_texts_once_in_its_interval() -> None:
    """Ten texts asked ten times each give the interval of ten texts."""
    rows = [i % 10 for i in range(100)]
    answer = ["b" if row < 2 else "a" for row in rows]
    summary = summary_of(table([1.0] * 100, rows=rows, answer=answer))
    assert summary.accuracy == pytest.approx(0.8)
    assert summary.accuracy_interval == wilson_interval(8, 10)
    assert summary.macro_f1_interval is not None


def test_answers_in_other_names_are_told() -> None:
    """A model's LABEL_0 against pos and neg is no bad model; a few wrong answers are nothing to tell."""
    foreign = table([1.0] * 40, label=["pos", "neg"] * 20, answer=["LABEL_0", "LABEL_1"] * 20)
    (told,) = summary_of(foreign).doubts
    assert "40 of 40 answers are none of the labels" in told
    assert "'LABEL_0', 'LABEL_1'" in told
    assert summary_of(table([1.0] * 40, label=["a", "b"] * 20, answer=["a"] * 40)).doubts == ()
    assert summary_of(table([1.0] * 40, label=[None] * 40)).doubts == ()


def test_replies_without_an_answer_are_told() -> None:
    """A page of HTML with status 200 is an error of its own kind."""
    (told,) = summary_of(table([1.0] * 10, answer=[None] * 10)).doubts
    assert "10 of 10 replies with status 200 held no answer" in told


def test_unlabelled_requests_have_no_accuracy() -> None:
    """Without labels there is no accuracy, not an accuracy of 0."""
    summary = summary_of(table([1.0] * 10, label=[None] * 10))
    assert summary.accuracy is None
    assert summary.macro_f1 is None


def test_macro_f1_by_hand() -> None:
    """Two classes with an F1 of 2/3 each, a stray answer included, give 2/3."""
    label, answer = ["a", "a", "b", "b", "b"], ["a", "b", "b", "b", "x"]
    summary = summary_of(table([1.0] * 5, label=label, answer=answer))
    assert summary.macro_f1 == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"lag_ms": 2.6}, "send lag"),
        ({"rate": 98.0}, "under 99%"),
        ({"cpu": 0.81}, "generator used 81%"),
        ({"early": True}, "stopped early"),
    ],
)
def test_a_run_that_cannot_be_believed_is_void(fault: dict[str, float], reason: str) -> None:
    """Late sends, a rate not reached, a busy generator or an early end void the run, with the reason."""
    n = 200
    requests = table([10.0] * n, lag_ms=fault.get("lag_ms", 0.0), rate=fault.get("rate", 100.0))
    asked = setting(n, cpu=fault.get("cpu", 0.1), early=bool(fault.get("early")))
    summary = summarise(requests, asked)
    assert not summary.valid
    assert reason in (summary.void_reason or "")
    assert summarise(table([10.0] * n, lag_ms=2.4), setting(n)).valid


@pytest.mark.parametrize(("n", "rate", "seconds"), [(11, 2.239, 5.0), (3, 3.4, 1.0), (1, 0.4, 1.0)])
def test_rounding_to_whole_requests_voids_no_run(n: int, rate: float, seconds: float) -> None:
    """A run that sent all it planned is valid, however far rate x duration is from a whole number."""
    asked = replace(setting(n, rate=rate), duration_s=seconds)
    assert summarise(table([10.0] * n, rate=1000), asked).valid
    if n > 1:
        late = summarise(table([10.0] * (n - 1), rate=1000), asked)
        assert "planned" in (late.void_reason or "")


def test_without_an_objective_the_lag_is_held_against_p99() -> None:
    """Then 5% of p99, at least 1 ms, is what the generator may be late; and there is no goodput."""
    assert summary_of(table([10.0] * 100, lag_ms=0.9), slo_ms=None).valid
    summary = summary_of(table([10.0] * 100, lag_ms=1.1), slo_ms=None)
    assert not summary.valid
    assert summary.goodput_per_s is None


def test_an_empty_run_is_void() -> None:
    """No measured request is a void run with empty figures."""
    summary = summary_of(table([1.0]).slice(0, 0))
    assert not summary.valid
    assert summary.p99_ms is None


@pytest.mark.parametrize(
    ("code", "refusal", "told"),
    [
        (404, "no model 'casacde' is served", "status 404: no model 'casacde' is served"),
        (503, None, "status 503"),
        (NO_ANSWER, None, "a connection that broke"),
        (TIMED_OUT, None, "no answer in time"),
        (200, None, "status 200 and no answer"),
    ],
)
def test_a_run_without_an_answer_is_void_and_has_no_price(code: int, refusal: str | None, told: str) -> None:
    """Where every request failed there is no cost of an answer, and the reason is the first refusal."""
    use = ServerUse(window_s=2.0, served=0, cpu_seconds={"gateway": 0.5}, joules=72.0)
    refused = table([1.0] * 150, status=[code] * 150, refusal=refusal, answer=[None] * 150)
    for slo_ms in (50.0, None):
        summary = summarise(refused, setting(150, slo_ms=slo_ms), use=use, economy=ECONOMY)
        assert not summary.valid
        assert "not one of 150 requests was answered: the first got " + told in (summary.void_reason or "")
        assert summary.usd_per_1k is summary.usd_per_1k_by_cpu is summary.energy_wh_per_1k is None


def test_money_and_energy_are_counted_per_answer() -> None:
    """Refusals are no inferences: with half refused, what was used counts twice as much for each answer."""
    use = ServerUse(window_s=2.0, cpu_seconds={"v": 2.0}, joules=72.0, provenance="user-constant")
    half = table([10.0] * 200, status=[200, 429] * 100, refusal="the gateway is full")
    summary = summarise(half, setting(200, slo_ms=None), use=use, economy=ECONOMY)
    assert summary.cpu_seconds_per_1k == pytest.approx(20.0)
    assert summary.energy_wh_per_1k == pytest.approx(72 / 3600 * 10)
    assert summary.usd_per_1k == pytest.approx(1000 * 0.04 * 2 / (3600 * 50))
    assert summary.doubts == ("100 of 200 requests failed, the first with status 429: the gateway is full",)


def test_cost_and_energy_by_hand() -> None:
    """CPU-seconds, money, energy and carbon of 1,000 requests follow their formulas."""
    use = ServerUse(
        window_s=2.0, served=200, cpu_seconds={"v": 1.5, "gateway": 0.5}, joules=72.0, idle_joules=36.0,
        provenance="user-constant",
    )  # fmt: skip
    summary = summarise(table([10.0] * 200), setting(200), use=use, economy=ECONOMY)
    assert summary.cpu_seconds_per_1k == pytest.approx(10.0)
    assert summary.usd_per_1k_by_cpu == pytest.approx(10.0 * 0.04 / 3600)
    assert summary.usd_per_1k == pytest.approx(1000 * 0.04 * 2 / (3600 * 100))
    assert summary.energy_wh_per_1k == pytest.approx(72 / 3600 * 5)
    assert summary.energy_dynamic_wh_per_1k == pytest.approx(36 / 3600 * 5)
    assert summary.gco2e_per_1k == pytest.approx(72 / 3600 * 5 / 1000 * 500)
    assert summary.energy_provenance == "user-constant"
    assert summary.by_variant["v"].cpu_seconds == 1.5
    assert summary.by_variant["v"].energy_wh_per_1k == pytest.approx(36 / 3600 * 5 * 0.75)
    assert (summary.by_variant["gateway"].n, summary.basis) == (0, {"prices": "test"})


def test_what_models_elsewhere_charge_is_part_of_the_price() -> None:
    """200 answers that cost a dollar elsewhere cost five dollars a thousand more, by machine and by CPU."""
    use = ServerUse(window_s=2.0, served=200, cpu_seconds={"v": 2.0}, charged_usd=1.0)
    summary = summarise(table([10.0] * 200), setting(200), use=use, economy=ECONOMY)
    assert summary.charged_usd_per_1k == pytest.approx(5.0)
    assert summary.usd_per_1k == pytest.approx(5.0 + 1000 * 0.04 * 2 / (3600 * 100))
    assert summary.usd_per_1k_by_cpu == pytest.approx(5.0 + 10.0 * 0.04 / 3600)


def test_what_was_not_measured_is_null() -> None:
    """Without counters there is no energy, no CPU time and no provenance."""
    summary = summarise(table([10.0] * 10), setting(10), economy=ECONOMY)
    assert summary.energy_wh_per_1k is None
    assert summary.cpu_seconds_per_1k is None
    assert summary.gco2e_per_1k is None
    assert summary.energy_provenance == "none"


def test_what_is_left_to_a_person_is_neither_wrong_nor_an_error() -> None:
    """Its share is told; accuracy is that of the answers."""
    left = [True] * 40 + [False] * 60
    answers = [None if one else "a" for one in left]
    requests = table([5.0] * 100, answer=answers, abstained=left, variant=["abstain"] * 40 + ["v"] * 60)
    summary = summary_of(requests)
    assert (summary.errors, summary.accuracy, summary.abstention_rate) == (0, 1.0, 0.4)
    assert summary.by_variant["abstain"].accuracy is None
    assert not any("no answer" in doubt for doubt in summary.doubts)
