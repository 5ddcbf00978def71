"""A mix that moves: bounds of cells, their reweighting, and certificates that hold while shares change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.costs import Cost
from contract.errors import InputError, PredictionsError
from contract.mix import Cell, Mix
from contract.policy import parse_policy
from contract.predictions import Predictions
from router.decide.cascade import compile_policy
from router.decide.simulate import replay
from router.mix.bounds import grown_p_value, grown_passes, p_value, upper_bound
from router.mix.shares import Growing
from router.mix.today import ShareToday, share_today, today
from router.mix.tune import tune_mix
from router.tune.targets import Targets
from router.tune.tune import TuneSettings, tune
from tests.router.mixed import traffic
from tests.support.simulations import most

COSTS = {"cheap": Cost(1.0), "large": Cost(10.0)}
SETTINGS = TuneSettings(reference="large")
DROP = Targets(max_accuracy_drop=0.05)
COUNTS = st.integers(1, 120).flatmap(
    lambda n: st.integers(0, n).flatmap(
        lambda plus: st.integers(0, n - plus).map(lambda minus: (plus, minus, n))
    )
)


def cell(bound: float, *, accepted: bool = True, low: float = 0.0, high: float = 2.0) -> Cell:
    """Return a cell of a hundred rows."""
    return Cell(
        name="x", low=low, high=high, n=100, plus=1, minus=0, share=0.5, accepted=accepted,
        bound=bound if accepted else 0.0, answered=float(accepted),
    )  # fmt: skip


def mix_of(bounds: list[float]) -> Mix:
    """Return cells with these bounds, the last of which escalates."""
    cells = [*map(cell, bounds), cell(0.0, accepted=False)]
    return Mix(by="score", variant="cheap", epsilon=0.5, delta=0.1, cells=tuple(cells))


def drop_of(policy_json: dict[str, object], rows: Predictions) -> tuple[float, float]:
    """Return the accuracy drop on rows, and the share that the cheap variant answers."""
    found = replay(compile_policy(parse_policy(policy_json), rows.labels), rows)
    names = np.array([stage["variant"] for stage in policy_json["stages"]])  # type: ignore[attr-defined]
    drop = rows.correct("large").mean() - (found.answer == rows.label).mean()
    return float(drop), float((names[found.stage] == "cheap").mean())


@given(COUNTS, st.sampled_from([0.01, 0.05, 0.2]))
@settings(deadline=None, max_examples=15)
def test_no_cell_is_bounded_below_its_own_count(counts: tuple[int, int, int], level: float) -> None:
    """An upper bound is no smaller than the mean loss that was seen, and grows as the level shrinks."""
    plus, minus, n = counts
    bound = upper_bound(plus, minus, n, level)
    assert (plus - minus) / n <= bound <= 1.0
    assert upper_bound(plus, minus, n, level / 4) >= bound


@given(COUNTS, st.floats(0.01, 0.9), st.floats(0.001, 0.09))
@settings(deadline=None, max_examples=15)
def test_a_larger_mean_is_refuted_wherever_a_smaller_one_is(
    counts: tuple[int, int, int], mean: float, more: float
) -> None:
    """P-values fall as the mean that they speak against grows, which both inversions rest on."""
    assert p_value(*counts, mean + more, 0.1) <= p_value(*counts, mean, 0.1) + 2e-3


def test_bounds_without_gains_are_clopper_and_pearsons() -> None:
    """0 of 29 losses bound the mean by 9.81% at 5%: (1 - 0.0981) ** 29 = 0.05."""
    assert upper_bound(0, 0, 29, 0.05) == pytest.approx(1 - 0.05 ** (1 / 29))
    assert upper_bound(0, 0, 0, 0.05) == 1.0


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=6), st.data())
def test_the_worst_mix_is_never_better_than_any_mix(bounds: list[float], data: st.DataObject) -> None:
    """Whatever is counted, the bound of that mix lies below the worst one."""
    mix = mix_of(bounds)
    counts = data.draw(st.lists(st.integers(0, 50), min_size=len(bounds) + 1, max_size=len(bounds) + 2))
    found = mix.under(counts)
    if sum(counts):
        assert found.bound is not None
        assert found.bound <= mix.worst + 1e-12
    else:
        assert found.bound is None


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=5), st.data())
def test_bounds_reweight_linearly(bounds: list[float], data: st.DataObject) -> None:
    """The bound of two days together is that of each, weighed by its texts; all in one cell give its own."""
    mix = mix_of(bounds)
    some = st.lists(st.integers(1, 50), min_size=len(bounds) + 1, max_size=len(bounds) + 1)
    first, second = data.draw(some), data.draw(some)
    both = mix.under([a + b for a, b in zip(first, second, strict=True)])
    one, two = mix.under(first), mix.under(second)
    assert both.bound is not None
    assert one.bound is not None
    assert two.bound is not None
    assert both.bound * both.n == pytest.approx(one.bound * one.n + two.bound * two.n)
    alone = [0] * (len(bounds) + 1)
    alone[0] = 7
    assert mix.under(alone).bound == pytest.approx(bounds[0])


@given(
    st.tuples(st.integers(0, 4), st.just(0), st.integers(20, 80)),
    st.tuples(st.integers(0, 20), st.integers(0, 5), st.integers(200, 900)),
    st.floats(0.05, 0.9),
)
@settings(deadline=None, max_examples=10)
def test_a_p_value_of_a_mix_is_the_level_at_which_it_passes(
    grown: tuple[int, int, int], rest: tuple[int, int, int], share: float
) -> None:
    """It passes above its p-value and not below, and a looser epsilon never gives a larger one."""
    p = grown_p_value(grown, rest, share, 0.05)
    if p < 1.0:
        assert grown_passes(grown, rest, share, 0.05, min(1.0, p * 1.01))
    assert grown_p_value(grown, rest, share, 0.08) <= p * 1.02


def test_a_mix_of_two_parts_is_tested_at_its_level() -> None:
    """Where the mean loss of the mix is epsilon, a test at 10% passes in at most 10% of draws."""
    rng, draws, passed = np.random.default_rng(0), 2000, 0
    grown, rest = rng.binomial(60, 0.12, draws), rng.binomial(900, 0.0325, draws)
    for a, b in zip(grown.tolist(), rest.tolist(), strict=True):
        passed += grown_passes((a, 0, 60), (b, 0, 900), 0.2, 0.05, 0.1)
    assert 0 < passed <= most(draws, 0.1)


def test_a_share_that_grows_within_its_limit_keeps_the_promise(draws: int) -> None:
    """Certified where 2% are of a kind, served where 25% are: broken in at most a share delta of the draws.

    The same target without it is broken in most.
    """
    served = traffic(60_000, 0.25, 10_000)
    broken, naive, answered = 0, 0, []
    for draw in range(draws):
        seen = traffic(5000, 0.02, draw)
        policy = tune_mix(seen, COSTS, DROP, SETTINGS, None, Growing("other", 0.25)).policy
        drop, share = drop_of(policy.dump(), served)
        broken += drop > 0.05
        answered.append(share)
        plain = tune(seen, COSTS, DROP, replace(SETTINGS, seed=draw)).policy
        naive += drop_of(plain.dump(), served)[0] > 0.05
    assert broken <= most(draws, 0.1)
    assert naive >= draws / 2
    assert np.mean(answered) > 0.3


@pytest.mark.parametrize("by", ["score", "class"])
def test_no_mix_of_cells_breaks_the_promise(by: str, draws: int) -> None:
    """On many rows drawn alike, in at most a share delta of the draws any accepted cell loses more."""
    broken, accepted = 0, 0
    more = traffic(60_000, 0.02, 10_000)
    cheap = more.variants["cheap"]
    loss = more.correct("large").astype(int) - more.correct("cheap")
    names = np.array([str(label) for label in more.labels], dtype=object)[cheap.prediction]
    for draw in range(draws):
        policy = tune_mix(traffic(6000, 0.02, draw), COSTS, DROP, SETTINGS, by).policy  # type: ignore[arg-type]
        mix = policy.mix
        assert mix is not None
        place = mix.places(names.tolist(), cheap.confidence)
        losses = [loss[place == i].mean() for i, c in enumerate(mix.cells) if c.accepted]
        bounds = [c.bound or 0.0 for c in mix.cells if c.accepted]
        broken += any(seen > bound for seen, bound in zip(losses, bounds, strict=True))
        accepted += len(losses)
        found = replay(compile_policy(policy, more.labels), more)
        taken = [i for i, c in enumerate(mix.cells) if c.accepted]
        assert ((found.stage == 0) == np.isin(place, taken)).all()
    assert broken <= most(draws, 0.1)
    assert accepted > draws


def test_predicted_classes_that_never_occurred_escalate() -> None:
    """A class that no row was certified with falls into no answered cell."""
    seen = traffic(6000, 0.0, 1)
    cheap = seen.variants["cheap"]
    assert not (cheap.prediction == 4).any()
    policy = tune_mix(seen, COSTS, DROP, SETTINGS, "score").policy
    assert policy.stages[0].per_class["other"].threshold > 1.0


def test_today_is_told_without_labels() -> None:
    """Today's bound follows the texts of today, and texts that escalate lose nothing."""
    policy = tune_mix(traffic(6000, 0.02, 1), COSTS, DROP, SETTINGS, "score").policy
    mix = policy.mix
    assert mix is not None
    assert policy.stages[0].threshold is not None
    usual = today(mix, ["a"] * 100, np.full(100, 0.97), policy.stages[0].threshold)
    unsure = today(mix, ["a"] * 100, np.full(100, 0.01), policy.stages[0].threshold)
    assert not isinstance(usual, ShareToday)
    assert not isinstance(unsure, ShareToday)
    assert 0.0 < (usual.bound or 0.0) <= mix.worst <= 0.05
    assert unsure.bound == 0.0
    assert unsure.answered == 0.0


