"""One cluster for all tests of a kind of state, which follow one another on it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.network import Machine, Network, network, obstacle
from tests.cluster.record import Record
from tests.support.object_store import BUCKET, object_store

_STORE_PORT = 9000


@dataclass(frozen=True)
class Site:
    """A cluster of three nodes, and a machine beside it that asks."""

    net: Network
    cluster: Cluster
    client: Machine
    shared: Path
    state: str


@pytest.fixture(scope="session", params=["s3", "folder"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A gateway with a replica on each of three nodes, its family built on the head's own disk."""
    if told := obstacle():
        pytest.skip(told)
    # Sockets lie below it, whose paths must be short.
    with (
        tempfile.TemporaryDirectory(prefix="sl", dir="/var/tmp") as name,
        network(Path(name)) as net,
    ):
        shared = Path(name) / "shared"
        shared.mkdir()
        client = net.add()
        with object_store(client.address, _STORE_PORT, client.prefix) as environment:
            on_s3 = request.param == "s3"
            state = f"s3://{BUCKET}/gateway" if on_s3 else str(shared / "state")
            cluster = Cluster(shared, environment if on_s3 else {})
            for _ in range(3):
                cluster.start(net.add())
            cluster.deploy(
                client,
                fake={"delay_ms": 2},
                state=state,
                family_cache=str(client.disk / "families"),
                replicas=3,
                replicas_per_node=1,
                stage={"replicas": 2},
                access={"insecure": True},
            )
            yield Site(net, cluster, client, shared, state)


@pytest.fixture(scope="session")
def record(request: pytest.FixtureRequest) -> Iterator[Record]:
    """Takes what is measured; a run in which nothing failed writes the page."""
    found = Record()
    yield found
    if not request.session.testsfailed:
        found.write()
