"""The gateway on Ray, driven over HTTP: every slot answers, policies change under way, metrics are exact."""

from __future__ import annotations

import concurrent.futures
import contextlib
import re
import threading
import time
from typing import Any

import httpx
import psutil
import pytest

from contract import metrics
from contract.errors import PolicyError, SluiceError
from contract.policy import Policy, parse_policy
from serve.control import admin_client
from serve.local.launcher import Handle
from serve.local.run_folder import processes_of

pytestmark = pytest.mark.ray


@pytest.fixture
def client(gateway: Handle) -> httpx.Client:
    """A client of the running gateway."""
    return httpx.Client(base_url=gateway.url, timeout=30, trust_env=False)


@pytest.fixture
def first_policy(gateway: Handle) -> Policy:
    """The policy that the gateway started with."""
    return parse_policy(admin_client.show_policy(gateway.admin_url)["policy"])


def classify(client: httpx.Client, texts: list[str], model: str = "cascade") -> dict[str, Any]:
    """Answer of /v1/classify."""
    reply = client.post("/v1/classify", json={"inputs": texts, "model": model})
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def total(page: str, name: str, **labels: str) -> float:
    """Sum of the samples of a scrape that carry these labels."""
    found = 0.0
    for line in page.splitlines():
        match = re.fullmatch(rf"{name}(?:{{(.*)}})? (\S+)", line)
        if match and all(f'{key}="{value}"' in (match[1] or "") for key, value in labels.items()):
            found += float(match[2])
    return found


def with_threshold(policy: Policy, threshold: float) -> Policy:
    """The same two stages with another threshold, uncertified."""
    first = policy.stages[0].model_copy(update={"threshold": threshold})
    changed = policy.model_copy(
        update={"stages": (first, *policy.stages[1:]), "certificate": None, "status": "uncertified"}
    )
    return changed.sealed()


@pytest.mark.parametrize("model", ["fake-small", "fake-other", "fake-large"])
def test_every_variant_answers_by_name(client: httpx.Client, model: str) -> None:
    """Inline, in its own deployment, or on the shelf: a variant's name reaches it."""
    outputs = classify(client, ["sport: a", "tech: b"], model)["outputs"]
    assert [output["variant"] for output in outputs] == [model, model]


def test_unsure_texts_escalate(client: httpx.Client) -> None:
    """The cascade answers some texts itself and hands others to the large variant."""
    outputs = classify(client, [f"sport: story {n}" for n in range(60)])["outputs"]
    by_variant = {output["variant"] for output in outputs}
    assert by_variant == {"fake-small", "fake-large"}
    assert all(output["escalated"] == (output["variant"] == "fake-large") for output in outputs)


def test_metrics_are_exact_over_all_replicas(client: httpx.Client, gateway: Handle) -> None:
    """Counts of requests sent on many connections add up, whichever replica is asked for them."""
    before = total(client.get("/metrics").text, "sluice_requests_total", model="fake-small", outcome="ok")

    def send(number: int) -> int:
        with httpx.Client(base_url=gateway.url, trust_env=False) as own:
            return len(classify(own, [f"story {number}", "another"], "fake-small")["outputs"])

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        sent = sum(pool.map(send, range(40)))
    after = total(client.get("/metrics").text, "sluice_requests_total", model="fake-small", outcome="ok")
    assert after - before == sent == 80


def test_every_metric_of_the_contract_is_scraped(client: httpx.Client) -> None:
    """A scrape after some traffic holds what dashboards and rules ask for."""
    classify(client, [f"tech: story {n}" for n in range(30)])
    page = client.get("/metrics").text
    seen = set(re.findall(r"^# TYPE (\S+)", page, re.MULTILINE))
    always = {metrics.REQUESTS, metrics.REQUEST_DURATION, metrics.ESCALATIONS, metrics.BATCH_ITEMS,
              metrics.CONFIDENCE, metrics.CPU_SECONDS, metrics.POLICY_INFO, metrics.QUEUE_ITEMS,
              metrics.REVISION}  # fmt: skip
    assert {metric.name for metric in always} <= seen
    assert total(page, "sluice_cpu_seconds_total", variant="gateway") > 0


def test_energy_is_counted_with_how_it_is_known(client: httpx.Client) -> None:
    """Some seconds after the start the energy counter is there, grows, and names its provenance."""
    until = time.monotonic() + 30
    joules = 0.0
    while time.monotonic() < until and not joules:
        page = client.get("/metrics").text
        joules = sum(
            total(page, "sluice_energy_joules_total", provenance=known)
            for known in ("measured-rapl", "estimated-load")
        )
    assert joules > 0


