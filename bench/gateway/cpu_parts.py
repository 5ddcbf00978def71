"""Where the CPU time of a request goes in the running gateway, against its parts measured alone.

    pip install py-spy
    python -m bench.gateway.cpu_parts --family FAMILY --policy POLICY [--model cascade] [--clients 16]

In the gateway: CPU time of HAProxy and of Ray's processes from /proc, that of the replicas' loops and lanes
split by a sampling profiler. Alone: each part by itself, in a loop or in a process of its own, one after the
other. Nothing else may run meanwhile. It needs `wrk`, and the right to trace its own children.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import httpx
import psutil
import pyarrow.parquet as pq
from prometheus_client.parser import text_string_to_metric_families

from bench.gateway.constant_replica import Constant
from bench.gateway.driving import drive
from bench.gateway.front_door import QUIET, haproxy, process, wait_until_it_answers
from bench.gateway.servers import Server, asking, free_port, gateway
from contract.family import Family, read_family
from contract.files import write_json
from contract.metrics import CPU_SECONDS
from contract.policy import Policy, Stage, read_policy
from router.decide.cascade import Answer, compile_policy
from runtime.api import LoadedVariant
from runtime.load import load_variant
from serve.dataplane.plane import DataPlane
from serve.local.front_end.install import find_haproxy
from serve.local.front_end.wrapper import FRONT_END
from serve.settings.gateway import Settings
from serve.settings.limits import RequestLimits
from serve.types.messages import CASCADE, ClassifyRequest, ClassifyResult
from serve.types.recorder import NoRecorder
from serve.types.stage import Snapshot

PARTS = ("HAProxy", "HTTP and data plane", "encoding", "inference", "escalation", "Ray")
CONSTANT = Path(__file__).with_name("constant_replica.py")
WARM_S = 1.0
REPLICAS = Settings(family="/").gateway_replicas
RATE_HZ = 400
_INSIDE = (
    ("inference", ("_run (runtime/onnx_model.py", "logits (runtime/ngrams/", "__call__ (runtime/ngrams/")),
    ("encoding", ("encode (runtime/",)),
    ("escalation", ("_escalate (serve/dataplane/", "answer (serve/dataplane/request_state")),
)


@dataclass(frozen=True)
class Loaded:
    """What the parts alone are measured with."""

    family: Family
    policy: Policy
    variants: Mapping[str, LoadedVariant]
    ways: Sequence[tuple[str, list[str]]]
    """Each text, with the variants that it goes through."""


def main() -> None:
    """Measure, print the table, write the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.gateway.cpu_parts")
    parser.add_argument("--family", type=Path, required=True)
    parser.add_argument("--policy", type=Path, required=True)
    parser.add_argument("--model", default="cascade")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = compared_parts(given.family, given.policy, given.model, given.clients, given.seconds)
    print(f"{given.model}, {given.clients} clients, {found['per_s']:.0f} requests/s; CPU ms per request:\n")
    print("\n".join(table(found["in_the_gateway"], found["alone"])))
    if given.out is not None:
        write_json(given.out, found)


def compared_parts(
    family: Path, policy: Path, model: str, clients: int, seconds: float = 6.0
) -> dict[str, Any]:
    """Return the CPU ms per request by part, in the gateway and alone, and what they were measured with."""
    loaded = load(family, read_policy(policy), model)
    texts = [text for text, _ in loaded.ways]
    whole, per_s = in_the_gateway(family, policy, model, texts, clients, seconds)
    alone = parts_alone(family, loaded, model, per_s, clients)
    figures = {"model": model, "clients": clients, "per_s": per_s}
    return figures | {"in_the_gateway": whole, "alone": alone}


