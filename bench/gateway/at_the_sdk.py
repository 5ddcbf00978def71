"""What the form of decision endpoints costs at the SDK: /v1/decisions beside /v1/classify, on one connection.

python -m bench.gateway.at_the_sdk FAMILY POLICY [--calls N] [--rounds N]

The SDK `openai` asks both in turn, one call at a time over the connection that it keeps, about the same
texts: all labels of the family offered, then two of them. Reported are p50 and p99 over all rounds, and of
the ratio of the medians of a round the median over rounds and its range.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import openai

from bench.gateway import page
from bench.gateway.servers import gateway
from bench.gateway.texts import short_texts
from contract.family import read_family
from contract.policy import read_policy
from runtime.machine import describe_machine
from serve.settings.limits import RequestLimits
from serve.wire.decisions import openai_form
from serve.wire.decisions.asked import Asked

Ask = Callable[[str], Any]


def asking(url: str, labels: tuple[str, ...], http_client: httpx2.Client | None = None) -> dict[str, Ask]:
    """Return the calls that are compared, all by one client.

    `untyped` is the SDK without the types that it makes of a request and a reply, as LangChain uses it, and
    as `/v1/classify` is asked here: what is left is the wire form and the gateway. `typed` is
    `decisions.create`.
    """
    client = openai.OpenAI(base_url=url, api_key="any", max_retries=0, http_client=http_client)

    def classify(text: str) -> Any:
        return client.post("/classify", body={"inputs": text}, cast_to=object)

    calls: dict[str, Ask] = {"classify": classify}
    for name, offered in (("all labels", labels), ("two labels", labels[:2])):
        choices = [{"value": label} for label in offered]
        question: Any = {"type": "choice", "name": "label", "instructions": "Which?", "choices": choices}
        calls[f"decisions, {name}, untyped"] = _untyped(client, question)
        calls[f"decisions, {name}, typed"] = _typed(client, question)
    return calls


def _untyped(client: openai.OpenAI, question: Any) -> Ask:
    def ask(text: str) -> Any:
        body = {"model": "cascade", "input": text, "questions": [question]}
        return client.post("/decisions", body=body, cast_to=object)

    return ask


def _typed(client: openai.OpenAI, question: Any) -> Ask:
    return lambda text: client.decisions.create(model="cascade", input=text, questions=[question])


def own_cpu_ms(labels: tuple[str, ...], calls: int = 200) -> dict[str, float]:
    """Return the CPU time that the SDK itself spends on each call, with replies from memory."""

    known: dict[int, bytes] = {}

    def reply(request: httpx2.Request) -> httpx2.Response:
        questions = json.loads(request.content).get("questions")
        if questions is None:
            output = {"label": labels[0], "confidence": 0.9, "variant": "a", "escalated": False}
            return httpx2.Response(200, json={"outputs": [output], "model": "cascade"})
        offered = len(questions[0]["choices"])
        if offered not in known:
            known[offered] = _even(openai_form.parse(request.content, RequestLimits()))
        return httpx2.Response(200, content=known[offered])

    found = {}
    client = httpx2.Client(transport=httpx2.MockTransport(reply))
    for name, ask in asking("http://memory/v1", labels, client).items():
        least = float("inf")
        for _ in range(5):
            began = time.process_time()
            for _ in range(calls):
                ask("a text")
            least = min(least, time.process_time() - began)
        found[name] = round(1e3 * least / calls, 3)
    return found


def _even(asked: Asked) -> bytes:
    """Return a reply by which everything offered is as probable."""
    [question] = asked.questions
    even = [1 / len(question.values)] * len(question.values)
    return openai_form.render(asked, [openai_form.answer(question, even, 0, ())])


def round_ms(calls: dict[str, Ask], texts: list[str], *, backwards: bool) -> dict[str, list[float]]:
    """Return how long each call took for each text, all of them for one text before the next."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)[:: -1 if backwards else 1]
    for text in texts:
        for name in order:
            began = time.perf_counter()
            calls[name](text)
            found[name].append(1e3 * (time.perf_counter() - began))
    return found


def compare(calls: dict[str, Ask], texts: list[str], rounds: int) -> dict[str, Any]:
    """Return p50 and p99 of each call in milliseconds, and the ratio of its p50 to that of the first.

    Calls take turns text by text, in the other order every other round, so that drift falls on all.
    """
    round_ms(calls, texts[:50], backwards=False)
    seen: dict[str, list[list[float]]] = {name: [] for name in calls}
    for turn in range(rounds):
        for name, times in round_ms(calls, texts, backwards=turn % 2 == 1).items():
            seen[name].append(times)
    first = next(iter(calls))
    told: dict[str, Any] = {}
    for name, each in seen.items():
        pairs = zip(each, seen[first], strict=True)
        ratios = [statistics.median(own) / statistics.median(base) for own, base in pairs]
        pooled = sorted(took for one in each for took in one)
        told[name] = {
            "p50_ms": round(statistics.median(pooled), 3),
            "p99_ms": round(pooled[int(0.99 * (len(pooled) - 1))], 3),
            "ratio": round(statistics.median(ratios), 3),
            "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
        }
    return told


def measured(folder: Path, policy: Path, calls: int = 500, rounds: int = 6) -> dict[str, Any]:
    """Start a gateway, ask it both ways, and return what was seen."""
    family = read_family(folder)
    held_out = short_texts(folder, family)
    texts = [held_out[call % len(held_out)] for call in range(calls)]
    with gateway(folder, policy) as server:
        url = server.url.removesuffix("/classify")
        told = compare(asking(url, family.labels), texts, rounds)
    return {
        "labels": len(family.labels),
        "calls": len(texts),
        "rounds": rounds,
        "policy": page.named(read_policy(policy)),
        "machine": describe_machine().model_dump(mode="json"),
        "sdk_cpu_ms": own_cpu_ms(family.labels),
        "seen": told,
    }


def main() -> None:
    """Print what was seen as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("family", type=Path)
    parser.add_argument("policy", type=Path)
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=6)
    options = parser.parse_args()
    found = measured(options.family.resolve(), options.policy.resolve(), options.calls, options.rounds)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
