"""Machines out of namespaces, and a state that two of them share: the short form, without Ray."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.cluster.cluster import ROOT
from tests.cluster.network import Machine, Network, network, obstacle
from tests.support.object_store import BUCKET, object_store

STATE = f"s3://{BUCKET}/gateway"
COMMITS = """
import sys
from pathlib import Path
from contract.policy import single_variant_policy
from runtime.fake_family import write_fake_family
from serve.control.family_store import open_family_store
from serve.control.revision_store import first_revision, open_revisions
state, disk = sys.argv[1], Path(sys.argv[2])
family = write_fake_family(disk / "built", rows=20)
named = open_family_store(state, disk / "families").put(disk / "built", family)
open_revisions(state).commit(first_revision(single_variant_policy("fake-large"), named, "seed"))
"""
FOLLOWS = """
import sys
from pathlib import Path
from contract.family import read_family
from serve.control.family_store import open_family_store
from serve.control.revision_store import open_revisions
state, disk = sys.argv[1], Path(sys.argv[2])
latest = open_revisions(state).newer_than(0)
folder = open_family_store(state, disk / "families").locate(latest.family)
print(latest.number, read_family(folder).sha256 == latest.family_sha256, folder.is_relative_to(disk))
"""


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    """A network without machines."""
    if told := obstacle():
        pytest.skip(told)
    with tempfile.TemporaryDirectory(prefix="sl", dir="/var/tmp") as name, network(Path(name)) as made:
        yield made


def run_on(machine: Machine, script: str, environment: dict[str, str]) -> str:
    """Run a script on a machine; return what it says."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(
        [*machine.prefix, sys.executable, "-c", script, STATE, str(machine.disk)],
        env=kept | environment,
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout.strip()


def test_a_node_follows_what_another_has_committed_with_nothing_shared_but_a_store(net: Network) -> None:
    """Revision and family come over the network from a third machine; the disks are each node's own."""
    store, one, other = net.add(), net.add(), net.add()
    with object_store(store.address, 9000, store.prefix) as environment:
        run_on(one, COMMITS, environment)
        assert run_on(other, FOLLOWS, environment) == "1 True True"
    assert (one.folder / "built").is_dir()
    assert not (other.folder / "built").exists()


def test_a_machine_without_power_neither_answers_nor_refuses(net: Network) -> None:
    """Its connections hang, as after a power cut; a machine whose program ended refuses at once."""
    client, lost, ended = net.add(), net.add(), net.add()
    lost.cut_power()
    for machine, told in ((lost, TimeoutError), (ended, ConnectionRefusedError)):
        with client.entered(), pytest.raises(told):
            HTTPConnection(machine.address, 8000, timeout=0.3).connect()
