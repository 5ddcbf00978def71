"""What stands between clients and replicas, and what it costs: HAProxy's settings, and no HAProxy at all.

    python -m bench.gateway.front_door --family FAMILY --policy POLICY [--replicas 2]

The gateway's code without Ray, in as many processes as a gateway has replicas, behind each of the front doors
in turn, in one run: HAProxy as Ray configures it, the same with one thing changed, HAProxy over Unix sockets,
and one port that all replicas share (SO_REUSEPORT). Nothing else may run meanwhile. It needs `wrk`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psutil
import pyarrow.parquet as pq

from bench.gateway.driving import drive
from bench.gateway.servers import REPLICA, Server, asking, free_port
from contract.family import read_family
from contract.files import write_json
from serve.local.front_end.install import find_haproxy

CLIENTS = (1, 16, 64)
AS_RAY = ("option splice-request", "option splice-response", "option httplog", "option abortonclose")
QUIET = ("option abortonclose",)

_CONFIG = """global
    maxconn 1000
    nbthread {threads}
    tune.bufsize 16384
    {log}
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout http-keep-alive 60s
    option http-no-delay
    option idle-close-on-response
    balance {balance}
    {options}
frontend f
    bind 127.0.0.1:{port}
    {log_here}
    default_backend b
backend b
    http-reuse always
    option httpchk GET /v2/health/live
    {servers}
"""


@contextmanager
def process(*command: str, log: Path) -> Iterator[psutil.Process]:
    """Run a command until the block ends."""
    environ = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with log.open("ab") as out:
        found = subprocess.Popen(command, stdout=out, stderr=out, env=environ)
        try:
            yield psutil.Process(found.pid)
        finally:
            found.terminate()
            found.wait(20)


def wait_until_it_answers(url: str, seconds: float = 60.0) -> None:
    """Return once a server classifies. Raises SystemExit where it does not."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if httpx.post(url, json={"inputs": "warm"}, timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"{url} never answered")


def _cpu_s(processes: list[psutil.Process]) -> float:
    times = [each.cpu_times() for each in processes]
    return sum(each.user + each.system for each in times)


def haproxy(folder: Path, name: str, servers: list[str], **changed: object) -> tuple[str, int]:
    """Write a configuration; return its path, and its port."""
    port = free_port()
    given: dict[str, object] = {
        "threads": 1,
        "balance": "leastconn",
        "options": AS_RAY,
        "logs": True,
    } | changed
    options = given["options"]
    assert isinstance(options, tuple)
    path = folder / f"{name}.cfg"
    path.write_text(
        _CONFIG.format(
            threads=given["threads"],
            balance=given["balance"],
            log="log 127.0.0.1:514 local0 info" if given["logs"] else "",
            log_here="log global" if given["logs"] else "",
            options="\n    ".join(options),
            port=port,
            servers="\n    ".join(f"server s{i} {where} check" for i, where in enumerate(servers)),
        )
    )
    return str(path), port


def main() -> None:
    """Measure, print a table, write the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.gateway.front_door")
    parser.add_argument("--family", type=Path, required=True)
    parser.add_argument("--policy", type=Path, required=True)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", help="names of front doors, comma-separated")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    family = read_family(given.family, verify=False)
    if family.data is None:
        raise SystemExit("the family holds no texts")
    texts = [str(text) for text in pq.read_table(given.family / family.data.path)["text"].to_pylist()[-512:]]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        shared = free_port()
        ports = [free_port() for _ in range(given.replicas)]
        paths = [str(folder / f"{i}.sock") for i in range(given.replicas)]
        replicas: list[psutil.Process] = []
        command = (sys.executable, str(REPLICA), str(given.family), str(given.policy))
        for port, path in zip(ports, paths, strict=True):
            where = (f"127.0.0.1:{port}", f"127.0.0.1:{shared}:shared", path)
            replicas.append(stack.enter_context(process(*command, *where, log=folder / "log")))
        tcp = [f"127.0.0.1:{port}" for port in ports]
        configs = {
            "HAProxy as Ray has it": haproxy(folder, "ray", tcp),
            "no log lines": haproxy(folder, "quiet", tcp, logs=False),
            "neither log lines nor splicing": haproxy(folder, "nosplice", tcp, logs=False, options=QUIET),
            "the same with 2 threads": haproxy(folder, "two", tcp, logs=False, options=QUIET, threads=2),
            "the same in round robin": haproxy(
                folder, "rr", tcp, logs=False, options=QUIET, balance="roundrobin"
            ),
            "the same over Unix sockets": haproxy(
                folder, "unix", [f"unix@{path}" for path in paths], logs=False, options=QUIET
            ),
        }
        doors = {"one shared port without HAProxy": shared} | {
            name: port for name, (_, port) in configs.items()
        }
        if given.only:
            doors = {name: port for name, port in doors.items() if name in given.only.split(",")}
        proxies = {
            name: stack.enter_context(process(find_haproxy(), "-f", config, "-db", log=folder / "log"))
            for name, (config, _) in configs.items()
            if name in doors
        }
        for port in doors.values():
            wait_until_it_answers(f"http://127.0.0.1:{port}/v1/classify")
        runs: dict[tuple[str, int], list[dict[str, float]]] = {}
        for _ in range(given.rounds):
            for clients in CLIENTS:
                for name, port in doors.items():
                    server = Server(f"http://127.0.0.1:{port}/v1/classify", asking("cascade"))
                    spent = _cpu_s(replicas), _cpu_s([proxies[name]] if name in proxies else [])
                    found = drive(server, texts, clients, given.seconds)
                    requests = found.per_s * given.seconds
                    inside = 1e3 * (_cpu_s(replicas) - spent[0]) / requests
                    proxy = 1e3 * (_cpu_s([proxies[name]] if name in proxies else []) - spent[1]) / requests
                    row = found.to_json() | {"replica_ms": inside, "proxy_ms": proxy}
                    runs.setdefault((name, clients), []).append(row)
    print(
        "| front door | clients | requests/s | p50 ms | p99 ms | replica, CPU ms | HAProxy, CPU ms | errors |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    rows = []
    for (name, clients), found_here in runs.items():
        row = {key: statistics.median(each[key] for each in found_here) for key in found_here[0]}
        rows.append({"front_door": name} | row)
        print(
            f"| {name} | {clients} | {row['per_s']:.0f} | {row['p50_ms']:.2f} | {row['p99_ms']:.1f} "
            f"| {row['replica_ms']:.3f} | {row['proxy_ms']:.3f} | {row['errors']:.0f} |"
        )
    if given.out is not None:
        write_json(given.out, {"rows": rows})


if __name__ == "__main__":
    main()
