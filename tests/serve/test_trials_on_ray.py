"""Canaries and shadows on a gateway on Ray, driven by clients that count; also with families of their own."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from contract.live import parse_revision
from contract.policy import Policy, Stage, single_variant_policy, write_policy
from router.live.verdict import judge
from runtime.fake_family import write_fake_family
from serve.control import admin_client
from serve.local.launcher import Handle
from sluicegate.policy_cmd import command

pytestmark = pytest.mark.ray

SMALL = single_variant_policy("fake-small")
CLIENTS = 4


@pytest.fixture(scope="module")
def live(gateway: Handle) -> Iterator[Handle]:
    """The gateway with the small fake alone in force; the first policy comes back afterwards."""
    before = admin_client.show_policy(gateway.admin_url)["number"]
    admin_client.push_policy(SMALL, gateway.admin_url)
    yield gateway
    admin_client.rollback_policy(before, gateway.admin_url)


@pytest.fixture
def sluice(live: Handle) -> Iterator[Callable[..., Any]]:
    """`sluice policy ... --json` against the gateway; whatever is on trial afterwards is withdrawn."""

    def run(*arguments: str) -> Any:
        done = CliRunner().invoke(
            command, [*arguments, "--admin-url", live.admin_url, "--json"], catch_exceptions=False
        )
        assert done.exit_code == 0, done.output
        return json.loads(done.output)

    yield run
    for trial in admin_client.show_trials(live.admin_url):
        run("withdraw", trial["kind"])


def clients(gateway: Handle) -> list[httpx.Client]:
    """Clients with connections of their own, so that all replicas are asked."""
    return [httpx.Client(base_url=gateway.url, timeout=30, trust_env=False) for _ in range(CLIENTS)]


def saved(tmp_path: Path, policy: Policy) -> str:
    """The policy in a file."""
    write_policy(tmp_path / "candidate.json", policy)
    return str(tmp_path / "candidate.json")


def answer(client: httpx.Client, texts: list[str], **more: Any) -> dict[str, Any]:
    """A reply of the cascade; anything but 200 is a failure."""
    reply = client.post("/v1/classify", json={"inputs": texts}, **more)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def standing(gateway: Handle, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The trial's counts once they are as expected."""
    end = time.monotonic() + 20
    while True:
        [trial] = admin_client.show_trials(gateway.admin_url)
        if until(trial["counts"]) or time.monotonic() > end:
            return dict(trial)


def same_answers(temperature: float) -> Policy:
    """A policy that gives the labels of the one in force."""
    stages = (Stage(variant="fake-small", temperature=temperature),)
    return Policy(status="uncertified", reference="fake-large", stages=stages).sealed()


def test_a_canary_gets_its_share_by_key_on_every_replica_and_counts_are_exact(
    live: Handle, sluice: Callable[..., Any], tmp_path: Path
) -> None:
    """A key meets one arm whichever form carries it; the share is kept; both arms add up to what was sent."""
    canary = single_variant_policy("fake-other")
    sluice("canary", saved(tmp_path, canary), "--share", "0.3")
    arms: dict[str, set[str]] = {}
    everyone = clients(live)
    for n in range(600):
        key = f"user {n % 150}"
        reply = answer(everyone[n % CLIENTS], [f"story {n}"], headers={"x-sluice-sticky-key": key})
        arms.setdefault(key, set()).add(reply["policy_version"])
    for key, seen in list(arms.items())[:20]:
        client = everyone[0]
        body: dict[str, Any] = {"inputs": "a story", "sticky_key": key}
        seen.add(client.post("/v1/classify", json=body).json()["policy_version"])
        tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a story"]}
        body = {"inputs": [tensor], "parameters": {"sticky_key": key}}
        reply = client.post("/v2/models/cascade/infer", json=body).json()
        seen.add(reply["parameters"]["policy_version"])
    assert all(len(versions) == 1 for versions in arms.values())
    got = sum(versions == {canary.version} for versions in arms.values())
    assert abs(got / 150 - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 150)
    trial = standing(live, lambda counts: counts["live"]["requests"] + counts["candidate"]["requests"] == 640)
    counts = trial["counts"]
    assert counts["candidate"]["requests"] == 4 * got + 2 * sum(
        versions == {canary.version} for versions in list(arms.values())[:20]
    )
    assert counts["live"]["requests"] == 640 - counts["candidate"]["requests"]
    page = everyone[0].get("/metrics").text
    assert 'sluice_arm_requests_total{arm="canary",family="fake",outcome="ok"}' in page


