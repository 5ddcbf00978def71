"""Two families on one gateway on Ray, and a third that comes and goes; all of it is there after a restart."""

from __future__ import annotations

import concurrent.futures
import itertools
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from click.testing import CliRunner

from contract.policy import Policy, Stage, write_policy
from runtime.fake_family import TEACHER, write_fake_family
from serve.local import launcher
from serve.settings.gateway import FamilySettings, Settings
from sluicegate import family_cmd, policy_cmd
from tests.ports import free_port

pytestmark = pytest.mark.ray

LABELS = {
    "news": ("business", "entertainment", "politics", "sport", "tech"),
    "mood": ("bad", "good"),
    "topic": ("food", "travel", "work"),
}
VARIANTS = ("fake-small", "fake-other", TEACHER)


@dataclass
class Gateway:
    """A gateway that serves two families, and can be started again on its state."""

    settings: Settings
    folder: Path
    handle: launcher.Handle

    def types(self, command: Any, *words: str) -> str:
        """What a command says to the gateway's admin interface, which must be pleased."""
        asked = [*words, "--admin-url", self.handle.admin_url]
        return CliRunner().invoke(command, asked, catch_exceptions=False).output

    def classify(self, model: str, *texts: str) -> dict[str, Any]:
        """The reply of the simple form."""
        body = {"inputs": list(texts), "model": model}
        reply = httpx.post(f"{self.handle.url}/v1/classify", json=body, timeout=30, trust_env=False)
        assert reply.status_code == 200, reply.text
        found: dict[str, Any] = reply.json()
        return found


def cascade(threshold: float = 0.8) -> Policy:
    """Two stages, uncertified."""
    stages = (Stage(variant="fake-small", threshold=threshold), Stage(variant=TEACHER))
    return Policy(status="uncertified", reference=TEACHER, stages=stages).sealed()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The gateway; tests in order find what those before them left."""
    root = tmp_path_factory.mktemp("several")
    for name, labels in LABELS.items():
        write_fake_family(root / name, rows=60, delay_ms=0.2, labels=labels, name=name)
    write_policy(root / "policy.json", cascade())
    families = tuple(
        FamilySettings(path=str(root / name), policy=str(root / "policy.json")) for name in ("news", "mood")
    )
    settings = Settings(
        families=families, state=str(root / "state"), port=free_port(), admin_port=free_port()
    )
    gateway = Gateway(settings, root, launcher.start(settings))
    try:
        yield gateway
    finally:
        gateway.handle.stop()


def test_a_client_that_is_not_ours_sees_both_model_sets(both: Gateway) -> None:
    """In the index, in metadata with each family's labels, and in answers under the names that were asked."""
    with triton.InferenceServerClient(both.handle.url.removeprefix("http://")) as client:
        listed = [entry["name"] for entry in client.get_model_repository_index()]
        assert listed == [
            name for family in ("news", "mood") for name in (family, *(f"{family}/{v}" for v in VARIANTS))
        ]
        for family in ("news", "mood"):
            assert client.is_model_ready(family)
            assert client.is_model_ready(f"{family}/{TEACHER}")
            told = client.get_model_metadata(f"{family}/fake-small")
            assert told["parameters"]["labels"] == list(LABELS[family])
            assert client.get_model_config(family)["name"] == family
            text = triton.InferInput("text", [2], "BYTES")
            text.set_data_from_numpy(np.array([b"a story", b"another"], dtype=object))
            result = client.infer(f"{family}/{TEACHER}", [text])
            assert result.get_response()["model_name"] == f"{family}/{TEACHER}"
            assert {label.decode() for label in result.as_numpy("label")} <= set(LABELS[family])
            stats = client.get_inference_statistics(f"{family}/{TEACHER}")["model_stats"]
            assert [entry["name"] for entry in stats] == [f"{family}/{TEACHER}"]
    unnamed = httpx.post(f"{both.handle.url}/v1/classify", json={"inputs": "x"}, trust_env=False)
    assert unnamed.status_code == 404
    assert "serving: news, news/fake-small" in unnamed.json()["error"]


