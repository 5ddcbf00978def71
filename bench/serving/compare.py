"""Requests per second of one variant: plain FastAPI, the gateway's code without Ray, and gateways by URL.

All in one run, interleaved, driven by wrk (one thread) with texts under 16 tokens, one text per request:

    python -m bench.serving.compare FAMILY VARIANT --url http://127.0.0.1:8000 --out bench.json

A gateway given by --url must serve the same family; it is asked for the variant by name (--model cascade
asks for the cascade). Its CPU time is not seen; that of the servers started here is read from /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

from bench.gateway.driving import SCRIPT
from bench.gateway.servers import free_port
from contract.family import Family, read_family
from runtime.encoders import load_encoder

HERE = Path(__file__).parent
MAX_TOKENS = 16
BODIES = 512
CLIENTS = (1, 16, 64)
FILLER = "shares rose after the bank cut its rates while the team won the final in extra time"


@dataclass(frozen=True)
class Peer:
    """A server under test."""

    name: str
    url: str
    process: psutil.Process | None

    def cpu_s(self) -> float:
        """CPU seconds used so far, where they can be seen."""
        if self.process is None:
            return 0.0
        times = self.process.cpu_times()
        return times.user + times.system


def short_texts(folder: Path, family: Family) -> list[str]:
    """Return texts under 16 tokens: the openings of the held-out texts, or made of common words."""
    wordpiece = next(spec for spec in family.encoders.values() if spec.kind == "wordpiece")
    encoder = load_encoder(folder, wordpiece)
    if family.data is not None:
        whole = pq.read_table(folder / family.data.path)["text"].to_pylist()
    else:
        words = FILLER.split()
        whole = [" ".join(words[i % len(words) :] + words[: i % 7]) for i in range(BODIES)]
    texts = []
    for text in whole[:BODIES]:
        words = text.split()[:12]
        while len(words) > 1 and encoder.encode([" ".join(words)]).lengths[0] >= MAX_TOKENS:
            words.pop()
        texts.append(" ".join(words))
    return texts


def write_script(path: Path, texts: list[str], model: str | None) -> None:
    """Write the wrk script that sends the texts in turn."""
    bodies = [json.dumps({"inputs": text} | ({"model": model} if model else {})) for text in texts]
    path.write_text(SCRIPT % ", ".join(f"[==[{body}]==]" for body in bodies))


@contextmanager
def server(name: str, script: str, *arguments: str) -> Iterator[Peer]:
    """Run one of the servers of this folder until the block ends."""
    port = free_port()
    family, variant, *rest = arguments
    process = subprocess.Popen(
        [sys.executable, str(HERE / script), family, variant, str(port), *rest],
        env=os.environ | {"PYTHONPATH": str(HERE.parents[1]), "TOKENIZERS_PARALLELISM": "false"},
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_it_answers(url, process)
        yield Peer(name, url, psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait()


def wait_until_it_answers(url: str, process: subprocess.Popen[bytes]) -> None:
    """Return once the server classifies; SystemExit if it ends before."""
    body = json.dumps({"inputs": "warm"}).encode()
    for _ in range(600):
        if process.poll() is not None:
            raise SystemExit(f"a server ended with {process.returncode}")
        try:
            request = urllib.request.Request(f"{url}/v1/classify", body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"{url} never answered")


def drive(peer: Peer, script: Path, clients: int, seconds: float) -> dict[str, Any]:
    """Run wrk once and return its figures, CPU milliseconds per request among them."""
    before = peer.cpu_s()
    done = subprocess.run(
        ["wrk", "-t1", f"-c{clients}", f"-d{seconds:g}s", "-s", str(script), f"{peer.url}/v1/classify"],
        check=True,
        capture_output=True,
        text=True,
    )
    figures: dict[str, Any] = json.loads(done.stdout.rpartition("RESULT ")[2])
    figures["per_s"] = figures["requests"] / figures["seconds"]
    figures["cpu_ms"] = 1e3 * (peer.cpu_s() - before) / figures["requests"] if peer.process else None
    return figures


def median(runs: list[dict[str, Any]], key: str) -> float | None:
    """Return the median over the rounds; None where it is not known."""
    values = [run[key] for run in runs if run[key] is not None]
    return statistics.median(values) if values else None


def main() -> None:
    """Measure, print a table, write the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("family", type=Path)
    parser.add_argument("variant")
    parser.add_argument("--url", action="append", default=[], help="a running gateway; may be given again")
    parser.add_argument("--model", help="what gateways by URL are asked for; default: the variant")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, nargs="+", default=list(CLIENTS))
    parser.add_argument(
        "--rules", nargs="+", default=["{}"], metavar="JSON", help='how it is batched: {"run_in": "loop"} ...'
    )
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    family = read_family(given.family)
    texts = short_texts(given.family, family)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        own, by_url = folder / "own.lua", folder / "url.lua"
        write_script(own, texts, None)
        write_script(by_url, texts, given.model or given.variant)
        base = (str(given.family), given.variant)
        peers = [(stack.enter_context(server("plain FastAPI", "plain_fastapi.py", *base)), own)]
        for rules in given.rules:
            name = f"gateway without Ray {'' if rules == '{}' else rules}".strip()
            peers.append((stack.enter_context(server(name, "our_gateway.py", *base, rules)), own))
        peers += [(Peer(url, url, None), by_url) for url in given.url]
        runs: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for peer, script in peers:
            drive(peer, script, 4, 1.0)
        for _ in range(given.rounds):
            for clients in given.clients:
                for peer, script in peers:
                    runs.setdefault((peer.name, clients), []).append(
                        drive(peer, script, clients, given.seconds)
                    )
    rows = []
    print("| server | clients | requests/s | p50 ms | p99 ms | CPU ms/request | of plain FastAPI | errors |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for (name, clients), found in runs.items():
        row: dict[str, Any] = {key: median(found, key) for key in ("per_s", "p50_ms", "p99_ms", "cpu_ms")}
        plain = median(runs["plain FastAPI", clients], "per_s") or 1.0
        row |= {"server": name, "clients": clients, "of_plain": (row["per_s"] or 0.0) / plain}
        row["errors"] = sum(run["errors"] for run in found)
        rows.append(row)
        cpu = "-" if row["cpu_ms"] is None else f"{row['cpu_ms']:.3f}"
        print(
            f"| {name} | {clients} | {row['per_s']:.0f} | {row['p50_ms']:.2f} | {row['p99_ms']:.1f} | {cpu} "
            f"| {row['of_plain']:.2f} | {row['errors']} |"
        )
    if given.out is not None:
        given.out.write_text(
            json.dumps({"variant": given.variant, "rows": rows, "runs": len(runs)}, indent=2)
        )


if __name__ == "__main__":
    main()
