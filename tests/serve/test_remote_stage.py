"""A gateway on Ray whose reference is a model behind HTTP: asked, priced, killed, and there again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from compress.add_remote import ANSWERS, RemoteAddition, add_remote
from contract.policy import Policy, Stage
from runtime.fake_family import write_fake_family
from serve.local import launcher
from serve.settings.gateway import Settings
from serve.settings.resilience import BreakerRules
from serve.settings.stages import StageSettings
from serve.settings.traffic import TrafficSettings
from tests.ports import free_port
from tests.support.known_model import KnownModel, asking, known_model

pytestmark = pytest.mark.ray

PRICE = 0.002
KEY = "a key that no file holds"
TEXTS = [f"story {n}" for n in range(60)]


@dataclass
class World:
    """A gateway, the model that its last stage asks, and what was said at its start."""

    gateway: launcher.Handle
    known: KnownModel
    server: ExitStack
    port: int
    said: list[str]

    def classify(self, texts: list[str], model: str = "cascade") -> list[dict[str, Any]]:
        """The outputs of a request."""
        body = {"inputs": texts, "model": model}
        reply = httpx.post(f"{self.gateway.url}/v1/classify", json=body, timeout=30, trust_env=False)
        assert reply.status_code == 200, reply.text
        found: list[dict[str, Any]] = reply.json()["outputs"]
        return found

    def counted(self, name: str) -> dict[tuple[str, ...], float]:
        """A metric's values by the values of its labels, the family's left out."""
        page = httpx.get(f"{self.gateway.url}/metrics", timeout=30, trust_env=False).text
        return {
            tuple(value for name, value in sorted(sample.labels.items()) if name != "family"): sample.value
            for metric in text_string_to_metric_families(page)
            for sample in metric.samples
            if sample.name == name
        }


@pytest.fixture(scope="module")
def policy() -> Policy:
    """The small fake answers where it is sure, the model behind HTTP the rest."""
    stages = (Stage(variant="fake-small", threshold=0.9), Stage(variant="large"))
    return Policy(status="uncertified", reference="large", stages=stages).sealed()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, policy: Policy) -> Iterator[World]:
    """A gateway on a family with a remote variant; the model is there while the family is made."""
    folder, known, port = tmp_path_factory.mktemp("remote"), KnownModel(accuracy=0.99), free_port()
    known.key = KEY
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch, ExitStack() as server:
        url = server.enter_context(known_model(known, port))
        patch.setenv("KNOWN_KEY", KEY)
        write_fake_family(folder, rows=60, delay_ms=0.0)
        model = asking(url, usd_per_call=PRICE, credentials={"env": "KNOWN_KEY"}, max_concurrency=4)
        add_remote(folder, RemoteAddition("large", model, folder / ANSWERS, reference=True), folder)
        (folder / "policy.json").write_text(policy.model_dump_json(by_alias=True))
        settings = Settings(
            family=str(folder),
            policy=str(folder / "policy.json"),
            port=free_port(),
            admin_port=free_port(),
            replicas=1,
            stage=StageSettings(breaker=BreakerRules(open_s=0.2, max_open_s=0.2)),
            traffic=TrafficSettings(busy_cpu_share=None, gather_s=0.2),
        )
        known.asked.clear()
        with launcher.start(settings, said.append) as gateway:
            yield World(gateway, known, server, port, said)


def test_what_the_first_stage_is_unsure_of_is_asked_and_paid_for(world: World) -> None:
    """Escalated answers are the model's own, each is booked at its price, and nothing else asks it."""
    assert any("is reached" in line for line in world.said)
    assert world.known.asked == []
    outputs = world.classify(TEXTS)
    escalated = [row for row, one in enumerate(outputs) if one["escalated"]]
    assert 0 < len(escalated) < len(TEXTS)
    right = world.known.labels_of(TEXTS)
    for row in escalated:
        assert outputs[row]["label"] == world.known.labels[right[row]]
        assert outputs[row]["variant"] == "large"
    assert len(world.known.asked) == len(escalated)
    assert world.known.most <= 4
    spent = len(escalated) * PRICE
    assert world.counted("sluice_usd_total")["none", "large"] == pytest.approx(spent)
    assert world.counted("sluice_remote_usd_total")["large",] == pytest.approx(spent)
    assert world.counted("sluice_saved_usd_total")[()] > 0
    by_name = world.classify(TEXTS[:2], "large")
    assert [one["label"] for one in by_name] == [world.known.labels[i] for i in right[:2]]


def test_a_key_is_nowhere_in_the_run(world: World) -> None:
    """Neither the family nor what the gateway writes down holds it."""
    family = Path(world.gateway._settings.family or "")
    written = [path for path in [*family.rglob("*"), *world.gateway.folder.rglob("*")] if path.is_file()]
    assert written
    assert [path.name for path in written if KEY.encode() in path.read_bytes()] == []


def test_while_the_model_is_gone_answers_are_degraded_and_then_whole_again(world: World) -> None:
    """The first stage answers, marked, and the gateway stays ready; once the model is back all is well."""
    whole = world.classify(TEXTS)
    escalated = [row for row, one in enumerate(whole) if one["escalated"]]
    world.server.close()
    for _ in range(3):
        outputs = world.classify(TEXTS)
        assert [row for row, one in enumerate(outputs) if one["degraded"]] == escalated
        assert {one["variant"] for one in outputs} == {"fake-small"}
    ready = httpx.get(f"{world.gateway.url}/v2/health/ready", trust_env=False)
    assert ready.status_code == 200
    assert world.counted("sluice_degraded_total")["failed",] == 3 * len(escalated)
    assert 0 < world.counted("sluice_remote_failures_total")["unreachable", "large"] < 6 * len(escalated)
    world.server.enter_context(known_model(world.known, world.port))
    until = time.monotonic() + 20
    again = world.classify(TEXTS)
    while any(one["degraded"] for one in again):
        assert time.monotonic() < until
        again = world.classify(TEXTS)
    assert [one["label"] for one in again] == [one["label"] for one in whole]
