"""Limits: what replicas admit together is what one bucket would, however requests are spread."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.errors import LimitReached
from serve.access.accounts import Accounts
from serve.access.keys import KeyBook, KeyLimits, created, mint
from serve.access.ledger import LEASE_S, WARM_S, Ledger
from serve.access.meter import DAY_S

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
EXCHANGE_S = 0.2


def book_of(limits: KeyLimits) -> KeyBook:
    """A book with one key, `web`."""
    return created(None, mint("web", ("infer",), limits, NOW)[1], NOW)


@dataclass
class World:
    """A ledger and replicas on one fake clock; wall time is days further on."""

    limits: KeyLimits
    count: int = 2
    now: float = 1000.0
    wall: float = NOW.timestamp()

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.now)
        self.replicas = [self.join(f"r{n}") for n in range(self.count)]
        self.run(WARM_S + 0.5, [])

    def join(self, name: str) -> Accounts:
        """A replica that has just started."""
        accounts = Accounts(name, self.count, clock=lambda: self.now, wall=lambda: self.wall)
        accounts.take(book_of(self.limits))
        return accounts

    def pass_(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.wall += seconds

    def exchange(self, replica: Accounts) -> None:
        """One replica talks to the ledger."""
        replica.grant(self.ledger.exchange(replica.report(), {"web": self.limits}, self.now))

    def ask(self, replica: Accounts, texts: int = 1, usd: float = 0.0) -> bool:
        """One request, answered at once."""
        meter = replica.meter("web")
        assert meter is not None
        try:
            visit = replica.admit(meter, texts, usd)
        except LimitReached:
            return False
        meter.charge(usd)
        visit.end(answered=True)
        return True

    def run(self, seconds: float, arrivals: list[tuple[float, int]], *, usd: float = 0.0) -> int:
        """Requests at (second, replica), exchanges in turn between them; return how many were admitted."""
        end = self.now + seconds
        exchanges = [
            (at * EXCHANGE_S + EXCHANGE_S * n / self.count, None, n)
            for at in range(int(seconds / EXCHANGE_S) + 1)
            for n in range(len(self.replicas))
        ]
        events = sorted([*exchanges, *((at, 1, n) for at, n in arrivals)], key=lambda event: event[0])
        start, admitted = self.now, 0
        for at, asks, n in events:
            if at > seconds:
                continue
            self.pass_(max(0.0, start + at - self.now))
            if asks is None:
                self.exchange(self.replicas[n])
            else:
                admitted += self.ask(self.replicas[n], usd=usd)
        self.pass_(max(0.0, end - self.now))
        return admitted


def poisson(rate: float, seconds: float, shares: list[float], seed: int) -> list[tuple[float, int]]:
    """Arrivals of a rate, each at a replica drawn by its share."""
    random_ = random.Random(seed)
    found, at = [], 0.0
    while (at := at + random_.expovariate(rate)) < seconds:
        found.append((at, random_.choices(range(len(shares)), shares)[0]))
    return found


SPLITS = [[0.5, 0.5], [0.9, 0.1], [1.0, 0.0], [0.97, 0.03], [0.6, 0.3, 0.1], [0.25] * 4]


@pytest.mark.parametrize("load", [1.3, 2.0, 10.0])
@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_a_rate_holds_within_two_percent_however_requests_are_spread(split: list[float], load: float) -> None:
    """Thirty seconds above the limit: what one bucket would have admitted, to 2%."""
    rate, seconds = 40.0, 30.0
    world = World(KeyLimits(rate_per_s=rate), len(split))
    admitted = world.run(seconds, poisson(rate * load, seconds, split, seed=7))
    bucket = rate * seconds + rate
    assert 0.98 * bucket <= admitted <= 1.01 * bucket


@given(
    rate=st.floats(5, 200), load=st.floats(0.2, 5), burst=st.one_of(st.none(), st.floats(1, 300)),
    shares=st.lists(st.floats(0.01, 1), min_size=1, max_size=4), seed=st.integers(0, 2**16),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_replicas_together_never_admit_more_than_the_bucket(
    rate: float, load: float, burst: float | None, shares: list[float], seed: int
) -> None:
    """For every rate, burst, load and split: at most the burst, the rate times the time, one a replica."""
    world = World(KeyLimits(rate_per_s=rate, burst=burst), len(shares))
    admitted = world.run(5.0, poisson(rate * load, 5.0, shares, seed))
    on_the_way = 2 * EXCHANGE_S * rate
    assert admitted <= world.limits.tokens + 5.0 * rate + on_the_way + len(shares)


def test_a_load_that_moves_to_another_replica_takes_the_limit_with_it() -> None:
    """Each ten seconds all connections are elsewhere; the sum stays within 2%."""
    rate = 50.0
    world = World(KeyLimits(rate_per_s=rate), 3)
    admitted = 0
    for turn in range(4):
        split = [1.0 if n == turn % 3 else 0.0 for n in range(3)]
        admitted += world.run(10.0, poisson(3 * rate, 10.0, split, seed=turn))
    assert 0.98 * (40 * rate + rate) <= admitted <= 41 * rate + 3


@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_below_the_limit_nobody_is_refused(split: list[float]) -> None:
    """At 60% of the rate, spread in any way, every request is admitted."""
    world = World(KeyLimits(rate_per_s=50.0), len(split))
    arrivals = poisson(30.0, 20.0, split, seed=3)
    assert world.run(20.0, arrivals) == len(arrivals)


@pytest.mark.parametrize("split", SPLITS, ids=str)
@pytest.mark.parametrize("quota", [7, 100, 1000])
def test_a_daily_quota_of_requests_is_used_up_to_two_percent_and_not_beyond(
    split: list[float], quota: int
) -> None:
    """The last ones too find the replica that is asked."""
    world = World(KeyLimits(requests_per_day=quota), len(split))
    admitted = world.run(30.0, poisson(2 * quota / 30.0, 30.0, split, seed=5))
    assert quota - max(1, 0.02 * quota) <= admitted <= quota


@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_a_daily_quota_in_usd_holds_within_two_percent(split: list[float]) -> None:
    """Each answer costs 0.001: a quota of 0.5 USD is 500 answers."""
    world = World(KeyLimits(usd_per_day=0.5), len(split))
    admitted = world.run(20.0, poisson(50.0, 20.0, split, seed=9), usd=0.001)
    assert 490 <= admitted <= 510


def test_a_quota_begins_anew_with_the_day() -> None:
    """At midnight UTC what was used is used no more; until then Retry-After says how long."""
    world = World(KeyLimits(requests_per_day=10))
    world.run(5.0, poisson(10.0, 5.0, [0.5, 0.5], seed=1))
    meter = world.replicas[0].meter("web")
    assert meter is not None
    with pytest.raises(LimitReached, match="10 texts of this day") as told:
        world.replicas[0].admit(meter, 11)
    assert told.value.retry_after_s == pytest.approx(DAY_S - world.wall % DAY_S)
    world.pass_(told.value.retry_after_s + 1)
    world.run(1.0, [])
    assert world.run(5.0, [(0.1 * n, n % 2) for n in range(20)]) == 10


def test_a_ledger_that_starts_anew_goes_on_from_what_was_written() -> None:
    """Restarted in the middle of a day, with its journal: the quota is used up as if nothing had been."""
    world = World(KeyLimits(requests_per_day=400))
    first = world.run(10.0, poisson(20.0, 10.0, [0.8, 0.2], seed=2))
    day = int(world.wall // DAY_S)
    world.ledger = Ledger(world.now, {day: world.ledger.used(day)})
    second = world.run(30.0, poisson(30.0, 30.0, [0.2, 0.8], seed=4))
    assert 392 <= first + second <= 400


def test_everything_restarted_in_the_middle_of_a_day_keeps_the_quota() -> None:
    """New replicas and a new ledger, with the journal alone: what was used stays used, to 2%."""
    world = World(KeyLimits(requests_per_day=400))
    first = world.run(15.0, poisson(20.0, 15.0, [0.5, 0.5], seed=2))
    day = int(world.wall // DAY_S)
    world.ledger = Ledger(world.now, {day: world.ledger.used(day)})
    world.replicas = [world.join(f"new{n}") for n in range(2)]
    second = world.run(30.0, poisson(30.0, 30.0, [0.5, 0.5], seed=4))
    assert 392 <= first + second <= 408


def test_the_part_of_a_replica_that_is_gone_goes_to_the_others() -> None:
    """After the lease the one that is left has the whole rate."""
    world = World(KeyLimits(rate_per_s=50.0))
    world.run(5.0, poisson(200.0, 5.0, [0.5, 0.5], seed=1))
    world.replicas.pop()
    world.run(LEASE_S + 1.0, poisson(200.0, LEASE_S + 1.0, [1.0], seed=1))
    assert world.run(10.0, poisson(200.0, 10.0, [1.0], seed=2)) == pytest.approx(500, rel=0.02)


def test_without_a_ledger_replicas_go_on_with_the_parts_that_they_have() -> None:
    """Control may be away: the limit holds, by the last parts."""
    world = World(KeyLimits(rate_per_s=50.0))
    world.run(5.0, poisson(200.0, 5.0, [0.8, 0.2], seed=1))
    admitted, start = 0, world.now
    for at, n in poisson(200.0, 10.0, [0.8, 0.2], seed=2):
        world.pass_(max(0.0, start + at - world.now))
        replica = world.replicas[n]
        admitted += world.ask(replica)
        replica.report()
        replica.take_back()
    assert admitted == pytest.approx(500, rel=0.03)


def test_a_request_larger_than_the_bucket_is_admitted_and_paid_for_later() -> None:
    """Ten texts at five a second: admitted once the bucket is full, then nothing for two seconds."""
    world = World(KeyLimits(rate_per_s=5.0), 1)
    assert world.ask(world.replicas[0], 10)
    world.pass_(1.0)
    assert not world.ask(world.replicas[0])
    world.pass_(0.3)
    assert world.ask(world.replicas[0])


def test_a_refused_request_costs_nothing_and_a_failed_one_nothing_of_the_day() -> None:
    """Only answers use up a quota."""
    world = World(KeyLimits(requests_per_day=3), 1)
    meter = world.replicas[0].meter("web")
    assert meter is not None
    for _ in range(20):
        world.replicas[0].admit(meter, 1).end(answered=False)
    assert [world.ask(world.replicas[0]) for _ in range(4)] == [True, True, True, False]


def test_a_rotated_key_shares_the_limits_of_its_name() -> None:
    """Two valid keys are one client."""
    world = World(KeyLimits(requests_per_day=3), 1)
    accounts = world.replicas[0]
    before = accounts.meter("web")
    accounts.take(book_of(KeyLimits(requests_per_day=3)))
    assert accounts.meter("web") is before


def test_a_clock_that_goes_back_gives_no_tokens() -> None:
    """Time that runs backwards refills nothing, and what is there stays."""
    world = World(KeyLimits(rate_per_s=1.0), 1)
    assert world.ask(world.replicas[0])
    world.now -= 500.0
    assert not world.ask(world.replicas[0])
    world.now += 500.0
    assert not world.ask(world.replicas[0])
    world.pass_(1.0)
    assert world.ask(world.replicas[0])


@pytest.mark.parametrize(("count", "quota"), [(2, 400), (2, 500), (4, 1000), (4, 300)])
def test_a_batch_finds_a_quota_that_is_spread_over_replicas(count: int, quota: int) -> None:
    """What no replica's part can hold is gathered until the client comes again, and Retry-After says so."""
    world = World(KeyLimits(requests_per_day=quota), count)
    meter = world.replicas[0].meter("web")
    assert meter is not None
    admitted = 0
    for _ in range(quota // 256):
        if not world.ask(world.replicas[0], 256):
            with pytest.raises(LimitReached, match="held") as told:
                world.replicas[0].admit(meter, 256)
            assert told.value.retry_after_s == 1.0
            world.run(1.0, [])
            assert world.ask(world.replicas[0], 256)
        admitted += 256
        world.run(1.0, [])
    with pytest.raises(LimitReached, match="used up, or too little") as told:
        world.replicas[0].admit(meter, 256)
    assert told.value.retry_after_s > 1.0
    world.run(5.0, [])
    rest = sum(world.run(0.2, [(0.0, n)]) for _ in range(3 * quota // count) for n in range(count))
    assert admitted + rest == quota


def test_batches_at_two_replicas_do_not_hold_each_other_up() -> None:
    """Who wanted first is first; the other is told of the day, once too little is left."""
    world = World(KeyLimits(requests_per_day=400))
    assert not any([world.ask(replica, 256) for replica in world.replicas])
    world.run(1.0, [])
    assert sorted(world.ask(replica, 256) for replica in world.replicas) == [False, True]


@pytest.mark.parametrize("days", [1, 5])
def test_a_clock_that_goes_ahead_and_back_neither_locks_a_key_out_nor_gives_it_more(days: int) -> None:
    """The day is that of the clock now, with what was used on it."""
    world = World(KeyLimits(requests_per_day=100))
    first = world.run(5.0, poisson(12.0, 5.0, [0.5, 0.5], seed=1))
    world.run(0.5, [])
    world.wall += days * DAY_S
    world.run(1.0, [(0.5, 0)])
    world.wall -= days * DAY_S
    second = world.run(10.0, poisson(30.0, 10.0, [0.5, 0.5], seed=2))
    assert 50 < first < 80
    assert 98 <= first + second <= 100


def test_a_name_that_is_revoked_and_made_again_keeps_what_it_used() -> None:
    """A new key of the same name is no new quota."""
    world = World(KeyLimits(requests_per_day=100))
    first = world.run(5.0, poisson(12.0, 5.0, [0.5, 0.5], seed=1))
    world.run(0.5, [])
    for replica in world.replicas:
        replica.take(book_of(KeyLimits()))
        replica.take(book_of(world.limits))
    second = world.run(20.0, poisson(30.0, 20.0, [0.5, 0.5], seed=2))
    assert 98 <= first + second <= 102


def test_replicas_that_are_restarted_bring_no_burst_of_their_own() -> None:
    """The bucket was handed out before they came."""
    world = World(KeyLimits(rate_per_s=1.0, burst=1000))
    admitted = sum(world.ask(world.replicas[n % 2]) for n in range(1100))
    for turn in range(3):
        world.replicas = [world.join(f"again{turn}{n}") for n in range(2)]
        admitted += world.run(LEASE_S + 2.0, [(LEASE_S + 1.0, n % 2) for n in range(1000)])
    assert admitted <= 1000 + 3 * (LEASE_S + 2.0) + 4
