"""The gateway on three nodes: what is pushed is soon everywhere, and nodes that die or come are no event."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from contract.policy import single_variant_policy
from runtime.fake_family import write_fake_family
from tests.cluster.cluster import PORT, Labels, totals, wait_until
from tests.cluster.conftest import Site
from tests.cluster.record import Record
from tests.cluster.traffic import Traffic

pytestmark = [pytest.mark.cluster, pytest.mark.ray]

REQUESTS = "sluice_requests_total"
PUSHED_WITHIN_S = 2.0
WHOLE_WITHIN_S = 15.0


def answered(counts: Counter[Labels]) -> int:
    """Texts that were answered, over all nodes and variants."""
    return sum(value for labels, value in counts.items() if ("outcome", "ok") in labels)


def cached(site: Site, number: int) -> list[str]:
    """Hashes of the families that a node has fetched."""
    folder = site.cluster.nodes[number].folder / "families"
    return sorted(path.parent.name for path in folder.glob("[!.]*/family.json"))


def test_every_node_has_a_front_door_and_a_replica(site: Site) -> None:
    """The replicas are spread, and each node answers on its own address."""
    assert [len(site.cluster.replicas_of(node)) for node in site.cluster.nodes] == [1, 1, 1]
    assert all(site.cluster.answers(site.client, node) for node in site.cluster.nodes)


def test_nodes_without_the_family_have_fetched_it_by_its_hash(site: Site) -> None:
    """It was built on the head's own disk, which the others do not see."""
    sha256 = site.cluster.admin("GET", "/state")["family"]["sha256"]
    assert [cached(site, number) for number in (1, 2)] == [[sha256], [sha256]]


def test_a_policy_is_in_force_everywhere_within_two_seconds(site: Site, record: Record) -> None:
    """From the push on: every replica says so, and no front door answers under the old one any more."""
    policy = single_variant_policy("fake-large").sealed()
    before = site.cluster.admin("GET", "/policy")["number"]
    began = time.monotonic()
    pushed = site.cluster.admin("PUT", "/policy", json=policy.dump())
    took = time.monotonic() - began
    assert [each["revision"] for each in pushed["replicas"]] == [before + 1] * 3
    assert all(
        site.cluster.answers(site.client, node, policy.version)
        for node in site.cluster.nodes
        for _ in range(10)
    )
    record.add(site.state, "policy pushed, in force in every replica", f"{took:.2f} s")
    assert took < PUSHED_WITHIN_S


def test_the_metrics_of_the_nodes_add_up(site: Site) -> None:
    """Every front door shows what all nodes have counted: a sum over them is what was asked, exactly."""
    before = [totals([site.cluster.page(site.client, node)], REQUESTS) for node in site.cluster.nodes]
    assert len({answered(each) for each in before}) == 1
    asked = 25
    for node in site.cluster.nodes:
        assert all(site.cluster.answers(site.client, node) for _ in range(asked))
    for node in site.cluster.nodes:
        after = totals([site.cluster.page(site.client, node)], REQUESTS)
        assert answered(after) == answered(before[0]) + 3 * asked
        assert len({labels for labels, value in after.items() if value}) > 1


def test_a_pushed_family_is_fetched_by_every_node_and_served(site: Site, record: Record) -> None:
    """`sluice family push` on the head: each node's disk holds it then, and every replica serves it."""
    built = site.cluster.head.folder / "built"
    family = write_fake_family(built, seed=5, rows=60)
    began = time.monotonic()
    site.cluster.sluice("family", "push", str(site.cluster.head.disk / "built"))
    took = time.monotonic() - began
    assert family.sha256 in cached(site, 1)
    assert family.sha256 in cached(site, 2)
    assert site.cluster.admin("GET", "/state")["family"]["sha256"] == family.sha256
    assert len({each["revision"] for each in site.cluster.states()}) == 1
    assert all(site.cluster.answers(site.client, node) for node in site.cluster.nodes for _ in range(5))
    record.add(site.state, "family pushed, in force on every node (the command as a whole)", f"{took:.2f} s")


def test_a_node_without_power_costs_what_was_on_its_way_and_no_more(site: Site, record: Record) -> None:
    """Under load: the other front doors are whole within 15 s, and so is the gateway but for its place."""
    *left, lost = site.cluster.nodes
    addresses = [node.address for node in left]
    with Traffic(site.client, addresses, PORT) as traffic:
        wait_until(lambda: traffic.answered(0) > 100, "traffic flows", 20)
        cut_at = time.monotonic()
        lost.cut_power()
        wait_until(
            lambda: len(site.cluster.states()) == 2 and traffic.answered(time.monotonic() - 1) > 10,
            "two replicas left",
            WHOLE_WITHIN_S,
        )
        whole_at = time.monotonic()
        wait_until(lambda: traffic.answered(whole_at) > 100, "traffic flows on", 20)
    disturbed = traffic.disturbed_s(cut_at, addresses)
    counts = traffic.counts()
    record.add(
        site.state,
        "a node's power cut: replies of the two others' front doors",
        ", ".join(f"{n} × {came}" for came, n in counts.most_common()),
    )
    record.add(
        site.state, "from the cut to the end of the last request without an answer", f"{disturbed:.1f} s"
    )
    assert disturbed < WHOLE_WITHIN_S
    assert counts["200"] > 200
    assert set(counts) <= {"200", "reset", "late", "500", "503", "504"}


def test_a_node_that_comes_gets_a_replica_that_follows(site: Site, record: Record) -> None:
    """It fetches the family, comes up under the revision in force, and follows the next push."""
    machine = site.net.add()
    began = time.monotonic()
    site.cluster.start(machine)
    wait_until(lambda: site.cluster.answers(site.client, machine), "the new node answers", 60)
    record.add(site.state, "a node added, answering on its own address", f"{time.monotonic() - began:.1f} s")
    assert len(site.cluster.replicas_of(machine)) == 1
    sha256 = site.cluster.admin("GET", "/state")["family"]["sha256"]
    assert sha256 in cached(site, len(site.cluster.nodes) - 1)
    policy = single_variant_policy("fake-small").sealed()
    pushed = site.cluster.admin("PUT", "/policy", json=policy.dump())
    assert len(pushed["replicas"]) == 3
    assert {each["revision"] for each in pushed["replicas"]} == {pushed["revision"]["number"]}
    assert all(site.cluster.answers(site.client, machine, policy.version) for _ in range(10))
