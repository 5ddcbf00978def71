"""wrk, and what the machine spent meanwhile."""

from __future__ import annotations

import json
import resource
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from bench.gateway.servers import Server

SCRIPT = """
local bodies = {%s}
local at = 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
request = function()
  at = at %% #bodies + 1
  return wrk.format(nil, nil, nil, bodies[at])
end
done = function(summary, latency, requests)
  local e = summary.errors
  local form = '{"requests": %%d, "seconds": %%f, "p50_ms": %%f, "p99_ms": %%f, "errors": %%d}'
  local figures = string.format(form, summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, e.connect + e.read + e.write + e.status + e.timeout)
  io.write('\\nRESULT ' .. figures .. '\\n')
end
"""


@dataclass(frozen=True)
class Driven:
    """What one run of wrk saw; `cpu_ms` is all that the machine spent per request, less wrk's own."""

    clients: int
    per_s: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    errors: int

    def to_json(self) -> dict[str, Any]:
        """Return the figures by name."""
        return asdict(self)


def drive(server: Server, texts: list[str], clients: int, seconds: float) -> Driven:
    """Send the texts in turn, one a request, from so many connections at once."""
    bodies = ", ".join(f"[==[{json.dumps(server.form(text))}]==]" for text in texts)
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT % bodies)
        script.flush()
        command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds:g}s", "-s", script.name, server.url]
        before, own = _busy_s(), resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        spent, after = _busy_s() - before, resource.getrusage(resource.RUSAGE_CHILDREN)
    spent -= after.ru_utime + after.ru_stime - own.ru_utime - own.ru_stime
    told = json.loads(done.stdout.rpartition("RESULT ")[2])
    return Driven(
        clients=clients,
        per_s=told["requests"] / told["seconds"],
        p50_ms=told["p50_ms"],
        p99_ms=told["p99_ms"],
        cpu_ms=1000 * spent / max(1, told["requests"]),
        errors=told["errors"],
    )


def _busy_s() -> float:
    """Return the CPU-seconds that this machine has been busy."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - getattr(times, "guest", 0.0))