def test_a_pushed_policy_is_in_force_on_every_replica_at_once(
    client: httpx.Client, gateway: Handle, first_policy: Policy
) -> None:
    """After a push every answer carries the new version, and a rollback brings the old one back."""
    never = with_threshold(first_policy, 0.0)
    pushed = admin_client.push_policy(never, gateway.admin_url)
    replicas = admin_client.gateway_state(gateway.admin_url)["replicas"]
    assert {replica["revision"] for replica in replicas} == {pushed["revision"]["number"]}
    for _ in range(8):
        with httpx.Client(base_url=gateway.url, trust_env=False) as own:
            answer = classify(own, [f"sport: story {n}" for n in range(30)])
            assert answer["policy_version"] == never.version
            assert not any(output["escalated"] for output in answer["outputs"])
    page = client.get("/metrics").text
    assert total(page, "sluice_policy_info", version=never.version) == 1
    assert total(page, "sluice_policy_info", version=first_policy.version) == 0
    back = admin_client.rollback_policy(pushed["revision"]["number"] - 1, gateway.admin_url)
    assert back["revision"]["policy"]["version"] == first_policy.version
    assert classify(client, ["x"])["policy_version"] == first_policy.version


def test_a_policy_that_does_not_fit_changes_nothing(gateway: Handle, first_policy: Policy) -> None:
    """A push that names a variant which is not there is refused, and the revision stays."""
    history = admin_client.policy_history(gateway.admin_url)
    stranger = first_policy.stages[0].model_copy(update={"variant": "stranger"})
    wrong = first_policy.model_copy(update={"stages": (stranger, *first_policy.stages[1:])}).sealed()
    with pytest.raises(PolicyError, match="stranger"):
        admin_client.push_policy(wrong, gateway.admin_url)
    assert admin_client.policy_history(gateway.admin_url) == history


def test_the_admin_interface_refuses_browsers(gateway: Handle) -> None:
    """A request that carries Origin cannot change the policy, whatever it holds."""
    reply = httpx.put(
        f"{gateway.admin_url}/policy", json={}, headers={"Origin": "http://evil.example"}, trust_env=False
    )
    assert reply.status_code == 403
    assert "error" in reply.json()


def test_nothing_of_ours_is_reachable_from_outside(gateway: Handle) -> None:
    """The front door and the admin interface listen on loopback only."""
    for url in (gateway.url, gateway.admin_url):
        port = int(url.rpartition(":")[2])
        bound = {
            connection.laddr.ip
            for connection in psutil.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
        }
        assert bound == {"127.0.0.1"}


def test_pushes_under_load_lose_nothing(gateway: Handle, first_policy: Policy) -> None:
    """While policies change, every request is answered, by one policy from start to end."""
    never = with_threshold(first_policy, 0.0)
    always = with_threshold(first_policy, 1.1)
    stop = threading.Event()

    def send(number: int) -> list[tuple[str, set[bool]]]:
        seen = []
        with httpx.Client(base_url=gateway.url, timeout=30, trust_env=False) as own:
            while not stop.is_set():
                answer = classify(own, [f"sport: {number} {n}" for n in range(6)])
                seen.append((answer["policy_version"], {out["escalated"] for out in answer["outputs"]}))
        return seen

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(send, number) for number in range(4)]
        for policy in (never, always, never, always):
            admin_client.push_policy(policy, gateway.admin_url)
        stop.set()
        seen = [answer for client in clients for answer in client.result()]
    admin_client.push_policy(first_policy, gateway.admin_url)
    expected = {never.version: {False}, always.version: {True}}
    assert all(escalated == expected[version] for version, escalated in seen if version in expected)
    assert {version for version, _ in seen} & set(expected)


def test_a_killed_stage_degrades_answers_until_it_is_back(client: httpx.Client, gateway: Handle) -> None:
    """Without its last stage the cascade answers in time, degraded; a new replica takes over by itself."""
    unsure = next(
        f"story {n}"
        for n in range(100)
        if classify(client, [f"story {n}"])["outputs"][0]["variant"] == "fake-large"
    )
    kill_one(gateway, "stage-fake-large")
    ask = {"inputs": unsure, "deadline_ms": 500}
    until = time.monotonic() + 60
    answers = []
    while time.monotonic() < until:
        reply = client.post("/v1/classify", json=ask)
        assert reply.status_code == 200, reply.text
        answers.append(reply.json()["outputs"][0])
        if len(answers) > 1 and not answers[-1]["degraded"]:
            break
    assert answers[-1]["variant"] == "fake-large"
    assert all(answer["degraded"] == (answer["variant"] == "fake-small") for answer in answers)


def test_a_killed_gateway_replica_costs_at_most_what_it_held(client: httpx.Client, gateway: Handle) -> None:
    """The other replica answers on; a new one follows the live state before it takes requests."""
    kill_one(gateway, ":gateway")
    lost = 0
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            assert client.post("/v1/classify", json={"inputs": "x"}).status_code == 200
        except httpx.TransportError:
            lost += 1
        with contextlib.suppress(SluiceError):
            replicas = admin_client.gateway_state(gateway.admin_url)["replicas"]
            if len({replica["pid"] for replica in replicas}) == 2 and not any_dead(replicas):
                break
    assert lost <= 1
    assert len({replica["revision"] for replica in replicas}) == 1


def kill_one(gateway: Handle, word: str) -> None:
    """Kill one replica process of a deployment."""
    found = next(process for process in processes_of(gateway.folder) if word in process.command)
    process = psutil.Process(found.pid)
    process.kill()
    process.wait(10)


def any_dead(replicas: list[dict[str, Any]]) -> bool:
    """Whether a replica's process is gone."""
    return not all(psutil.pid_exists(replica["pid"]) for replica in replicas)