def test_a_shadow_of_a_family_that_fails_is_felt_by_nobody(
    live: Handle, sluice: Callable[..., Any], tmp_path: Path
) -> None:
    """Its stage fails on every call: clients get every answer, whole, and not later than without it."""
    everyone = clients(live)

    def drive() -> float:
        times: list[float] = []
        for n in range(150):
            started = time.perf_counter()
            reply = answer(everyone[n % CLIENTS], [f"story {n}"])
            times.append(time.perf_counter() - started)
            assert reply["policy_version"] == SMALL.version
            assert [output["degraded"] for output in reply["outputs"]] == [False]
        return statistics.quantiles(times, n=10)[8]

    family = tmp_path / "failing"
    write_fake_family(family, rows=60, seed=3, error_rate=1.0, delay_ms=0.1)
    before = drive()
    policy = saved(tmp_path, single_variant_policy("fake-large"))
    sluice("shadow", policy, "--share", "1", "--family", str(family))
    during = min(drive(), drive())
    trial = standing(live, lambda counts: counts["candidate"]["failed"] > 0)
    assert trial["counts"]["pairs"]["unresolved"] > 0
    assert trial["counts"]["pairs"]["same"] == 0
    assert (trial["counts"]["live"]["requests"], trial["counts"]["live"]["failed"]) == (300, 0)
    assert during < 2 * before + 0.01


def test_a_canary_that_answers_alike_is_promoted_by_itself_and_no_request_is_lost(
    live: Handle, sluice: Callable[..., Any], tmp_path: Path
) -> None:
    """From some moment on every reply is the candidate's; the revision lets anybody judge again."""
    candidate = same_answers(2.0)
    sluice("canary", saved(tmp_path, candidate), "--share", "0.5", "--no-worse-than", "0.1", "--auto")
    seen: list[str] = []
    end = time.monotonic() + 40
    with httpx.Client(base_url=live.url, timeout=30, trust_env=False) as client:
        while seen[-20:] != [candidate.version] * 20 and time.monotonic() < end:
            texts = [f"sport: story {len(seen)} {n}" for n in range(8)]
            seen.append(answer(client, texts)["policy_version"])
    assert seen[-20:] == [candidate.version] * 20
    assert set(seen) == {SMALL.version, candidate.version}
    revision = parse_revision(admin_client.show_policy(live.admin_url))
    [ruling] = revision.rulings
    assert (revision.policy, ruling.by, ruling.decision) == (candidate, "verdict", "promote")
    assert judge(ruling.candidate.rule, ruling.counts.pairs, ruling.counts.candidate) == ruling.verdict
    assert ruling.counts.pairs.differ == 0
    admin_client.push_policy(SMALL, live.admin_url)


def test_a_canary_whose_requests_fail_is_withdrawn_by_itself(
    live: Handle, sluice: Callable[..., Any], tmp_path: Path
) -> None:
    """The guardrail ends it; afterwards nobody gets an error any more."""
    family = tmp_path / "failing"
    write_fake_family(family, rows=60, seed=4, error_rate=1.0, delay_ms=0.1)
    policy = saved(tmp_path, single_variant_policy("fake-large"))
    guard = ("--share", "0.5", "--max-error-rate", "0.05", "--auto-withdraw", "--family", str(family))
    sluice("canary", policy, *guard)
    statuses: list[int] = []
    end = time.monotonic() + 40
    with httpx.Client(base_url=live.url, timeout=30, trust_env=False) as client:
        while statuses[-30:] != [200] * 30 and time.monotonic() < end:
            statuses.append(client.post("/v1/classify", json={"inputs": "a story"}).status_code)
    assert statuses[-30:] == [200] * 30
    assert 500 in statuses
    told = sluice("show")
    assert told["trials"] == []
    assert told["rulings"][0]["verdict"]["reason"] == "errors"
    assert "withdrawn by its verdict: too many of its requests fail" in told["reason"]
