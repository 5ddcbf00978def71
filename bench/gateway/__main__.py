"""`python -m bench.gateway`: search every peer's best settings, run all side by side, write the page.

    python -m bench.gateway --family FAMILY --policy POLICY --student student-int8 --teacher teacher

FAMILY is one of short texts whose POLICY is a cascade that starts with cheaper stages than the student.
Nothing else may run meanwhile. It needs `wrk` (Debian's package) and makes an environment per peer, once.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.gateway import page
from bench.gateway.driving import drive
from bench.gateway.search import CLIENTS, SPACE, best, search
from bench.gateway.servers import Options, Places, Server, asking, gateway, hand_over, running
from bench.gateway.texts import short_texts
from contract.family import read_family
from contract.files import write_json, write_text
from contract.policy import read_policy
from runtime.machine import describe_machine


@dataclass(frozen=True)
class Arm:
    """One thing compared: how its server is started, and at which numbers of clients it is driven."""

    name: str
    start: Callable[[], AbstractContextManager[Server, bool | None]]
    models: tuple[tuple[str, str], ...] = ()
    clients: tuple[int, ...] = CLIENTS


def main() -> None:
    """Measure all, and write the figures and the page."""
    parser = argparse.ArgumentParser(prog="python -m bench.gateway")
    parser.add_argument("--family", type=Path, required=True)
    parser.add_argument("--policy", type=Path, required=True, help="the cascade that is judged")
    parser.add_argument(
        "--beside",
        type=Path,
        action="append",
        default=[],
        help="another policy, shown beside it; may be repeated",
    )
    parser.add_argument("--student", default="student-int8", help="the variant that peers serve")
    parser.add_argument("--teacher", default="teacher", help="the variant that is asked for by name")
    parser.add_argument("--peers", default=",".join(SPACE))
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--environments", type=Path, default=Path(".sluicegate/peers"))
    parser.add_argument("--figures", type=Path, default=Path(".sluicegate/gateway.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/benchmarks/gateway.md"))
    parser.add_argument("--searched", type=Path, help="figures of an earlier search, in place of a new one")
    given = parser.parse_args()
    family = read_family(given.family)
    texts = short_texts(given.family, family)
    with tempfile.TemporaryDirectory() as scratch:
        hand_over(given.family, family, given.student, Path(scratch))
        places = Places(given.environments.resolve(), Path(scratch))
        figures = measure(given, places, texts)
    figures |= {
        "machine": describe_machine().model_dump(mode="json"),
        "family": {"name": family.name, "sha256": family.sha256},
        "texts": len(texts),
        "policy": page.named(read_policy(given.policy)),
        "seconds": given.seconds,
        "rounds": given.rounds,
    }
    write_json(given.figures, figures)
    write_text(given.page, page.render(figures))
    print(f"written {given.page}")


def measure(given: argparse.Namespace, places: Places, texts: list[str]) -> dict[str, Any]:
    """Return what the search and the comparison found."""
    peers = given.peers.split(",")
    if given.searched is None:
        tried = [one for peer in peers for one in search(peer, places, texts, given.seconds)]
        searched = [one.to_json() for one in tried]
        chosen = {(peer, clients): best(tried, peer, clients) for peer in peers for clients in CLIENTS}
    else:
        searched = json.loads(given.searched.read_text(encoding="utf-8"))["searched"]
        chosen = {(peer, clients): _best_of(searched, peer, clients) for peer in peers for clients in CLIENTS}
    arms = [arm for peer in peers for arm in _peer_arms(peer, chosen, places)]
    family = given.family.resolve()
    ours = ((given.student, "student"), ("cascade", page.CASCADE), (given.teacher, "teacher"))
    arms.append(Arm("gateway", partial(gateway, family, given.policy.resolve()), ours))
    arms += [
        Arm(
            "gateway",
            partial(gateway, family, policy.resolve()),
            (("cascade", page.named(read_policy(policy))),),
        )
        for policy in given.beside
    ]
    compared: list[dict[str, Any]] = []
    for number in range(given.rounds):
        for arm in arms[:: 1 if number % 2 == 0 else -1]:
            with arm.start() as server:
                served = [(name, Server(server.url, asking(model))) for model, name in arm.models]
                for name, one in served or [(arm.name, server)]:
                    drive(one, texts, 4, 1.0)
                    for clients in arm.clients:
                        driven = drive(one, texts, clients, given.seconds)
                        compared.append({"server": name, "round": number} | driven.to_json())
                        print(f"{name}: {driven.per_s:.0f}/s at {clients} clients", file=sys.stderr)
    return {"searched": searched, "compared": compared}


def _peer_arms(peer: str, chosen: dict[tuple[str, int], Options], places: Places) -> list[Arm]:
    """Return an arm per setting that is best at some number of clients."""
    by_options: dict[str, list[int]] = {}
    for clients in CLIENTS:
        by_options.setdefault(json.dumps(dict(chosen[peer, clients])), []).append(clients)
    return [
        Arm(peer, partial(running, peer, json.loads(options), places), clients=tuple(clients))
        for options, clients in by_options.items()
    ]


def _best_of(searched: list[dict[str, Any]], peer: str, clients: int) -> Options:
    def rate(one: dict[str, Any]) -> float:
        return float(next(d["per_s"] for d in one["driven"] if d["clients"] == clients))

    options: Options = max((one for one in searched if one["peer"] == peer), key=rate)["options"]
    return options


if __name__ == "__main__":
    main()
