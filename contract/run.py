"""A run on disk: one row per request, and the summary that is computed from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from contract.errors import RunError
from contract.files import atomic_path, read_json, write_json
from contract.machine import EnergyProvenance, Machine
from contract.records import Frozen, first_problem

REQUESTS = "requests.parquet"
SUMMARY = "summary.json"

REQUEST_SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("intended_at_s", pa.float64()),
        ("sent_at_s", pa.float64()),
        ("done_at_s", pa.float64()),
        ("latency_ms", pa.float64()),
        ("service_ms", pa.float64()),
        ("status", pa.int32()),
        ("label", pa.string()),
        ("answer", pa.string()),
        ("confidence", pa.float64()),
        ("variant", pa.string()),
        ("escalated", pa.bool_()),
        ("degraded", pa.bool_()),
        ("model", pa.string()),
        ("policy_version", pa.string()),
        ("slice", pa.string()),
        ("row", pa.int64()),
        ("refusal", pa.string()),
        ("abstained", pa.bool_()),
    ]
)
"""`*_at_s` are seconds since the epoch; `row` is the row of the data file that was asked (null: unknown).

`status` is the HTTP status; 0 when the connection failed, -1 when no answer came in time. `refusal` is what
the server said in place of an answer. `abstained` is whether nobody answers: `answer` is null then.
"""


_LATER = frozenset({"row", "refusal", "abstained"})


class VariantShare(Frozen):
    """What one variant did during a run."""

    n: int
    share: float
    accuracy: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    cpu_seconds: float | None = None
    energy_wh_per_1k: float | None = None


class Summary(Frozen):
    """The figures of one run. Absent is null, never 0."""

    model: str
    url: str
    protocol: str
    seed: int
    rate_asked_per_s: float
    rate_held_per_s: float
    duration_s: float
    n: int
    errors: int
    valid: bool
    void_reason: str | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    p99_interval_ms: tuple[float, float] | None = None
    accuracy: float | None = None
    accuracy_interval: tuple[float, float] | None = None
    macro_f1: float | None = None
    slo_ms: float | None = None
    goodput_per_s: float | None = None
    escalation_rate: float | None = None
    degraded_rate: float | None = None
    abstention_rate: float | None = Field(
        default=None, description="Share left to a person, which accuracy does not count"
    )
    usd_per_1k: float | None = None
    energy_wh_per_1k: float | None = None
    energy_dynamic_wh_per_1k: float | None = None
    energy_provenance: EnergyProvenance = "none"
    gco2e_per_1k: float | None = None
    by_variant: dict[str, VariantShare] = Field(default_factory=dict)
    interval_method: str = ""
    machine: Machine | None = None
    arrivals: str = Field(default="poisson", description="Process and profile of the arrivals, in words")
    started_at_s: float | None = Field(default=None, description="Unix seconds of the measured part's begin")
    warmup_s: float | None = None
    service_p50_ms: float | None = None
    service_p99_ms: float | None = None
    send_lag_p99_ms: float | None = None
    generator_cpu_share: float | None = Field(default=None, description="Of one core, over the measured part")
    macro_f1_interval: tuple[float, float] | None = None
    goodput_interval_per_s: tuple[float, float] | None = None
    cpu_seconds_per_1k: float | None = None
    usd_per_1k_by_cpu: float | None = Field(
        default=None, description="Price of the CPU-seconds used, against usd_per_1k of the machine provided"
    )
    charged_usd_per_1k: float | None = Field(
        default=None, description="By models behind HTTP, as the gateway counts it; part of both prices"
    )
    stopped_early: bool = Field(default=False, description="Ended once the objective was surely missed")
    policy_version: str | None = None
    data_sha256: str | None = None
    unmetered_reason: str | None = Field(default=None, description="Why energy or CPU time is null")
    doubts: tuple[str, ...] = Field(
        default=(), description="What is odd about the answers, such as labels that the data do not have"
    )
    basis: dict[str, str] = Field(
        default_factory=dict, description="Date and source of prices and grid intensity"
    )


def write_run(folder: Path, requests: pa.Table, summary: Summary) -> None:
    """Write both files atomically, the summary last: a folder with a summary is whole."""
    for field in REQUEST_SCHEMA:
        if field.name in _LATER and field.name not in requests.column_names:
            requests = requests.append_column(field.name, pa.nulls(requests.num_rows, field.type))
    with atomic_path(folder / REQUESTS) as temporary:
        pq.write_table(_in_order(requests).cast(REQUEST_SCHEMA), temporary)
    write_json(folder / SUMMARY, summary.model_dump(mode="json"))


def _in_order(requests: pa.Table) -> pa.Table:
    names = REQUEST_SCHEMA.names
    return requests.select(names) if set(names) == set(requests.column_names) else requests


def abstained(requests: pa.Table) -> NDArray[np.bool_]:
    """Return [N] whether the server left each text to a person; runs of before that was known left none."""
    if "abstained" not in requests.column_names:
        return np.zeros(requests.num_rows, dtype=bool)
    return np.asarray(pc.fill_null(requests["abstained"], False).to_numpy(), dtype=bool)


def read_summary(folder: Path) -> Summary:
    """Read a run's summary. Raises RunError."""
    raw = read_json(folder / SUMMARY, error=RunError)
    try:
        return Summary.model_validate(raw)
    except ValidationError as problem:
        raise RunError(first_problem(problem), where=folder / SUMMARY) from None


def read_requests(folder: Path) -> pa.Table:
    """Read a run's requests [N rows of REQUEST_SCHEMA]. Raises RunError."""
    path = folder / REQUESTS
    try:
        return pq.read_table(path)
    except (FileNotFoundError, pa.ArrowInvalid, OSError) as problem:
        raise RunError(f"not a readable run: {problem}", where=path) from None
