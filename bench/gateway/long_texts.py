"""`python -m bench.gateway.long_texts`: long texts, batched by length or padded to the cap.

    sluice compress bench/gateway/long_texts.yaml --out FAMILY
    python -m bench.gateway.long_texts --family FAMILY

BBC News articles are cut to 128 and to 256 tokens, and once more to lengths drawn evenly up to that, since
whole articles all reach the cap. Nothing else may run meanwhile. Figures are kept server by server: a run
that was ended goes on with those that lack.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from bench.gateway.driving import drive
from bench.gateway.servers import Places, Server, asking, gateway, hand_over, running
from contract.family import Family, read_family
from contract.files import write_json, write_text
from contract.policy import single_variant_policy
from runtime.encoders import load_encoder
from runtime.machine import describe_machine

CAPS = (128, 256)
CLIENTS = 16
TEXTS = 256
VARIANTS = ("student-int8", "teacher")
LEAST_TOKENS = 8
INTRODUCTION = f"""\
BBC News articles cut to 128 and 256 tokens (`whole`), and to lengths drawn evenly from {LEAST_TOKENS} tokens
up to that (`mixed`); one text a request, {CLIENTS} clients, {{seconds:g}} s each, `wrk` on the same cores.
Machine: {{cpu}}, {{cores:g}} cores."""
HEADINGS = "| variant | cap | texts | mean tokens | server | requests/s | p50 ms | p99 ms | CPU ms/request |"
PEERS: dict[str, tuple[str, dict[str, int]]] = {
    "FastAPI, padded to the cap": ("fastapi", {"WORKERS": 2}),
    "FastAPI, one by one": ("fastapi", {"WORKERS": 2}),
    "LitServe, batches of 16": ("litserve", {"WORKERS": 2, "BATCH": 16, "FAST": 1}),
}

GATEWAYS: dict[str, dict[str, Any]] = {
    "**gateway**, a process of its own": {"threads": 2},
    "**gateway**, inside its replicas": {"placement": "inline"},
}


def main() -> None:
    """Measure all, and write the figures and the page."""
    parser = argparse.ArgumentParser(prog="python -m bench.gateway.long_texts")
    parser.add_argument("--family", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--environments", type=Path, default=Path(".sluicegate/peers"))
    parser.add_argument("--figures", type=Path, default=Path(".sluicegate/long-texts.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/benchmarks/long-texts.md"))
    given = parser.parse_args()
    family = read_family(given.family)
    mixes = {
        (cap, mix): cut(given.family, family, cap, given.seed if mix == "mixed" else None)
        for cap in CAPS
        for mix in ("whole", "mixed")
    }
    figures: dict[str, Any] = {"found": []}
    if given.figures.exists():
        figures = json.loads(given.figures.read_text(encoding="utf-8"))
        if figures["family"] != family.sha256:
            raise SystemExit(f"{given.figures} is of another family: remove it, or name another --figures")
    figures |= {
        "machine": describe_machine().model_dump(mode="json"),
        "family": family.sha256,
        "seconds": given.seconds,
    }
    for cap, variant in ((cap, variant) for cap in CAPS for variant in VARIANTS):
        for name, start in _servers(given, family, variant, cap):
            of_what = {"server": name, "variant": variant, "cap": cap}
            if any(of_what.items() <= one.items() for one in figures["found"]):
                continue
            figures["found"] += _driven(start, of_what, mixes, given.seconds)
            write_json(given.figures, figures)
    write_text(given.page, render(figures))
    print(f"written {given.page}")


def _driven(
    start: Callable[[], AbstractContextManager[Server, bool | None]],
    of_what: dict[str, Any],
    mixes: dict[tuple[int, str], tuple[list[str], float]],
    seconds: float,
) -> list[dict[str, Any]]:
    """Return what a server does with both mixes of its cap."""
    found = []
    with start() as server:
        for mix in ("whole", "mixed"):
            texts, tokens = mixes[of_what["cap"], mix]
            drive(server, texts, 4, 1.0)
            driven = drive(server, texts, CLIENTS, seconds)
            found.append(of_what | {"mix": mix, "tokens": tokens} | driven.to_json())
            print(f"{of_what}, {mix}: {driven.per_s:.0f}/s", file=sys.stderr)
    return found


def cut(folder: Path, family: Family, cap: int, seed: int | None) -> tuple[list[str], float]:
    """Return held-out articles cut to `cap` tokens, or to lengths drawn up to it, and their mean tokens."""
    if family.data is None:
        raise SystemExit("the family keeps no data to send")
    spec = next(spec for spec in family.encoders.values() if spec.kind == "wordpiece")
    encoder = load_encoder(folder, spec)
    rng = None if seed is None else np.random.default_rng(seed)
    texts = []
    for text in pq.read_table(folder / family.data.path)["text"].to_pylist()[:TEXTS]:
        wanted = cap if rng is None else int(rng.integers(LEAST_TOKENS, cap + 1))
        words = str(text).split()[:wanted]
        while len(words) > 1 and encoder.encode([" ".join(words)]).lengths[0] > wanted:
            words = words[: max(1, len(words) - max(1, len(words) // 16))]
        texts.append(" ".join(words))
    return texts, float(encoder.encode(texts).lengths.mean())


def _servers(
    given: argparse.Namespace, family: Family, variant: str, cap: int
) -> Iterator[tuple[str, Callable[[], AbstractContextManager[Server, bool | None]]]]:
    """Yield each server by name, with what starts it."""
    with tempfile.TemporaryDirectory() as scratch:
        hand_over(given.family, family, variant, Path(scratch), cap)
        places = Places(given.environments.resolve(), Path(scratch))
        for name, (peer, options) in PEERS.items():
            padded = {"PAD_TO": cap} if "cap" in name else {}
            yield name, partial(running, peer, options | padded, places)
        for name, stage in GATEWAYS.items():
            yield name, partial(_gateway, given.family.resolve(), variant, Path(scratch), stage)


@contextmanager
def _gateway(folder: Path, variant: str, scratch: Path, stage: dict[str, Any]) -> Iterator[Server]:
    policy = scratch / "policy.json"
    write_json(policy, single_variant_policy(variant).dump())
    with gateway(folder, policy, {"stage": stage}) as server:
        yield Server(server.url, asking(variant))


def render(figures: dict[str, Any]) -> str:
    """Return the page in Markdown."""
    return "\n".join(
        [
            "# Long texts: batches by length against padding everything",
            "",
            INTRODUCTION.format(**figures, **figures["machine"]),
            "",
            HEADINGS,
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
            *(
                f"| {one['variant']} | {one['cap']} | {one['mix']} | {one['tokens']:.0f} | {one['server']} "
                f"| {one['per_s']:,.0f} | {one['p50_ms']:.1f} | {one['p99_ms']:.1f} | {one['cpu_ms']:.2f} |"
                for one in sorted(figures["found"], key=lambda o: (o["variant"], o["cap"], o["mix"]))
            ),
            "",
            *_ratios(figures["found"]),
            "",
            "To measure again, with nothing else running (a run that was ended goes on):",
            "",
            "    sluice compress bench/gateway/long_texts.yaml --out FAMILY",
            "    python -m bench.gateway.long_texts --family FAMILY",
            "",
        ]
    )


def _ratios(found: list[dict[str, Any]]) -> list[str]:
    """Return a line per variant, cap and mix: the gateway against padding everything, and the best peer."""
    lines = [
        "Requests per second of the gateway, inside its replicas, against the model padded to the cap, and",
        "against the best of the three peers:",
        "",
        "| variant | cap | texts | padded to the cap | best peer |",
        "| --- | --- | --- | --- | --- |",
    ]
    ours = [one for one in found if "inside" in one["server"]]
    for one in sorted(ours, key=lambda o: (o["variant"], o["cap"], o["mix"])):
        same = ("variant", "cap", "mix")
        peers = {
            other["server"]: other["per_s"]
            for other in found
            if other["server"] in PEERS and all(other[key] == one[key] for key in same)
        }
        best = max(peers, key=lambda name: peers[name])
        padded = next(rate for name, rate in peers.items() if "cap" in name)
        lines.append(
            f"| {one['variant']} | {one['cap']} | {one['mix']} | {one['per_s'] / padded:.2f} "
            f"| {one['per_s'] / peers[best]:.2f} ({best}) |"
        )
    return lines


if __name__ == "__main__":
    main()