def table(whole: Mapping[str, float], alone: Mapping[str, float]) -> list[str]:
    """Return the lines of a table in Markdown: each part, and all, in the gateway and alone."""
    lines = ["| part | in the gateway | alone | ratio |", "| --- | --- | --- | --- |"]
    for part in PARTS:
        ratio = f"{whole[part] / alone[part]:.2f}" if alone[part] > 0 else "-"
        lines.append(f"| {part} | {whole[part]:.4f} | {alone[part]:.4f} | {ratio} |")
    total, sum_alone = sum(whole.values()), sum(alone.values())
    return [*lines, f"| all | {total:.4f} | {sum_alone:.4f} | {total / sum_alone:.2f} |"]


def in_the_gateway(
    family: Path, policy: Path, model: str, texts: list[str], clients: int, seconds: float
) -> tuple[dict[str, float], float]:
    """Return the CPU ms per request by part, and the requests per second."""
    with gateway(family, policy, {}, model) as server, tempfile.TemporaryDirectory() as scratch:
        mine = [each for each in psutil.Process().children(recursive=True) if "haproxy" not in _line_of(each)]
        drive(server, texts, clients, WARM_S)
        replicas = [
            each for each in mine if _line_of(each).startswith("ray::ServeReplica:sluicegate:gateway")
        ]
        before = _cpu_s(mine), _working_s(replicas), 0.0, _by_variants_s(server)
        proxies = _proxies(server)
        driven = drive(server, texts, clients, seconds)
        proxied = sum(spent - proxies.get(pid, 0.0) for pid, spent in _proxies(server).items())
        after = _cpu_s(mine), _working_s(replicas), proxied, _by_variants_s(server)
        requests = driven.per_s * seconds
        every, working, proxy, models = (b - a for a, b in zip(before, after, strict=True))
        samples = _profile(replicas[0], server, texts, clients, Path(scratch))
    ours = samples["encoding"] + samples["inference"]
    whole = {part: models * samples[part] / ours for part in ("encoding", "inference", "escalation")}
    whole["HTTP and data plane"] = working - sum(whole.values())
    whole["HAProxy"], whole["Ray"] = proxy, every - working
    return {part: 1e3 * whole[part] / requests for part in PARTS}, driven.per_s


def _proxies(server: Server) -> dict[int, float]:
    """Return the CPU seconds of the HAProxys of the gateway at that address: processes come and go."""
    port = str(httpx.URL(server.url).port)
    found = {}
    for each in psutil.process_iter():
        with _gone():
            if "haproxy" in each.name() and f'"port": {port},' in each.environ().get(FRONT_END, ""):
                times = each.cpu_times()
                found[each.pid] = times.user + times.system
    return found


def _by_variants_s(server: Server) -> float:
    """Return the CPU seconds that the gateway has counted for variants, on the loop and in lanes."""
    page = httpx.get(str(httpx.URL(server.url).join("/metrics")), trust_env=False, timeout=10).text
    return sum(
        sample.value
        for metric in text_string_to_metric_families(page)
        for sample in metric.samples
        if sample.name == CPU_SECONDS.name and sample.labels["variant"] != "gateway"
    )


def _line_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _cpu_s(processes: list[psutil.Process]) -> float:
    """Return CPU seconds of processes; HAProxy is counted by itself, and Python's resource tracker not."""
    found = 0.0
    for each in processes:
        with _gone():
            times = each.cpu_times()
            if "multiprocessing" not in _line_of(each):
                found += times.user + times.system
    return found


def _working_s(replicas: list[psutil.Process]) -> float:
    """Return the CPU seconds of the threads that answer requests: the one of Python's loop, and our lanes.

    The other threads of a replica are Ray's own.
    """
    found = 0.0
    for replica in replicas:
        for thread in replica.threads():
            try:
                name = Path(f"/proc/{replica.pid}/task/{thread.id}/comm").read_text().strip()
            except OSError:
                continue
            if (
                name.startswith(("ray::", "python", "asyncio", "AsyncIO", "Thread"))
                or thread.id == replica.pid
            ):
                found += thread.user_time + thread.system_time
    return found


