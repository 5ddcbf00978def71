"""What the replies of a teacher behind HTTP cost and took, as a manifest has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from contract.formulas import exact_quantile, quantile_interval, wilson_interval
from contract.remote import RemoteMeasured, RemoteModel
from runtime.remote.kept import Kept

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}


def usd_per_1k_of(part: RemoteModel, replies: Sequence[Kept]) -> float:
    """Return what 1,000 answers cost at the model's price, by the tokens of the replies where these count.

    Where no reply tells its tokens it is what replies have cost, each the most that it may; 0 without any.
    """
    if part.priced_by_call:
        return 1000 * part.usd(part.repeats)
    told = [one for one in replies if one.tokens_in]
    if told:
        tokens_in, tokens_out = sum(one.tokens_in for one in told), sum(one.tokens_out for one in told)
        return 1000 * part.usd(part.repeats * len(told), tokens_in, tokens_out) / len(told)
    return 1000 * sum(one.usd for one in replies) / len(replies) if replies else 0.0


def untold_note(part: RemoteModel, replies: Sequence[Kept]) -> list[str]:
    """Return what a person should know where tokens have a price and replies do not tell them."""
    untold = sum(one.label is not None and not one.tokens_in for one in replies)
    if part.priced_by_call or not untold:
        return []
    return [f"{untold:,} replies do not tell their tokens: each counts as the most that it may cost"]


def latency_of(replies: Sequence[Kept]) -> list[dict[str, Any]]:
    """Return how long a reply took, as manifests have it; nothing where all answers came from files."""
    times = _times_ms(replies)
    if not len(times):
        return []
    return [
        {
            "batch": 1,
            "concurrency": 1,
            "threads": 1,
            "provider": "remote",
            "n": len(times),
            "p50_ms": exact_quantile(times, 0.5),
            "p99_ms": exact_quantile(times, 0.99),
            "p99_interval_ms": quantile_interval(times, 0.99),
        }
    ]


def measured_of(
    replies: Sequence[Kept], texts: int, calls: int, failures: Mapping[str, int], spent: float = 0.0
) -> RemoteMeasured | None:
    """Return what the endpoint did; None where it was asked for nothing.

    Args:
        replies: all, kept ones included.
        texts: that were to be asked.
        calls, failures: requests of the last run, and those that failed by kind.
        spent: USD that went on replies that are no answer.
    """
    if not replies:
        return None
    times, failed = _times_ms(replies), sum(failures.values())
    told = [one for one in replies if one.tokens_in]
    return RemoteMeasured(
        n=texts,
        unanswered=texts - sum(one.label is not None for one in replies),
        calls=calls,
        failed=failed,
        failure_rate=failed / calls if calls else 0.0,
        failure_interval=wilson_interval(failed, calls) if calls else (0.0, 1.0),
        failures=dict(failures),
        tokens_in_per_text=sum(one.tokens_in for one in told) / len(told) if told else None,
        tokens_out_per_text=sum(one.tokens_out for one in told) / len(told) if told else None,
        usd=sum(one.usd for one in replies) + spent,
        quantiles_ms={name: exact_quantile(times, q) for name, q in QUANTILES.items()} if len(times) else {},
    )


def _times_ms(replies: Sequence[Kept]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([1000 * one.seconds for one in replies if one.seconds > 0], dtype=np.float64)