@pytest.mark.parametrize(("share", "covered"), [(0.02, True), (0.6, False)])
def test_todays_share_of_a_kind_is_told_without_labels(share: float, covered: bool) -> None:
    """How many texts the first stage answers tells how many are of the kind that may grow."""
    policy = tune_mix(traffic(8000, 0.05, 3), COSTS, DROP, SETTINGS, None, Growing("other", 0.3)).policy
    assert policy.mix is not None
    assert policy.stages[0].threshold is not None
    score = traffic(8000, share, 4).variants["cheap"].confidence
    found = share_today(policy.mix, len(score), int((score >= policy.stages[0].threshold).sum()), 0.1)
    assert found.low <= share <= found.high
    assert found.covered is covered


def test_nothing_safe_says_how_many_rows_would_do() -> None:
    """With two rows of the part that may grow nothing is certified, and the needed rows are many more."""
    seen = traffic(400, 0.005, 3)
    assert 0 < (seen.label == 4).sum() < 10
    policy = tune_mix(seen, COSTS, DROP, SETTINGS, None, Growing("other", 0.5)).policy
    assert policy.status == "no_safe_threshold"
    assert len(policy.stages) == 1
    assert policy.mix is None
    assert (policy.needed_n or 0) > 400


def test_without_labels_disagreement_is_bounded() -> None:
    """Rows without labels certify cells by what the reference says."""
    seen = traffic(6000, 0.02, 5)
    blind = replace(seen, label=np.full(len(seen), -1))
    policy = tune_mix(blind, COSTS, Targets(max_local_disagreement=0.05), SETTINGS, "score").policy
    assert policy.status == "certified"
    assert policy.certificate is not None
    assert policy.certificate.metric == "local_disagreement"


def test_a_policy_without_cells_keeps_its_version() -> None:
    """The key is left out where there are none, and read back where there are."""
    policy = tune_mix(traffic(6000, 0.02, 1), COSTS, DROP, SETTINGS, "auto").policy
    assert parse_policy(policy.dump()) == policy
    assert "mix" not in policy.model_copy(update={"mix": None}).dump()


def test_what_does_not_go_together_is_refused() -> None:
    """Two targets, a budget, an unknown part or one without rows each name what is wrong."""
    seen = traffic(300, 0.02, 1)
    with pytest.raises(InputError, match="one target"):
        tune_mix(seen, COSTS, Targets(max_accuracy_drop=0.1, max_usd_per_1k=3), SETTINGS, "score")
    with pytest.raises(InputError, match="neither a label nor a slice"):
        tune_mix(seen, COSTS, DROP, SETTINGS, None, Growing("strange", 0.2))
    with pytest.raises(PredictionsError, match="no row"):
        tune_mix(traffic(300, 0.0, 1), COSTS, DROP, SETTINGS, None, Growing("other", 0.2))
    with pytest.raises(InputError, match="uncertified"):
        tune_mix(seen, COSTS, DROP, replace(SETTINGS, certified=False), "score")