def _profile(
    replica: psutil.Process, server: Server, texts: list[str], clients: int, scratch: Path
) -> Counter[str]:
    """Return how often a replica's threads were seen in each part under load."""
    raw = scratch / "stacks"
    recorder = subprocess.Popen(
        ["py-spy", "record", "-p", str(replica.pid), "-d", "4", "-r", str(RATE_HZ), "-F", "-f", "raw",
         "-o", str(raw)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"PATH": _path()},
    )  # fmt: skip
    drive(server, texts, clients, 5.0)
    if recorder.wait(30):
        raise SystemExit("py-spy could not trace the replica")
    counted: Counter[str] = Counter()
    for line in raw.read_text().splitlines():
        stack, _, samples = line.rpartition(" ")
        part = next((part for part, frames in _INSIDE if any(frame in stack for frame in frames)), "")
        counted[part] += int(samples)
    return counted


def _path() -> str:
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def parts_alone(folder: Path, loaded: Loaded, model: str, per_s: float, clients: int) -> dict[str, float]:
    """Return the CPU ms of each part of a request, measured by itself."""
    found = dict.fromkeys(PARTS, 0.0)
    found["encoding"], found["inference"] = _models_ms(folder, loaded.policy, model, REPLICAS)
    found["escalation"] = _escalation_ms(loaded)
    found["HTTP and data plane"], found["HAProxy"] = _http_ms(folder, loaded, clients)
    found["Ray"] = _idle_ms(folder, loaded, per_s)
    return found


def _models_ms(folder: Path, policy: Policy, model: str, processes: int) -> tuple[float, float]:
    """Return the CPU ms of encoding and of inference per text, in as many processes at once as replicas.

    One process alone has the caches and the memory to itself, which no replica has under load.
    """
    given = (str(folder), policy.model_dump_json(), model)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        found = list(pool.map(_models_of, *([value] * processes for value in given)))
    return statistics.mean(one for one, _ in found), statistics.mean(other for _, other in found)


def _models_of(folder: str, policy_json: str, model: str) -> tuple[float, float]:
    """Return the same of one process: every text through its stages in their order, round after round."""
    policy = Policy.model_validate_json(policy_json)
    loaded = load(Path(folder), policy, model)
    rounds: list[tuple[float, float]] = []
    until = time.monotonic() + 6.0
    while time.monotonic() < until:
        encoding = inference = 0.0
        cpu, wall = time.thread_time(), time.perf_counter()
        for text, names in loaded.ways:
            for name in names:
                variant = loaded.variants[name]
                started = time.perf_counter()
                encoded = variant.encoder.encode([text])
                between = time.perf_counter()
                variant.runtime.logits(encoded)
                encoding += between - started
                inference += time.perf_counter() - between
        share = (time.thread_time() - cpu) / (time.perf_counter() - wall)
        scale = 1e3 * share / len(loaded.ways)
        rounds.append((scale * encoding, scale * inference))
    return statistics.median(one for one, _ in rounds), statistics.median(other for _, other in rounds)


def load(folder: Path, policy: Policy, model: str) -> Loaded:
    """Return what the parts alone are measured with. Raises SystemExit for a family without texts."""
    family = read_family(folder, verify=False)
    if family.data is None:
        raise SystemExit("the family holds no texts")
    texts = [str(text) for text in pq.read_table(folder / family.data.path)["text"].to_pylist()[-512:]]
    names = [stage.variant for stage in policy.stages] if model == "cascade" else [model]
    variants = {name: load_variant(folder, family, name) for name in names}
    return Loaded(family, policy, variants, _ways(policy, family, variants, texts, model))


def _ways(
    policy: Policy, family: Family, variants: Mapping[str, LoadedVariant], texts: list[str], model: str
) -> list[tuple[str, list[str]]]:
    """Return every text with the variants that it goes through, by the policy itself."""
    if model != "cascade":
        return [(text, [model]) for text in texts]
    compiled = compile_policy(policy, family.labels)
    found = []
    for text in texts:
        names: list[str] = []
        index = 0
        while True:
            rules = compiled.stages[index]
            names.append(rules.variant)
            one = rules.score_one(variants[rules.variant].logits([text])[0])
            verdict = compiled.decide(index, one.predicted, one.score)
            if isinstance(verdict, Answer):
                break
            index = verdict.next_index
        found.append((text, names))
    return found


