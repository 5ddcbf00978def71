"""`python -m bench.gateway`: search every peer's best settings, run all side by side, write the page.

    python -m bench.gateway --family FAMILY --policy POLICY --student student-int8 --teacher teacher

FAMILY is one of short texts whose POLICY is a cascade that starts with cheaper stages than the student.
Nothing else may run meanwhile. It needs `wrk` (Debian's package) and makes an environment per peer, once.
Figures are kept as they come: what they hold is not searched again, `--only` does one part, rounds add up.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.gateway import page
from bench.gateway.cpu_parts import compared_parts
from bench.gateway.driving import drive
from bench.gateway.search import CLIENTS, SPACE, search
from bench.gateway.servers import Options, Places, Server, asking, gateway, hand_over, running
from bench.gateway.texts import short_texts
from contract.family import read_family
from contract.files import write_json, write_text
from contract.policy import read_policy
from runtime.machine import describe_machine

PARTS = ("search", "rounds", "cpu")
CPU_CLIENTS = 16


@dataclass(frozen=True)
class Arm:
    """One thing compared: how its server is started, and at which numbers of clients it is driven."""

    name: str
    start: Callable[[], AbstractContextManager[Server, bool | None]]
    models: tuple[tuple[str, str], ...] = ()
    clients: tuple[int, ...] = CLIENTS


def main() -> None:
    """Measure what is asked for, keep the figures, and write the page."""
    given = _arguments()
    family = read_family(given.family)
    of_what = {
        "machine": describe_machine().model_dump(mode="json"),
        "family": {"name": family.name, "sha256": family.sha256},
        "policy": page.named(read_policy(given.policy)),
        "student": given.student,
    }
    figures: dict[str, Any] = {"searched": [], "compared": [], "cpu": []}
    if given.figures.exists():
        figures = json.loads(given.figures.read_text(encoding="utf-8"))
        if other := [name for name, value in of_what.items() if figures[name] != value]:
            raise SystemExit(
                f"{given.figures} is of another {other[0]}: remove it, or name another --figures"
            )
    texts = short_texts(given.family, family)
    figures |= of_what | {"texts": len(texts), "seconds": given.seconds}
    with tempfile.TemporaryDirectory() as scratch:
        hand_over(given.family, family, given.student, Path(scratch))
        places = Places(given.environments.resolve(), Path(scratch))
        for _ in measured(given, places, texts, figures):
            write_json(given.figures, figures)
    write_text(given.page, page.render(figures))
    print(f"written {given.page}")


def _arguments() -> argparse.Namespace:
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
    parser.add_argument("--rounds", type=int, default=3, help="so many more")
    parser.add_argument("--only", choices=PARTS, help="one part; all by default")
    parser.add_argument("--environments", type=Path, default=Path(".sluicegate/peers"))
    parser.add_argument("--figures", type=Path, default=Path(".sluicegate/gateway.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/benchmarks/gateway.md"))
    return parser.parse_args()


def measured(
    given: argparse.Namespace, places: Places, texts: list[str], figures: dict[str, Any]
) -> Iterator[None]:
    """Add what is asked for to the figures, and yield after every piece of it."""
    if given.only in {None, "search"}:
        for peer in given.peers.split(","):
            if not any(one["peer"] == peer for one in figures["searched"]):
                found = search(peer, places, texts, given.seconds)
                figures["searched"] += [one.to_json() for one in found]
                yield
    if given.only in {None, "rounds"}:
        arms = [*_peer_arms(figures["searched"], places), *_own_arms(given)]
        for _ in range(given.rounds):
            figures["compared"] += one_round(arms, page.rounds(figures), texts, given.seconds)
            yield
    if given.only in {None, "cpu"}:
        for model, name in ((given.student, "student"), ("cascade", page.CASCADE)):
            found_parts = compared_parts(given.family, given.policy, model, CPU_CLIENTS)
            figures["cpu"] = [one for one in figures["cpu"] if one["server"] != name]
            figures["cpu"].append({"server": name} | found_parts)
            yield


def one_round(arms: list[Arm], number: int, texts: list[str], seconds: float) -> list[dict[str, Any]]:
    """Drive every arm, in the other order in every other round, and return what each did."""
    compared: list[dict[str, Any]] = []
    for arm in arms[:: 1 if number % 2 == 0 else -1]:
        with arm.start() as server:
            served = [(name, Server(server.url, asking(model))) for model, name in arm.models]
            for name, one in served or [(arm.name, server)]:
                drive(one, texts, 4, 1.0)
                for clients in arm.clients:
                    driven = drive(one, texts, clients, seconds)
                    compared.append({"server": name, "round": number} | driven.to_json())
                    print(f"{name}: {driven.per_s:.0f}/s at {clients} clients", file=sys.stderr)
    return compared


def _own_arms(given: argparse.Namespace) -> list[Arm]:
    """Return the gateway with the policy that is judged, and with those beside it."""
    family = given.family.resolve()
    ours = ((given.student, "student"), ("cascade", page.CASCADE), (given.teacher, "teacher"))
    beside = [
        Arm(
            "gateway",
            partial(gateway, family, policy.resolve()),
            (("cascade", page.named(read_policy(policy))),),
        )
        for policy in given.beside
    ]
    return [Arm("gateway", partial(gateway, family, given.policy.resolve()), ours), *beside]


def _peer_arms(searched: list[dict[str, Any]], places: Places) -> list[Arm]:
    """Return an arm per peer and setting that is best at some number of clients."""
    by_options: dict[tuple[str, str], list[int]] = {}
    for peer in dict.fromkeys(one["peer"] for one in searched):
        for clients in CLIENTS:
            best = json.dumps(_best_of(searched, peer, clients))
            by_options.setdefault((peer, best), []).append(clients)
    return [
        Arm(peer, partial(running, peer, json.loads(options), places), clients=tuple(clients))
        for (peer, options), clients in by_options.items()
    ]


def _best_of(searched: list[dict[str, Any]], peer: str, clients: int) -> Options:
    def rate(one: dict[str, Any]) -> float:
        return float(next(d["per_s"] for d in one["driven"] if d["clients"] == clients))

    options: Options = max((one for one in searched if one["peer"] == peer), key=rate)["options"]
    return options


if __name__ == "__main__":
    main()
