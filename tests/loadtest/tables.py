"""Request tables with known contents."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from contract.run import REQUEST_SCHEMA, Summary
from loadtest.summary import Setting, summarise

START = 1_000.0


def table(
    latency_ms: Sequence[float],
    *,
    status: Sequence[int] | None = None,
    label: Sequence[str | None] | None = None,
    answer: Sequence[str | None] | None = None,
    rows: Sequence[int] | None = None,
    variant: Sequence[str] | None = None,
    refusal: str | None = None,
    abstained: Sequence[bool | None] | None = None,
    lag_ms: float = 0.0,
    rate: float = 100.0,
) -> pa.Table:
    """Return requests spaced evenly at `rate`, all right unless told otherwise."""
    n = len(latency_ms)
    codes = list(status or [200] * n)
    intended = START + np.arange(n) / rate
    said = list(answer or ["a"] * n)
    return pa.table(
        {
            "id": range(n),
            "intended_at_s": intended,
            "sent_at_s": intended + lag_ms / 1000,
            "done_at_s": intended + np.array(latency_ms) / 1000,
            "latency_ms": list(map(float, latency_ms)),
            "service_ms": [x - lag_ms for x in latency_ms],
            "status": codes,
            "label": list(label or ["a"] * n),
            "answer": [x if code == 200 else None for x, code in zip(said, codes, strict=True)],
            "confidence": [1.0 if code == 200 else None for code in codes],
            "variant": [v if c == 200 else None for v, c in zip(variant or ["v"] * n, codes, strict=True)],
            "escalated": [False if code == 200 else None for code in codes],
            "degraded": [False if code == 200 else None for code in codes],
            "model": ["m"] * n,
            "policy_version": ["p" if code == 200 else None for code in codes],
            "slice": [None] * n,
            "row": list(rows if rows is not None else range(n)),
            "abstained": [None] * n if abstained is None else list(abstained),
            "refusal": [None if code == 200 else refusal for code in codes],
        },
        schema=REQUEST_SCHEMA,
    )  # fmt: skip


def setting(
    n: int, *, rate: float = 100.0, slo_ms: float | None = 50.0, cpu: float | None = 0.1, early: bool = False
) -> Setting:
    """Return what was asked of such a table."""
    return Setting(
        model="m", url="http://x", protocol="v1", seed=0, rate_per_s=rate, duration_s=n / rate, warmup_s=0.0,
        slo_ms=slo_ms, window_start_s=START, generator_cpu_share=cpu, stopped_early=early, data_sha256="d",
    )  # fmt: skip


def summary_of(requests: pa.Table, **asked: object) -> Summary:
    """Return the summary of a table that was asked for as it is."""
    return summarise(requests, setting(requests.num_rows, **asked))  # type: ignore[arg-type]
