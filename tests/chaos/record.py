"""What every case came to, and the page that tells it."""

from __future__ import annotations

import json
import platform
import textwrap
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
again](../http.md#trying-again)). Written by `{command}` on {day}; {machine}. A row stays until its case
is run again: each has the day on which it was measured.

{failed}Every request has an id that its reply repeats. For each case it holds, or the suite fails: every
reply is as the protocol says, none answers another request, none is late, no more are lost (refused,
reset) than its row allows, no request of the clients that try again stays without its answer, nothing
follows an answer on its connection, and the gateway is whole again within {within:g} s, or what the
remark on the case allows: `/v2/health/ready` says 200, 50 requests in a row are answered, and the part
is there again.

*reset*: the connection was refused, or closed without an answer. *late*: no answer within 20 s.
*disturbed*: from the fault to the end of the last request that was refused, reset or late. *tried
again*: what the four clients were told on the way, over all their tries. *counted*: by how much the
gateway's own `sluice_requests_total` has grown, which must be what was sent; only where no replica dies and
nobody else asks.

"""
_COLUMNS = (
    "case", "sent", "answered", "degraded", "refused", "reset", "late", "disturbed", "slowest", "whole after",
    "tried again", "may lose", "counted", "on",
)  # fmt: skip


@dataclass
class Case:
    """One case. `whole_s` is None where nothing was broken for good; `may_lose` is how many may be lost."""

    name: str
    tally: Tally
    clients: PatientClients | None = None
    whole_s: float | None = None
    remark: str = ""
    may_lose: int = 0


@dataclass
class Record:
    """The cases of a run. Those of earlier ones stand in the table until they are run again."""

    command: str
    rate: float
    rows: dict[str, str] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)
    bodies: dict[str, Counter[int]] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)
    failed: list[str] = field(default_factory=list)
    page: Path = PAGE

    def add(self, case: Case, *, within_s: float | None = None) -> None:
        """Keep a case that holds what the page says; else drop its row, and fail with what does not hold."""
        tally, clients = case.tally, case.clients
        wrong = tally.malformed[:5]
        if tally.counted is not None and tally.counted != tally.sent:
            wrong.append(f"the gateway has counted {tally.counted} texts, not {tally.sent}")
        if tally.late:
            wrong.append(f"{tally.late} requests got no answer in time")
        if tally.lost > case.may_lose:
            wrong.append(f"{tally.lost} requests were lost, not {case.may_lose} at most")
        if clients is not None:
            wrong += clients.wrong[:5]
            if clients.unanswered:
                wrong.append(f"{clients.unanswered} requests without an answer: {clients.tries}")
        if within_s is not None and (case.whole_s is None or case.whole_s > within_s):
            wrong.append(f"whole again after {case.whole_s} s, not {within_s:g}")
        if wrong:
            self.rows.pop(case.name, None)
            self.dropped.add(case.name)
        assert wrong == [], f"{case.name}: {wrong}; {tally}"
        self.rows[case.name] = self._row(case)
        if case.remark:
            self.remarks[case.name] = case.remark

    def write(self) -> None:
        """Write the page, and beside it what it is made of."""
        data = self.page.with_suffix(".json")
        known = json.loads(data.read_text()) if data.is_file() else {"rows": {}, "remarks": {}, "bodies": {}}
        rows = {**known["rows"], **self.rows}
        remarks = {**known["remarks"], **self.remarks}
        for name in self.dropped:
            rows.pop(name, None)
            remarks.pop(name, None)
        bodies = {**known["bodies"], **{name: dict(told) for name, told in self.bodies.items()}}
        data.write_text(json.dumps({"rows": rows, "remarks": remarks, "bodies": bodies}, indent=1) + "\n")
        machine = describe_machine()
        head = _HEAD.format(
            rate=self.rate,
            command=self.command,
            day=datetime.now(UTC).date().isoformat(),
            machine=f"{machine.cpu}, {machine.cores} cores, Python {platform.python_version()}",
            within=WHOLE_WITHIN_S,
            failed="".join(f"**Failed in the last run: {test}.**\n" for test in self.failed)
            + ("\n" if self.failed else ""),
        )
        lines = [
            "| " + " | ".join(_COLUMNS) + " |",
            "| " + " | ".join("---" for _ in _COLUMNS) + " |",
            *rows.values(),
        ]
        for name, remark in remarks.items():
            lines += ["", *textwrap.wrap(f"*{name}*: {remark}", 110, break_on_hyphens=False)]
        if bodies:
            counted = {name: Counter({int(k): n for k, n in told.items()}) for name, told in bodies.items()}
            lines += ["", *_bodies(counted)]
        self.page.write_text(head + "\n".join(lines) + "\n")

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
            f"{case.may_lose:,}",
            "" if tally.counted is None else f"{tally.counted:,}",
            datetime.now(UTC).date().isoformat(),
        ]
        return "| " + " | ".join(cells) + " |"


def _bodies(bodies: dict[str, Counter[int]]) -> list[str]:
    """Return the table of generated bodies by status."""
    codes = sorted({status for told in bodies.values() for status in told})
    total = sum(told.total() for told in bodies.values())
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
            for name, told in bodies.items()
        ),
    ]