def _escalation_ms(loaded: Loaded) -> float:
    """Return what it costs that texts go on, per request: a data plane of two stages that do nothing.

    One in which every text goes on, less one in which none does.
    """
    gone_on = sum(len(names) - 1 for _, names in loaded.ways) / len(loaded.ways)
    if not gone_on:
        return 0.0
    spent = [_classify_ms(loaded, threshold) for threshold in (1.0, 0.0)]
    return gone_on * (spent[0] - spent[1])


def _classify_ms(loaded: Loaded, threshold: float) -> float:
    names = list(loaded.variants)[:2]
    policy = Policy(
        status="uncertified",
        reference=names[1],
        stages=(Stage(variant=names[0], threshold=threshold), Stage(variant=names[1])),
    ).sealed()
    family = loaded.family
    stages = {name: Constant(name, len(family.labels)) for name in names}
    snapshot = Snapshot(1, policy, compile_policy(policy, family.labels), family, stages)
    plane = DataPlane(lambda: snapshot, RequestLimits(), NoRecorder())
    texts = [text for text, _ in loaded.ways]

    async def once() -> float:
        started = time.process_time()
        for text in texts:
            found = plane.begin(ClassifyRequest(CASCADE, [text], None, time.monotonic()))
            if not isinstance(found, ClassifyResult):
                await asyncio.get_running_loop().create_task(found)
        return time.process_time() - started

    async def least() -> float:
        return min([await once() for _ in range(5)])

    return 1e3 * asyncio.run(least()) / len(texts)


def _http_ms(folder: Path, loaded: Loaded, clients: int) -> tuple[float, float]:
    """Return CPU ms per request of a replica whose stage does nothing, and of an HAProxy in front of it."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = free_port()
        stack.enter_context(
            process(sys.executable, str(CONSTANT), str(folder), str(port), log=scratch / "log")
        )
        config, front = haproxy(scratch, "alone", [f"127.0.0.1:{port}"], logs=False, options=QUIET)
        stack.enter_context(process(find_haproxy(), "-f", config, "-db", log=scratch / "log"))
        server = Server(f"http://127.0.0.1:{front}/v1/classify", asking("cascade"))
        wait_until_it_answers(server.url)
        drive(server, [text for text, _ in loaded.ways], clients, WARM_S)
        mine = psutil.Process().children(recursive=True)
        before = _cpu_by_name(mine)
        driven = drive(server, [text for text, _ in loaded.ways], clients, 3.0)
        after = _cpu_by_name(mine)
    requests = driven.per_s * 3.0
    proxy = sum(after[pid][1] - before[pid][1] for pid in after if "haproxy" in after[pid][0])
    replica = sum(after[pid][1] - before[pid][1] for pid in after if "python" in after[pid][0])
    return 1e3 * replica / requests, 1e3 * proxy / requests


def _cpu_by_name(processes: list[psutil.Process]) -> dict[int, tuple[str, float]]:
    found = {}
    for each in processes:
        with _gone():
            times = each.cpu_times()
            found[each.pid] = (each.name(), times.user + times.system)
    return found


@contextmanager
def _gone() -> Iterator[None]:
    try:
        yield
    except psutil.Error:
        return


def _idle_ms(folder: Path, loaded: Loaded, per_s: float) -> float:
    """Return what Ray's processes use without any request, as a share of a second's requests."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "policy.json"
        write_json(path, loaded.policy.dump())
        with gateway(folder, path, {}):
            time.sleep(3)
            mine = psutil.Process().children(recursive=True)
            mine = [each for each in mine if "haproxy" not in _line_of(each)]
            before = _cpu_s(mine)
            time.sleep(5)
            used = _cpu_s(mine) - before
    return 1e3 * used / 5 / per_s


if __name__ == "__main__":
    main()
