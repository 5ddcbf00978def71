"""Limits on the wire and on disk: refusals in each form, and quotas that outlive every process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from contract.errors import LimitReached, NotReady
from serve.access.accounts import Accounts
from serve.access.charging import Charging
from serve.access.exchange import Bank, Exchange, Journal
from serve.access.gate import Gate
from serve.access.key_store import KeyStore, open_keys
from serve.access.keys import KeyLimits
from serve.access.ledger import Answer, Report
from serve.access.meter import Meter
from serve.dataplane.plane import DataPlane
from serve.http.app import Gateway
from serve.settings.limits import RequestLimits
from serve.storage.objects import open_objects
from serve.types.prices import Prices
from serve.types.recorder import RequestRecord
from tests.serve.parts import FakeFolder, Kept, serving, snapshot_of, two_stage_policy

TENSOR = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["sport: a"]}


@dataclass(frozen=True)
class Limited:
    """A gateway that is alone, with keys."""

    url: str
    store: KeyStore
    gate: Gate
    recorder: Kept

    def key(self, name: str, limits: KeyLimits) -> dict[str, str]:
        """The header of a new key with limits."""
        key, book = self.store.create(name, ("infer",), limits)
        self.gate.take(book)
        return {"authorization": f"Bearer {key}"}


@pytest.fixture
def limited(fake_folder: FakeFolder, tmp_path: Path) -> Iterator[Limited]:
    """The gateway on fakes."""
    accounts, recorder, limits = Accounts("r0", 1), Kept(), RequestLimits()
    gate, snapshot = Gate(accounts), snapshot_of(fake_folder, two_stage_policy(), recorder)
    dataplane = DataPlane(lambda: snapshot, limits, Charging(accounts, recorder))
    with serving(Gateway(dataplane, limits, recorder, lambda: b"", gate=gate)) as url:
        yield Limited(url, open_keys(str(tmp_path)), gate, recorder)


def meter_of(gate: Gate, name: str) -> Meter:
    """The meter of a key."""
    assert gate.accounts is not None
    meter = gate.accounts.meter(name)
    assert meter is not None
    return meter


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/classify", {"inputs": "sport: a"}), ("/v2/models/cascade/infer", {"inputs": [TENSOR]})],
)
def test_beyond_the_rate_is_429_with_retry_after_in_every_form(
    limited: Limited, path: str, body: dict[str, object]
) -> None:
    """Two at once and then one in ten seconds: the third is told when to come back; other keys are served."""
    web = limited.key("web", KeyLimits(rate_per_s=0.1, burst=2))
    other = limited.key("other", KeyLimits(rate_per_s=100))
    replies = [httpx.post(limited.url + path, json=body, headers=web) for _ in range(3)]
    assert [reply.status_code for reply in replies] == [200, 200, 429]
    assert 8 <= int(replies[2].headers["retry-after"]) <= 10
    assert "0.1 texts a second" in replies[2].json()["error"]
    assert httpx.post(limited.url + path, json=body, headers=other).status_code == 200
    assert limited.recorder.limits == [("web", "rate", 1)]


def test_texts_count_and_not_requests(limited: Limited) -> None:
    """A request of four texts takes four; refused ones, and those that break a rule, take nothing."""
    web = limited.key("web", KeyLimits(rate_per_s=0.1, burst=6))
    many = {"inputs": ["sport: a"] * 4}
    for body, status in [(many, 200), (many, 429), ({"inputs": []}, 400), ({"inputs": ["a", "b"]}, 200)]:
        reply = httpx.post(f"{limited.url}/v1/classify", json=body, headers=web)
        assert reply.status_code == status, reply.text


def test_what_gets_no_answer_costs_nothing_of_the_day(limited: Limited) -> None:
    """An unknown model is refused after the key's part was taken, and gives it back."""
    web = limited.key("web", KeyLimits(requests_per_day=1000))
    for _ in range(5):
        body = {"inputs": "a", "model": "nobody"}
        assert httpx.post(f"{limited.url}/v1/classify", json=body, headers=web).status_code == 404
    assert meter_of(limited.gate, "web").requests == 0


def test_answers_are_charged_by_the_stages_that_ran() -> None:
    """Three texts by the first stage and one of them by the second: 3 x 0.001 + 0.01 USD."""
    accounts, kept = Accounts("r0", 1), Kept()
    gate = Gate(accounts)
    gate.take(_book(KeyLimits(usd_per_day=100)))
    record = RequestRecord(
        "cascade", ["a", "a", "b"], [1.0] * 3, 0.01, 0.01, [("a", "b", 1)], caller="web", first="a",
        prices=Prices({"a": 0.001, "b": 0.01}, "b"),
    )  # fmt: skip
    Charging(accounts, kept).answered(record)
    assert meter_of(gate, "web").usd == pytest.approx(0.013)
    assert kept.answers == [record]


def _book(limits: KeyLimits):  # type: ignore[no-untyped-def]
    from datetime import UTC, datetime

    from serve.access.keys import created, mint

    now = datetime.now(UTC)
    return created(None, mint("web", ("infer",), limits, now)[1], now)


