"""From the rows of a run to its figures. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from contract.formulas import (
    exact_quantile,
    gco2e,
    usd_per_1k,
    usd_per_1k_from_seconds,
    wh_per_1k,
)
from contract.machine import Machine
from contract.run import Summary, VariantShare
from loadtest.arrivals import planned_requests
from loadtest.doubts import doubts, first_failure
from loadtest.estimates import Answers, Estimate, accuracy, answers_of, macro_f1_of
from loadtest.scrape import ServerUse
from loadtest.waits import Goodput, Waits, answered, goodput, waits

LAG_SHARE = 0.05
LAG_FLOOR_MS = 1.0
RATE_SHARE = 0.99
CPU_SHARE = 0.80
LOST = "stopped early: more than 1% had missed the objective"


@dataclass(frozen=True)
class Economy:
    """What money and carbon figures rest on.

    Attributes:
        usd_per_core_hour: price of one core.
        cores: cores of the machine that serves; None: unknown, so no price of the machine.
        grid_g_per_kwh: carbon intensity.
        basis: date and source of both, by name.
    """

    usd_per_core_hour: float
    cores: float | None
    grid_g_per_kwh: float
    basis: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Setting:
    """What was asked of a run, and what the generator says of itself.

    Attributes:
        window_start_s: when the measured part began, in the clock of `intended_at_s`.
        generator_cpu_share: of one core, over the measured part; None when unknown.
        stopped_early: whether the run ended because its objective was lost.
    """

    model: str
    url: str
    protocol: str
    seed: int
    rate_per_s: float
    duration_s: float
    warmup_s: float
    slo_ms: float | None
    window_start_s: float
    arrivals: str = "poisson"
    generator_cpu_share: float | None = None
    stopped_early: bool = False
    data_sha256: str | None = None
    unmetered_reason: str | None = None


def summarise(
    requests: pa.Table,
    setting: Setting,
    *,
    use: ServerUse | None = None,
    economy: Economy | None = None,
    machine: Machine | None = None,
) -> Summary:
    """Return the figures of the measured requests (rows of contract.run.REQUEST_SCHEMA).

    Latency percentiles are over requests that were answered or waited for an answer until the timeout; a
    request that the server refused, or a connection that broke, is an error and not a fast answer. An
    error is a miss of the objective. Accuracy is over the answers given; a text left to a person is neither
    an error nor a wrong answer.
    """
    n = requests.num_rows
    ok = answered(requests)
    waited = waits(requests)
    lag = (requests["sent_at_s"].to_numpy() - requests["intended_at_s"].to_numpy()) * 1000.0
    answers = answers_in(requests, ok)
    right, f1 = accuracy(answers), macro_f1_of(answers, seed=setting.seed)
    rate = _rate_held(requests, setting)
    good = goodput(requests, setting.slo_ms, rate)
    answers_given = int(ok.sum())
    cpu_1k, wh, wh_dynamic = _use_per_1k(use, answers_given)
    charged = _charged_per_1k(use, answers_given)
    answers_per_s = rate * answers_given / n if n else 0.0
    summary = Summary(
        model=setting.model,
        url=setting.url,
        protocol=setting.protocol,
        seed=setting.seed,
        rate_asked_per_s=setting.rate_per_s,
        rate_held_per_s=rate,
        duration_s=setting.duration_s,
        n=n,
        errors=n - answers_given,
        valid=True,
        p50_ms=waited.p50_ms,
        p99_ms=waited.p99_ms,
        p99_interval_ms=waited.p99_interval_ms,
        accuracy=right.value if right else None,
        accuracy_interval=right.interval if right else None,
        macro_f1=f1.value if f1 else None,
        macro_f1_interval=f1.interval if f1 else None,
        slo_ms=setting.slo_ms,
        goodput_per_s=good.per_s,
        goodput_interval_per_s=good.interval,
        escalation_rate=_share(requests["escalated"]),
        degraded_rate=_share(requests["degraded"]),
        abstention_rate=_share(requests["abstained"]),
        usd_per_1k=_usd_per_1k(
            economy, good.per_s if good.per_s is not None else answers_per_s, charged or 0.0
        ),
        usd_per_1k_by_cpu=_usd_per_1k_by_cpu(economy, cpu_1k, charged or 0.0),
        charged_usd_per_1k=charged,
        cpu_seconds_per_1k=cpu_1k,
        energy_wh_per_1k=wh,
        energy_dynamic_wh_per_1k=wh_dynamic,
        energy_provenance=use.provenance if use and wh is not None else "none",
        gco2e_per_1k=gco2e(wh, economy.grid_g_per_kwh) if economy and wh is not None else None,
        by_variant=_by_variant(requests, ok, use, wh_dynamic if wh_dynamic is not None else wh),
        interval_method=_methods(waited, right, f1, good),
        machine=machine,
        arrivals=setting.arrivals,
        started_at_s=setting.window_start_s,
        warmup_s=setting.warmup_s,
        service_p50_ms=waited.service_p50_ms,
        service_p99_ms=waited.service_p99_ms,
        send_lag_p99_ms=exact_quantile(lag, 0.99) if n else None,
        generator_cpu_share=setting.generator_cpu_share,
        stopped_early=setting.stopped_early,
        policy_version=_only(requests["policy_version"]),
        data_sha256=setting.data_sha256,
        unmetered_reason=setting.unmetered_reason,
        doubts=doubts(requests),
        basis=economy.basis if economy else {},
    )
    nothing = [_nothing(requests)] if n and not answers_given else []
    void = "; ".join([*nothing, *generator_faults(summary), *([LOST] if setting.stopped_early else [])])
    return summary.model_copy(update={"valid": not void, "void_reason": void or None})


def _nothing(requests: pa.Table) -> str:
    """Return that no request was answered, and what the first was told."""
    told = first_failure(requests) or "status 200 and no answer of this protocol"
    return f"not one of {requests.num_rows:,} requests was answered: the first got {told}"


def _methods(waited: Waits, right: Estimate | None, f1: Estimate | None, good: Goodput) -> str:
    """Return how each interval was found, in words."""
    few = "" if waited.p99_interval_ms else ", too few for an interval"
    methods = [
        f"p99: order statistics 95%, n = {waited.n}{few}",
        None if right is None else f"accuracy: {right.method}",
        None if f1 is None else f"macro-F1: {f1.method}",
        None if good.per_s is None else "goodput: Wilson 95% of the share within the objective x rate held",
    ]
    return "; ".join(method for method in methods if method)


def _usd_per_1k(economy: Economy | None, goodput_per_s: float, charged: float) -> float | None:
    if economy is None or economy.cores is None or goodput_per_s <= 0:
        return None
    return usd_per_1k(economy.usd_per_core_hour, economy.cores, goodput_per_s) + charged


def _usd_per_1k_by_cpu(economy: Economy | None, cpu_seconds: float | None, charged: float) -> float | None:
    if economy is None or cpu_seconds is None:
        return None
    return usd_per_1k_from_seconds(cpu_seconds, economy.usd_per_core_hour) + charged


def _charged_per_1k(use: ServerUse | None, answers: int) -> float | None:
    """Return what models behind HTTP charged for 1,000 answers; None where none did."""
    served = (use.served or answers) if use is not None else 0
    return 1000.0 * use.charged_usd / served if use and use.charged_usd is not None and served else None


def answers_in(requests: pa.Table, kept_rows: NDArray[np.bool_]) -> Answers:
    """Return the answers among the rows kept [N] that have a label."""
    kept = requests.filter(pa.array(kept_rows))
    return answers_of(kept["label"].to_pylist(), kept["answer"].to_pylist(), kept["row"].to_pylist())


def _rate_held(requests: pa.Table, setting: Setting) -> float:
    """Requests sent per second; the window grows when the generator was still sending after its end."""
    n = requests.num_rows
    if not n:
        return 0.0
    last = float(pc.max(requests["sent_at_s"]).as_py()) - setting.window_start_s
    span = float(max(last if setting.stopped_early else setting.duration_s, last, 1e-9))
    return float(n / span)


def generator_faults(summary: Summary) -> tuple[str, ...]:
    """Return why the generator cannot be believed; empty when it can."""
    if summary.send_lag_p99_ms is None:
        return ("no request was measured",)
    slo_ms, lag_ms, cpu = summary.slo_ms, summary.send_lag_p99_ms, summary.generator_cpu_share or 0.0
    limit = LAG_SHARE * slo_ms if slo_ms else max(LAG_SHARE * (summary.p99_ms or 0.0), LAG_FLOOR_MS)
    of = "the objective" if slo_ms else "p99, at least 1 ms"
    faults = []
    if lag_ms > limit:
        faults.append(f"send lag p99 {lag_ms:.2f} ms is over {limit:.2f} ms (5% of {of})")
    # Against whole requests: 2.239 per second for 5 s are 11, and 11 sent in time are 2.2 per second.
    planned = planned_requests(summary.rate_asked_per_s, summary.duration_s) / summary.duration_s
    if not summary.stopped_early and summary.rate_held_per_s < RATE_SHARE * planned:
        faults.append(
            f"sent {summary.rate_held_per_s:.2f} per second, under 99% of the {planned:.4g} planned"
        )
    if cpu > CPU_SHARE:
        faults.append(f"the generator used {cpu:.0%} of its core (limit 80%)")
    return tuple(faults)


def _use_per_1k(use: ServerUse | None, answers: int) -> tuple[float | None, float | None, float | None]:
    """CPU-seconds, Wh fully loaded and Wh above idle per 1,000 answers, as the server itself counted them."""
    served = (use.served if use and use.served is not None else answers) if use else 0
    if use is None or served < 1:
        return None, None, None
    cpu = None if use.cpu_seconds is None else 1000.0 * sum(use.cpu_seconds.values()) / served
    loaded, dynamic = (
        None if joules is None else wh_per_1k(joules, 1) / served
        for joules in (use.loaded_joules, use.dynamic_joules)
    )
    return cpu, loaded, dynamic


def _by_variant(
    requests: pa.Table,
    ok: NDArray[np.bool_],
    use: ServerUse | None,
    wh: float | None,
) -> dict[str, VariantShare]:
    """Shares by answering variant, and by variant that only used CPU; energy goes by CPU time."""
    cpu = dict(use.cpu_seconds) if use and use.cpu_seconds else {}
    cpu_all, n = sum(cpu.values()), requests.num_rows
    served = use.served if use and use.served else int(ok.sum())
    names = np.array(requests["variant"].to_pylist(), dtype=object)
    latency = requests["latency_ms"].to_numpy()
    found: dict[str, VariantShare] = {}
    for name in sorted({str(v) for v in names[ok] if v is not None} | set(cpu)):
        mask = ok & (names == name)
        kept = latency[mask]
        right = accuracy(answers_in(requests, mask))
        share = cpu.get(name, 0.0) / cpu_all if cpu_all > 0 else None
        found[name] = VariantShare(
            n=int(mask.sum()),
            share=float(mask.sum() / n) if n else 0.0,
            accuracy=right.value if right else None,
            p50_ms=exact_quantile(kept, 0.5) if kept.size else None,
            p99_ms=exact_quantile(kept, 0.99) if kept.size else None,
            cpu_seconds=cpu.get(name),
            energy_wh_per_1k=wh * share * served / kept.size
            if wh is not None and share is not None and kept.size
            else None,
        )
    return found


def _share(column: pa.ChunkedArray) -> float | None:
    mean = pc.mean(column.cast(pa.float64())).as_py()
    return None if mean is None else float(mean)


def _only(column: pa.ChunkedArray) -> str | None:
    values = pc.unique(column).drop_null().to_pylist()
    return str(values[0]) if len(values) == 1 else None
