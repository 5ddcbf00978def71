"""Families that take each other's place on a gateway on Ray, under load, and families that do not get in."""

from __future__ import annotations

import concurrent.futures
import itertools
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from contract.errors import PolicyError
from contract.family import Family, artifact_of, read_family, write_family
from contract.policy import Policy, Stage
from runtime.fake import FakeEncoder, FakeRuntime, read_fake
from runtime.fake_family import write_fake_family
from serve.control import admin_client
from serve.local.launcher import Handle
from sluicegate.family_cmd import command

pytestmark = pytest.mark.ray

LARGE = "fake-large"
TEXTS = [f"story {n}" for n in range(400)]


@pytest.fixture
def first(gateway: Handle) -> Iterator[dict[str, Any]]:
    """The revision in force before the test, and again after it."""
    before = admin_client.show_policy(gateway.admin_url)
    yield before
    if admin_client.show_policy(gateway.admin_url)["family_sha256"] != before["family_sha256"]:
        admin_client.rollback_policy(before["number"], gateway.admin_url)


@pytest.fixture
def other(tmp_path: Path) -> tuple[Path, Family]:
    """A family of the same names that answers some texts differently."""
    return tmp_path, write_fake_family(tmp_path, rows=300, seed=7, delay_ms=0.2)


def cascade(threshold: float) -> Policy:
    """Two stages, uncertified."""
    stages = (Stage(variant="fake-small", threshold=threshold), Stage(variant=LARGE))
    return Policy(status="uncertified", reference=LARGE, stages=stages).sealed()


def answers(folder: Path, variant: str) -> dict[str, str]:
    """What a variant of a family in a folder answers to the texts, without a gateway."""
    model = read_fake(folder / f"{variant}.json").model_copy(update={"delay_ms": 0.0})
    logits = FakeRuntime(model).logits(FakeEncoder().encode(TEXTS))
    return dict(zip(TEXTS, [model.labels[row] for row in logits.argmax(1)], strict=True))


def test_no_request_is_lost_and_each_is_answered_by_one_family_over_a_push(
    gateway: Handle, first: dict[str, Any], other: tuple[Path, Family]
) -> None:
    """Over push and rollback every request is answered, by the family of the policy that the reply names."""
    folder, family = other
    policy = cascade(0.8)
    expected = {
        first["policy"]["version"]: {n: answers(Path(first["family_path"]), n) for n in family.names},
        policy.version: {n: answers(folder, n) for n in family.names},
    }
    differing = [text for text in TEXTS if len({found[LARGE][text] for found in expected.values()}) == 2]
    assert differing
    stop = threading.Event()

    def send(number: int) -> list[tuple[str, str, str, str]]:
        seen: list[tuple[str, str, str, str]] = []
        with httpx.Client(base_url=gateway.url, timeout=30, trust_env=False) as own:
            for at in itertools.count(number * 16):
                if stop.is_set():
                    return seen
                texts = [differing[(at + step) % len(differing)] for step in range(4)]
                reply = own.post("/v1/classify", json={"inputs": texts})
                assert reply.status_code == 200, reply.text
                told = reply.json()
                for text, output in zip(texts, told["outputs"], strict=True):
                    assert not output["degraded"]
                    seen.append((told["policy_version"], output["variant"], text, output["label"]))
        return seen

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(send, number) for number in range(4)]
        try:
            pushed = admin_client.push_family(folder, gateway.admin_url, policy=policy)
            admin_client.rollback_policy(first["number"], gateway.admin_url)
        finally:
            stop.set()
        seen = [answer for client in clients for answer in client.result()]
    assert pushed["revision"]["family_sha256"] == family.sha256
    assert pushed["placed"] == {"fake-small": "inline", "fake-other": "shelf", LARGE: f"stage-{LARGE}"}
    assert {version for version, *_ in seen} == set(expected)
    assert {variant for _, variant, *_ in seen} == {"fake-small", LARGE}
    wrong = [row for row in seen if expected[row[0]][row[1]][row[2]] != row[3]]
    assert wrong == []


def test_history_and_rollback_hold_family_and_policy_together(
    gateway: Handle, first: dict[str, Any], other: tuple[Path, Family]
) -> None:
    """Without a policy the new teacher answers; the way back brings the old family with its policy."""
    folder, family = other
    run = CliRunner()
    url = ["--admin-url", gateway.admin_url]
    done = run.invoke(command, ["push", str(folder), *url], catch_exceptions=False)
    assert "is about other builds" in done.output
    assert f"{LARGE} answers everything" in done.output
    shutil.rmtree(folder)
    listed = run.invoke(command, ["history", "--json", *url], catch_exceptions=False).output
    assert f'"family_sha256": "{family.sha256}"' in listed
    for variant in ("fake-other", LARGE, "cascade"):
        reply = httpx.post(
            f"{gateway.url}/v1/classify", json={"inputs": TEXTS[:3], "model": variant}, trust_env=False
        )
        assert reply.status_code == 200
    back = run.invoke(command, ["rollback", str(first["number"]), *url], catch_exceptions=False)
    assert "is in force" in back.output
    now = admin_client.show_policy(gateway.admin_url)
    assert (now["family_sha256"], now["policy"]["version"]) == (
        first["family_sha256"],
        first["policy"]["version"],
    )


def broken_hash(folder: Path) -> str:
    """An artifact that was altered after the manifest was written."""
    (folder / "fake-other.json").write_text("{}")
    return "altered or incomplete"


def other_labels(folder: Path) -> str:
    """Labels that no client knows."""
    write_fake_family(folder, labels=("up", "down"), rows=60)
    return "those that clients get now are"


def cannot_load(folder: Path) -> str:
    """An artifact whose hash is right and whose content is not a model."""
    family = read_family(folder)
    (folder / f"{LARGE}.json").write_text('{"labels": ["a", "b"]}')
    artifact = family.variant(LARGE).artifact.model_copy(update=_file(folder / f"{LARGE}.json"))
    variants = [
        v.model_copy(update={"artifact": artifact}) if v.name == LARGE else v for v in family.variants
    ]
    write_family(folder, family.model_copy(update={"variants": tuple(variants)}))
    return f"stage-{LARGE}.*other labels than its family"


def _file(path: Path) -> dict[str, Any]:
    return artifact_of(path.parent, path).model_dump(include={"sha256", "bytes"})


@pytest.mark.parametrize("spoil", [broken_hash, other_labels, cannot_load])
def test_a_family_that_fails_at_any_step_changes_nothing(
    gateway: Handle, first: dict[str, Any], other: tuple[Path, Family], spoil: Any
) -> None:
    """The refusal says why; revision, family and answers are as they were."""
    folder, _ = other
    history = admin_client.policy_history(gateway.admin_url)
    words = spoil(folder)
    with pytest.raises(PolicyError, match=words):
        admin_client.push_family(folder, gateway.admin_url, policy=cascade(0.8))
    assert admin_client.policy_history(gateway.admin_url) == history
    reply = httpx.post(f"{gateway.url}/v1/classify", json={"inputs": TEXTS[:50]}, trust_env=False).json()
    assert reply["policy_version"] == first["policy"]["version"]
    right = {variant: answers(Path(first["family_path"]), variant) for variant in ("fake-small", LARGE)}
    assert all(
        output["label"] == right[output["variant"]][text]
        for text, output in zip(TEXTS[:50], reply["outputs"], strict=True)
    )
