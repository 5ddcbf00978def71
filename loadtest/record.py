"""From what the generator brought back to the rows of a run. Pure."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from contract.run import REQUEST_SCHEMA
from loadtest.exchange import NEVER_SENT, NO_ANSWER, Samples
from loadtest.protocol import Answer, Protocol, read_answer, read_refusal
from tables.labelled import Labelled


def requests_table(
    samples: Samples,
    data: Labelled,
    which: NDArray[np.int64],
    *,
    protocol: Protocol,
    model: str,
    warmup: int,
) -> pa.Table:
    """Return one row per measured request that was sent (contract.run.REQUEST_SCHEMA).

    Args:
        samples: one row per arrival, warm-up first.
        data: the texts asked.
        which: [N] index into `data` of each arrival.
        protocol: the wire form of the replies.
        model: the model asked.
        warmup: how many of the first arrivals to leave out.
    """
    kept = np.arange(warmup, len(samples.status))
    kept = kept[samples.status[kept] != NEVER_SENT]
    rows = which[kept].tolist()
    read = lru_cache(maxsize=4096)(lambda raw: read_answer(protocol, raw))
    status = samples.status[kept]
    answers: list[Answer | None] = [
        read(samples.replies[i]) if code == 200 else None
        for i, code in zip(kept.tolist(), status.tolist(), strict=True)
    ]
    refusals = [
        None if answer is not None or code <= NO_ANSWER else read_refusal(samples.replies[i])
        for i, code, answer in zip(kept.tolist(), status.tolist(), answers, strict=True)
    ]
    intended, sent, done = (a[kept] for a in (samples.intended, samples.sent, samples.done))
    said = {
        name: [None if answer is None else getattr(answer, name) for answer in answers]
        for name in ("confidence", "variant", "escalated", "degraded", "abstained", "policy_version")
    }
    return (
        pa.table(
            {
                "id": kept,
                "intended_at_s": samples.start_at_s + intended,
                "sent_at_s": samples.start_at_s + sent,
                "done_at_s": samples.start_at_s + done,
                "latency_ms": (done - intended) * 1000.0,
                "service_ms": (done - sent) * 1000.0,
                "status": status,
                "label": [data.labels[row] for row in rows],
                "answer": [None if answer is None else answer.label for answer in answers],
                **said,
                "model": [model] * len(rows),
                "slice": [",".join(data.slices[row]) or None for row in rows],
                "row": [data.rows[row] for row in rows],
                "refusal": refusals,
            }
        )
        .select(REQUEST_SCHEMA.names)
        .cast(REQUEST_SCHEMA)
    )