def test_requests_that_are_under_way_hold_back_what_they_may_cost() -> None:
    """With 0.1 USD left, models of 0.01 and 0.05 a text: what is under way never may cost more than that."""
    gate = Gate(Accounts("r0", 1))
    gate.take(_book(KeyLimits(usd_per_day=10)))
    meter = meter_of(gate, "web")
    meter.usd_cap = 0.1001
    assert gate.accounts is not None
    visits = [gate.accounts.admit(meter, 1, usd) for usd in (0.01, 0.05, 0.01, 0.01, 0.01)]
    with pytest.raises(LimitReached, match="USD"):
        gate.accounts.admit(meter, 1, 0.05)
    gate.accounts.admit(meter, 1, 0.01).end(answered=True)
    meter.charge(0.01)
    visits.pop(1)
    gate.accounts.admit(meter, 1, 0.05)


def test_before_anything_was_charged_no_more_is_admitted_than_the_quota_holds(
    fake_folder: FakeFolder,
) -> None:
    """The dearest path of the model that is asked for is known before the first answer."""
    snapshot = snapshot_of(fake_folder, two_stage_policy(), Kept())
    dataplane = DataPlane(lambda: snapshot, RequestLimits(), Kept())
    small, large, cascade = (dataplane.dearest_usd(m) for m in ("fake-small", "fake-large", "cascade"))
    assert 0 < small < large < cascade == pytest.approx(small + large)
    gate = Gate(Accounts("r0", 1))
    gate.take(_book(KeyLimits(usd_per_day=1)))
    meter, accounts = meter_of(gate, "web"), gate.accounts
    assert accounts is not None
    meter.usd_cap = 256 * cascade * 3.5
    visits = [accounts.admit(meter, 256, 256 * cascade) for _ in range(3)]
    for _ in range(5000):
        with pytest.raises(LimitReached, match="USD"):
            accounts.admit(meter, 256, 256 * cascade)
    assert len(visits) == 3


@pytest.mark.anyio
async def test_quotas_outlive_control_and_every_replica(tmp_path: Path) -> None:
    """What was told is written; a bank opened on the same state goes on from there."""
    gate = Gate(Accounts("r0", 1))
    gate.take(_book(KeyLimits(requests_per_day=100)))
    objects = open_objects(str(tmp_path))
    bank = Bank(gate, Journal(objects))
    assert gate.accounts is not None
    exchange = Exchange(gate.accounts, bank.exchange)
    meter = meter_of(gate, "web")
    meter.requests = 60
    await exchange.once()
    await bank.write()
    [kept] = tmp_path.rglob("*.json")
    assert kept.parent.parent.name == "usage"
    modes = [path.stat().st_mode & 0o777 for path in (kept, kept.parent)]
    assert modes == [0o600, 0o700]  # who asks how much is not for other users of the machine
    again = Bank(gate, Journal(objects))
    other = Accounts("r1", 1)
    other.take(_book(KeyLimits(requests_per_day=100)))
    await Exchange(other, again.exchange).once()
    assert again.totals() == {"web": (60, 0.0)}


@pytest.mark.anyio
async def test_a_broken_journal_is_told_and_begins_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A quota that nobody can read must not stop the service."""
    journal = Journal(open_objects(str(tmp_path)))
    journal.write(20_000, {"web": {"r0": (3, 0.5)}})
    assert journal.read(20_000) == {"web": {"r0": (3, 0.5)}}
    [file] = tmp_path.rglob("*.json")
    for broken in ("{", "[]", '{"keys": {"web": {"r0": "x"}}}'):
        file.write_text(broken)
        assert journal.read(20_000) == {}
    assert "begins anew" in caplog.text


@pytest.mark.anyio
async def test_a_replica_that_is_cut_off_says_so_once_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """Limits are kept by the last parts, and what could not be told is told later."""
    accounts = Accounts("r0", 1)
    accounts.take(_book(KeyLimits(rate_per_s=10)))

    async def nobody(_: Report) -> Answer:
        raise NotReady("control is away")

    exchange = Exchange(accounts, nobody)
    meter = accounts.meter("web")
    assert meter is not None
    for _ in range(3):
        accounts.admit(meter, 1).end(answered=True)
        await exchange.once()
    assert caplog.text.count("limits go on") == 1
    assert accounts.report().keys["web"].asked == 3
    await asyncio.sleep(0)


@pytest.mark.anyio
async def test_two_controls_of_one_state_lose_nothing_of_each_other(tmp_path: Path) -> None:
    """As while one gateway takes the place of another: a third reads what both have written, once."""
    gate, objects = Gate(Accounts("r0", 1)), open_objects(str(tmp_path))
    gate.take(_book(KeyLimits(requests_per_day=1000)))
    banks = [Bank(gate, Journal(objects)) for _ in range(2)]
    replicas = [Accounts(f"r{number}", 1) for number in range(2)]
    for replica in replicas:
        replica.take(_book(KeyLimits(requests_per_day=1000)))
    for turn in (1, 2):
        for number, (bank, replica) in enumerate(zip(banks, replicas, strict=True)):
            meter = replica.meter("web")
            assert meter is not None
            meter.requests = turn * (10 + number)
            await Exchange(replica, bank.exchange).once()
            await bank.write()
    third, newcomer = Bank(gate, Journal(objects)), Accounts("r2", 1)
    newcomer.take(_book(KeyLimits(requests_per_day=1000)))
    await Exchange(newcomer, third.exchange).once()
    assert third.totals() == {"web": (42, 0.0)}
