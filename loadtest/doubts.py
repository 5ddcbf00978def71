"""What is odd about the replies of a run, so that nobody takes its figures at face value. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pyarrow as pa

from contract.run import abstained
from loadtest.exchange import NO_ANSWER, TIMED_OUT

LEAST_FIT = 0.05
LEAST_ANSWERS = 20
SHOWN = 4


def doubts(requests: pa.Table) -> tuple[str, ...]:
    """Return lines on refusals, on replies that held no answer, and on answers that are no label."""
    left = abstained(requests)
    columns = (requests[name].filter(~left).to_pylist() for name in ("status", "label", "answer"))
    rows = list(zip(*columns, strict=True))
    found = []
    failed = first_failure(requests)
    if failed:
        errors = sum(status != 200 for status, _, _ in rows)
        found.append(f"{errors:,} of {len(rows):,} requests failed, the first with {failed}")
    fine = [(label, answer) for status, label, answer in rows if status == 200]
    unread = sum(answer is None for _, answer in fine)
    if unread:
        found.append(
            f"{unread:,} of {len(fine):,} replies with status 200 held no answer of this protocol, and count "
            "as errors: is it the right address, and the right --protocol?"
        )
    labels = Counter(label for label, _ in fine if label is not None)
    answers = Counter(answer for label, answer in fine if label is not None and answer is not None)
    known = sum(count for answer, count in answers.items() if answer in labels)
    total = answers.total()
    if total >= LEAST_ANSWERS and known < LEAST_FIT * total:
        found.append(
            f"{total - known:,} of {total:,} answers are none of the labels of the data: it answers "
            f"{_some(answers)}, the data say {_some(labels)}; accuracy means nothing then"
        )
    return tuple(found)


def first_failure(requests: pa.Table) -> str | None:
    """Return the status and the words of the first request that was not answered with 200; None: all were."""
    for status, refusal in zip(requests["status"].to_pylist(), requests["refusal"].to_pylist(), strict=True):
        if status == 200:
            continue
        if status == NO_ANSWER:
            return "a connection that broke"
        if status == TIMED_OUT:
            return "no answer in time"
        return f"status {status}" + (f": {refusal}" if refusal else "")
    return None


def _some(counts: Counter[str]) -> str:
    named: Iterable[str] = (repr(name) for name, _ in counts.most_common(SHOWN))
    return ", ".join(named) + (", ..." if len(counts) > SHOWN else "")