def test_a_policy_that_is_pushed_to_one_leaves_the_other_as_it_was(both: Gateway) -> None:
    """The commands ask which is meant, and history, revision and version of the other stay."""
    asked_nobody = CliRunner().invoke(policy_cmd.command, ["show", "--admin-url", both.handle.admin_url])
    assert "several families are served" in str(asked_nobody.exception)
    write_policy(both.folder / "other.json", cascade(0.6))
    both.types(policy_cmd.command, "push", str(both.folder / "other.json"), "--family", "news")
    assert both.classify("news", "a story")["policy_version"] == cascade(0.6).version
    assert both.classify("mood", "a story")["policy_version"] == cascade().version
    told = json.loads(both.types(policy_cmd.command, "history", "--json", "--family", "mood"))
    assert [entry["number"] for entry in told] == [1]


def test_no_request_is_lost_while_a_third_family_comes_and_goes(both: Gateway) -> None:
    """Neither of the others' nor of its own, as long as it is served."""
    stop = threading.Event()
    models = ("news", "mood", f"mood/{TEACHER}")

    def send(number: int) -> int:
        with httpx.Client(base_url=both.handle.url, timeout=30, trust_env=False) as own:
            for at in itertools.count():
                model = models[(number + at) % len(models)]
                reply = own.post("/v1/classify", json={"inputs": [f"story {at}"], "model": model})
                assert reply.status_code == 200, reply.text
                assert reply.json()["outputs"][0]["label"] in LABELS[model.partition("/")[0]]
                if stop.is_set():
                    return at
        return 0

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(send, number) for number in range(4)]
        try:
            policy = str(both.folder / "policy.json")
            loaded = both.types(family_cmd.command, "load", str(both.folder / "topic"), "--policy", policy)
            assert "topic: revision 1: family topic" in loaded
            texts = [f"story {n}" for n in range(16)]
            labels = {output["label"] for output in both.classify("topic", *texts)["outputs"]}
            assert labels <= set(LABELS["topic"])
            assert "topic is served no longer" in both.types(family_cmd.command, "unload", "topic")
        finally:
            stop.set()
        assert all(client.result() > 0 for client in clients)
    gone = httpx.post(
        f"{both.handle.url}/v1/classify", json={"inputs": "x", "model": "topic"}, trust_env=False
    )
    assert gone.status_code == 404


def test_the_metrics_tell_families_apart(both: Gateway) -> None:
    """Each has its requests, its policy and its revision."""
    page = httpx.get(f"{both.handle.url}/metrics", trust_env=False).text
    for line in (
        'sluice_requests_total{family="mood",model="cascade",outcome="ok",variant="fake-small"}',
        'sluice_batch_items_count{family="news",variant="fake-large"}',
        f'sluice_policy_info{{family="news",status="uncertified",version="{cascade(0.6).version}"}} 1.0',
        'sluice_revision{family="mood"} 1.0',
    ):
        assert line in page


def test_a_restart_keeps_every_family_with_its_policy(both: Gateway) -> None:
    """One that was loaded while it served too, and the same settings find it."""
    both.types(family_cmd.command, "load", str(both.folder / "topic"), "--as", "trips")
    both.handle.stop()
    said: list[str] = []
    both.handle = launcher.start(both.settings, said.append)
    assert any("trips stays: loaded while the gateway served" in words for words in said)
    assert both.classify("news", "a story")["policy_version"] == cascade(0.6).version
    assert both.classify("trips", "a story")["outputs"][0]["label"] in LABELS["topic"]
    listed = json.loads(both.types(family_cmd.command, "list", "--json"))
    assert [entry["served_as"] for entry in listed["families"]] == ["news", "mood", "trips"]
    assert [entry["revision"]["number"] for entry in listed["families"]] == [2, 1, 1]
