"""What was measured on a cluster, for docs/benchmarks/cluster.md."""

from __future__ import annotations

from pathlib import Path

from runtime.machine import describe_machine

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks" / "cluster.md"
_HEAD = """# A gateway on three nodes

    make cluster-test

Three nodes of a Ray cluster, each in a network namespace with an address and a disk of its own, all on the
cores of one machine: {machine}. A fake family (2 ms a text), a gateway replica per node, two of the last
stage. From a fourth namespace two clients ask the front doors of the two nodes that stay, one request at a
time each, and give up after 10 s: what was on its way to the node without power
is late, and bounds the time.

| state in | what | measured |
| --- | --- | --- |
"""


class Record:
    """Lines of the page, written when all tests are done."""

    def __init__(self) -> None:
        self._lines: list[tuple[str, str, str]] = []

    def add(self, state: str, what: str, measured: str) -> None:
        """Add a line."""
        kind = "an S3-compatible store" if state.startswith("s3://") else "a shared folder"
        self._lines.append((kind, what, measured))

    def write(self) -> None:
        """Write the page."""
        found = describe_machine()
        head = _HEAD.format(machine=f"{found.cpu}, {found.cores} cores")
        PAGE.write_text(head + "".join(f"| {' | '.join(line)} |\n" for line in self._lines))
