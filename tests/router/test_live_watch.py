"""The live bound and its alarm: valid whenever one looks, tightened by labels, and anybody's to redo."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.evidence import AuditRow, Block, LiveEvidence, LiveRule, parse_evidence
from router.live.ladder import Ladder, make_ladder, part_of_delta, steer
from router.live.watch import STAKES, Seen, alarm, bounds, judge, seen_in, upper_sum
from tests.support.simulations import most

RULE = LiveRule(promised_drop=0.02, delta=0.1, floor=0.1)
BLIND = LiveRule(max_disagreement=0.04, delta=0.1, floor=0.1)


def row(*, said: str | None = "b", truth: str | None = None, score: float = 0.9, q: float = 0.1) -> AuditRow:
    """A draw that was answered `a`."""
    return AuditRow(
        request_id="r",
        at=0.0,
        probability=q,
        variant="small",
        score=score,
        answer="a",
        said=said,
        truth=truth,
    )


def block(texts: int, *rows: AuditRow, draws: int = 100) -> Block:
    """A block of that many texts, of which all drawn ones but `rows` agreed."""
    return Block(texts=texts, draws=draws, asked=draws, agreed=draws - len(rows), rows=rows)


def life(rng: np.random.Generator, shares: tuple[float, float, float], texts: int, q: float = 0.1) -> Seen:
    """Audits of texts of which these shares are worse, better and even; labels are known."""
    drawn = np.flatnonzero(rng.random(texts) < q)
    u = rng.random(len(drawn))
    edges = np.cumsum(shares)
    loss = np.select([u < edges[0], u < edges[1]], [1.0, -1.0], 0.0)
    kept = u < edges[2]
    blocks = np.arange(0, texts + 1, 1000)
    return Seen(
        texts=np.diff(blocks),
        block=np.searchsorted(blocks, drawn[kept], side="right") - 1,
        probability=np.full(int(kept.sum()), q),
        score=np.full(int(kept.sum()), 0.9),
        least=loss[kept],
        most=loss[kept],
        differs=np.ones(int(kept.sum())),
        counts=np.ones(int(kept.sum())),
    )


def test_the_bound_is_worked_out_by_hand() -> None:
    """One worse text in a thousand: the wealth of the stakes reaches 1 / delta there."""
    seen = seen_in([block(1000, row(truth="b"))])
    at = upper_sum(seen, seen.most, 0.1, 0.05)
    wealth = np.mean([math.exp(0.1 * stake * at) * (1 - stake) for stake in STAKES.tolist()])
    assert wealth == pytest.approx(20, rel=1e-6)


def test_without_any_text_nothing_is_known() -> None:
    """The interval is all there is, and no alarm is raised."""
    standing = judge([], RULE)
    assert (standing.drop_low, standing.drop_high, standing.alarm) == (-1.0, 1.0, "")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([None, "a", "b", "c"]), min_size=1, max_size=40), st.randoms())
def test_labels_only_tighten_the_bound_in_whatever_order_they_come(truths: list[str | None], shuffle) -> None:  # type: ignore[no-untyped-def]
    """Every label raises the lower end or lowers the upper one, and never the other way round."""
    rows = [row() for _ in truths]
    before = judge([block(4000, *rows)], RULE)
    places = list(range(len(rows)))
    shuffle.shuffle(places)
    for place in places:
        rows[place] = row(truth=truths[place])
        after = judge([block(4000, *rows)], RULE)
        assert after.drop_low >= before.drop_low - 1e-12
        assert after.drop_high <= before.drop_high + 1e-12
        before = after
    backwards = judge([block(4000, *reversed(rows))], RULE)
    assert backwards.drop_high == pytest.approx(before.drop_high)


def test_disagreement_bounds_the_drop_without_any_label() -> None:
    """Forty texts that differ of a thousand draws: the drop is at most what the differences allow."""
    standing = judge([block(10_000, *(row() for _ in range(40)), draws=1000)], RULE)
    assert standing.disagreement == pytest.approx(0.04)
    assert -0.08 < standing.drop_low < 0
    assert 0.04 < standing.drop_high < 0.08


def test_the_interval_misses_seldom_while_the_drop_drifts(draws: int) -> None:
    """Looked at after every thousand texts, at most one life in ten is ever missed."""
    missed = 0
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        parts = [life(rng, (0.01 + 0.002 * part, 0.01, 0.01), 1000) for part in range(30)]
        true = np.cumsum([0.002 * part for part in range(30)]) / np.arange(1, 31)
        for number in range(1, 31):
            seen = joined(parts[:number])
            low, high = bounds(seen, 0.1, 0.1)
            missed_now = not low <= true[number - 1] <= high
            if missed_now:
                missed += 1
                break
    assert missed <= most(draws, 0.1)


def joined(parts: list[Seen]) -> Seen:
    """The same audits one after the other."""
    shifted = [replace(part, block=part.block + index) for index, part in enumerate(parts)]
    names = ("texts", "block", "probability", "score", "least", "most", "differs", "counts")
    return Seen(*(np.concatenate([getattr(part, name) for part in shifted]) for name in names))


@pytest.mark.parametrize(
    ("rule", "shares"), [(RULE, (0.03, 0.01, 0.01)), (BLIND, (0.02, 0.01, 0.01))], ids=["labels", "none"]
)
def test_an_alarm_is_seldom_false_in_a_whole_life(
    rule: LiveRule, shares: tuple[float, float, float], draws: int
) -> None:
    """Texts that lose exactly what is promised, 40,000 of them: at most one life in ten is alarmed."""
    lives = [life(np.random.default_rng(seed), shares, 40_000) for seed in range(draws)]
    assert sum(alarm(one, rule, rule.delta)[0].fired is not None for one in lives) <= most(draws, 0.1)


def test_two_points_beyond_the_promise_are_found_within_three_thousand_audits(draws: int) -> None:
    """After a quiet quarter of its life four in five are alarmed in time, and say where it began."""
    found = []
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        parts = [life(rng, (0.02, 0.01, 0.0), 10_000), life(rng, (0.05, 0.01, 0.0), 30_000)]
        later = replace(parts[1], block=parts[1].block + 10)
        names = ("texts", "block", "probability", "score", "least", "most", "differs", "counts")
        seen = Seen(*(np.concatenate([getattr(parts[0], n), getattr(later, n)]) for n in names))
        found.append(alarm(seen, RULE, RULE.delta)[0])
    fired = [one for one in found if one.fired is not None]
    assert len(fired) >= 0.8 * draws
    assert np.median([one.since for one in fired]) == pytest.approx(10, abs=5)


def test_labels_that_are_still_to_come_raise_no_alarm_and_hold_none_up_for_ever() -> None:
    """Differences alone say nothing of who is right; once labels say so, the alarm is raised."""
    waiting = [block(1000, *(row() for _ in range(20))) for _ in range(12)]
    assert judge(waiting, RULE).alarm == ""
    told = [block(1000, *(row(truth="b") for _ in range(20))) for _ in range(12)]
    assert judge(told, RULE).alarm == "drop"
    assert judge(waiting, BLIND).alarm == "disagreement"


def test_an_audit_without_an_answer_counts_as_the_worst_that_it_could_be() -> None:
    """It widens both ends, and alarms nobody."""
    agreed, lost = judge([block(5000)], RULE), judge([block(5000, row(said=None))], RULE)
    assert lost.drop_high > agreed.drop_high
    assert lost.drop_low < agreed.drop_low
    assert judge([block(1000, *(row(said=None) for _ in range(50)))] * 10, BLIND).alarm == ""


def test_evidence_reads_back_and_has_the_same_hash_and_standing() -> None:
    """Whoever has the file works out the standing again from its blocks."""
    blocks = (block(1000, row(truth="b"), row(), row(said=None)), block(500))
    given = LiveEvidence(
        family="f",
        policy_version="v",
        reference="large",
        since="2026-01-01T00:00:00+00:00",
        rule=RULE,
        blocks=blocks,
        standing=judge(blocks, RULE),
    )
    again = parse_evidence(given.dump())
    assert again.sha256() == given.sha256()
    assert judge(again.blocks, again.rule) == given.standing


def test_no_rung_is_loosened_on_differences_that_nobody_has_labelled() -> None:
    """With as many differences as the promise allows, cheaper rungs are not proven; without any, they are."""
    ladder, home = make_ladder(0.8)
    rates = [1.0] * len(ladder.thresholds)
    quiet = steer(ladder, home, seen_in([block(20_000)] * 3), RULE, 1, rates)
    assert (quiet.why, quiet.rung) == ("proven", len(ladder.thresholds) - 1)
    some = seen_in([block(2000, *(row() for _ in range(4)))] * 3)
    assert steer(ladder, home, some, RULE, 1, rates).why == "stay"


def test_an_alarm_flees_to_the_cheapest_rung_that_looks_good_enough() -> None:
    """What goes wrong lies just above the threshold, so a rung that escalates that much is enough."""
    ladder, home = make_ladder(0.8)
    rates = [1.0, *(0.5 for _ in ladder.thresholds[1:])]
    bad = seen_in([block(1000, *(row(truth="b", score=0.85) for _ in range(20)))] * 12)
    step = steer(ladder, home, bad, RULE, 1, rates)
    assert step.why == "alarm"
    assert 0 < step.rung < home
    assert ladder.thresholds[step.rung] > 0.85 >= ladder.thresholds[step.rung + 1]


def test_the_budget_of_escalations_clamps_a_flight_and_says_so() -> None:
    """No safer rung is within the budget: the rung stays, and operators must rank the two."""
    ladder, home = make_ladder(0.8, max_escalation=0.4)
    rates = [1.0, *(0.5 for _ in ladder.thresholds[1:])]
    bad = seen_in([block(1000, *(row(truth="b") for _ in range(20)))] * 12)
    step = steer(ladder, home, bad, RULE, 1, rates)
    assert (step.rung, step.why, step.conflict) == (home, "alarm", True)


def test_a_ladder_falls_from_the_reference_alone_through_the_certified_threshold() -> None:
    """Rungs are strictly ordered, above 0, and the certified one is where steering begins."""
    ladder, home = make_ladder(0.6)
    assert ladder.thresholds[0] == math.inf
    assert ladder.thresholds[home] == 0.6
    assert all(a > b > 0 for a, b in zip(ladder.thresholds, ladder.thresholds[1:], strict=False))
    assert sum(part_of_delta(epoch) for epoch in range(1, 10_000)) * 2 == pytest.approx(1, abs=1e-3)
    assert isinstance(ladder, Ladder)
