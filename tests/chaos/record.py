"""What every case came to, and the page that tells it."""

from __future__ import annotations

import platform
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from runtime.machine import describe_machine
from tests.chaos.client import PatientClients
from tests.chaos.load import Tally

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "chaos.md"
WHOLE_WITHIN_S = 15.0

_HEAD = """# What breaks, and what clients see of it

`make chaos` breaks one part of a gateway after another while {rate:g} requests per second come in,
evenly and without waiting for answers, and four clients send again what they are told to ([Trying
again](../http.md#trying-again)). Written by `{command}` on {day}; {machine}.

Every request has an id that its reply repeats. For each case it holds, or the suite fails: every reply
is as the protocol says, none answers another request, each request is counted once as answered, refused
or reset, no request of the clients that try again stays without its answer or gets two, and the gateway
is whole again within {within:g} s: `/v2/health/ready` says 200, 50 requests in a row are answered, and
the part is there again.

*reset*: the connection was refused, or closed without an answer. *late*: no answer within 20 s.
*disturbed*: from the fault to the end of the last request that was refused, reset or late. *tried
again*: what the four clients were told on the way, over all their tries.

"""
_COLUMNS = (
    "case", "sent", "answered", "degraded", "refused", "reset", "late", "disturbed", "slowest", "whole after",
    "tried again",
)  # fmt: skip


@dataclass
class Case:
    """One case. `whole_s` is None where nothing was broken for good."""

    name: str
    tally: Tally
    clients: PatientClients | None = None
    whole_s: float | None = None
    remark: str = ""


@dataclass
class Record:
    """All cases of a run."""

    command: str
    rate: float
    cases: list[Case] = field(default_factory=list)
    bodies: dict[str, Counter[int]] = field(default_factory=dict)

    def add(self, case: Case) -> None:
        """Keep a case, and hold it to what the page says."""
        self.cases.append(case)
        tally = case.tally
        assert tally.malformed == [], tally.malformed[:5]
        assert tally.accounted == tally.sent, tally
        if case.clients is not None:
            assert case.clients.wrong == []
            assert case.clients.unanswered == 0, case.clients.tries

    def write(self) -> None:
        """Write the page."""
        machine = describe_machine()
        head = _HEAD.format(
            rate=self.rate,
            command=self.command,
            day=datetime.now(UTC).date().isoformat(),
            machine=f"{machine.cpu}, {machine.cores} cores, Python {platform.python_version()}",
            within=WHOLE_WITHIN_S,
        )
        rows = [
            "| " + " | ".join(_COLUMNS) + " |",
            "| " + " | ".join("---" for _ in _COLUMNS) + " |",
            *(self._row(case) for case in self.cases),
        ]
        remarks = [f"- *{case.name}*: {case.remark}" for case in self.cases if case.remark]
        remarks += ["", *self._bodies()] if self.bodies else []
        PAGE.write_text(head + "\n".join(rows) + "\n" + ("\n" + "\n".join(remarks) + "\n" if remarks else ""))

    def _bodies(self) -> list[str]:
        """Return the table of generated bodies by status."""
        codes = sorted({status for told in self.bodies.values() for status in told})
        total = sum(told.total() for told in self.bodies.values())
        return [
            "## Generated bodies",
            "",
            f"{total:,} requests through HAProxy, by what they were told. A 504 is the answer to a deadline",
            "in the body that was too short; any other 5xx, and any refusal that is not in our form, fails.",
            "",
            "| made by | sent | " + " | ".join(str(code) for code in codes) + " |",
            "| --- | --- | " + " | ".join("---" for _ in codes) + " |",
            *(
                f"| {name} | {told.total():,} | " + " | ".join(f"{told[code]:,}" for code in codes) + " |"
                for name, told in self.bodies.items()
            ),
        ]

    def _row(self, case: Case) -> str:
        tally = case.tally
        refused = ", ".join(f"{n:,} x {status}" for status, n in sorted(tally.refused.items())) or "0"
        again = ""
        if case.clients is not None:
            told = {what: n for what, n in sorted(case.clients.tries.items()) if what != "200"}
            again = ", ".join(f"{n:,} x {what}" for what, n in told.items()) or "nothing"
            again = f"{case.clients.asked:,} asked: {again}"
        cells = [
            case.name,
            f"{tally.sent:,}",
            f"{tally.answered:,}",
            f"{tally.degraded:,}",
            refused,
            f"{tally.resets:,}",
            f"{tally.late:,}",
            f"{tally.disturbed_s:.2f} s",
            f"{tally.slowest_s:.2f} s",
            "" if case.whole_s is None else f"{case.whole_s:.1f} s",
            again,
        ]
        return "| " + " | ".join(cells) + " |"
