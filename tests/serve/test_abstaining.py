"""A policy whose last stage is nobody: what no stage is sure of is left to a person, in every wire form."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton
from openai.types.decision import Decision

from contract.errors import StageFailed
from contract.policy import ABSTAIN, Certificate, Limits, Policy, Stage
from runtime.load import load_variant
from serve.dataplane.plane import DataPlane
from serve.grpc.service import InferenceService
from serve.settings.gateway import Settings
from serve.settings.limits import RequestLimits
from serve.settings.slots import slots_of
from serve.settings.stages import FakeSettings
from serve.telemetry.metrics import Telemetry
from serve.types.prices import Prices
from serve.types.recorder import RequestRecord
from serve.wire.schemas import ClassifyReply
from tests.serve.dataplane.test_dataplane import World
from tests.serve.grpc.test_service import serve_grpc
from tests.serve.http.decisions.parts import Deciding, ask, choice, decide, deciding
from tests.serve.parts import FakeFolder, Kept, snapshot_of

LIMITS = RequestLimits(max_texts=64)
NEWS = ("business", "entertainment", "politics", "sport", "tech")


def abstaining(*variants: str, threshold: float = 0.9, **limits: float) -> Policy:
    """Each variant answers from the threshold on; nobody the rest."""
    stages = (*(Stage(variant=name, threshold=threshold) for name in variants), Stage(variant=ABSTAIN))
    certificate = Certificate(
        method="ltt", metric="answered_error", epsilon=0.05, delta=0.1, n_tune=9, n_certify=9, seed=0,
        data_sha256="0",
    )  # fmt: skip
    return Policy(
        status="certified",
        reference="fake-large",
        stages=stages,
        limits=Limits(**limits),
        certificate=certificate,
    ).sealed()


@pytest.fixture(scope="module")
def policy() -> Policy:
    """One cheap variant, and a person."""
    return abstaining("fake-small")


@pytest.fixture(scope="module")
def running(fake_folder: FakeFolder, policy: Policy) -> Iterator[Deciding]:
    """A gateway over HTTP."""
    with deciding(fake_folder, policy=policy) as found:
        yield found


@pytest.fixture(scope="module")
def split(fake_folder: FakeFolder) -> tuple[str, str]:
    """A text that the small fake is sure of, and one that it is not."""
    texts = [f"{NEWS[i % 5]}: story {i}" for i in range(200)]
    loaded = load_variant(fake_folder.folder, fake_folder.family, "fake-small")
    logits = loaded.runtime.logits(loaded.encoder.encode(texts))
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    sure = shifted.max(axis=1) / shifted.sum(axis=1)
    return texts[int(sure.argmax())], texts[int(sure.argmin())]


def test_the_simple_form_says_that_nobody_answers(running: Deciding, split: tuple[str, str]) -> None:
    """The label is null, and what the stage would have guessed is in `top` for the person who answers."""
    body = {"inputs": list(split), "top_k": 2}
    reply = httpx.post(f"{running.url}/v1/classify", json=body).json()
    ClassifyReply.model_validate(reply)
    answered, left = reply["outputs"]
    assert (answered["abstained"], answered["variant"], answered["escalated"]) == (False, "fake-small", False)
    assert answered["label"] in NEWS
    assert (left["abstained"], left["variant"], left["escalated"]) == (True, ABSTAIN, True)
    assert left["label"] is None
    assert left["confidence"] == left["top"][0]["confidence"] < 0.9


@pytest.mark.parametrize("binary", [False, True])
def test_tensors_say_it(running: Deciding, split: tuple[str, str], binary: bool) -> None:
    """An output `abstained`, with an empty label, in JSON and in binary, asked for or not."""
    client = triton.InferenceServerClient(running.url.removeprefix("http://"))
    text = triton.InferInput("text", [2], "BYTES")
    text.set_data_from_numpy(np.array(split, dtype=np.object_), binary_data=binary)
    asked = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("label", "abstained")]
    for outputs in (asked, None):
        found = client.infer("cascade", [text], outputs=outputs)
        assert found.as_numpy("abstained").tolist() == [False, True]
        assert not found.as_numpy("label").tolist()[1]
    told = client.get_model_metadata("cascade")["outputs"]
    assert {"name": "abstained", "datatype": "BOOL", "shape": [-1]} in told
    assert [one["name"] for one in client.get_model_config("cascade")["output"]][-1] == "abstained"


def test_grpc_says_it(fake_folder: FakeFolder, policy: Policy, split: tuple[str, str]) -> None:
    """The same output over gRPC, raw and in contents."""
    recorder = Kept()
    snapshot = snapshot_of(fake_folder, policy, recorder)
    plane = DataPlane(lambda: snapshot, LIMITS, recorder)
    service = InferenceService(plane, LIMITS, recorder, lambda: b"")
    address, stop = serve_grpc(lambda: service)
    try:
        text = triton_grpc.InferInput("text", [2], "BYTES")
        text.set_data_from_numpy(np.array(split, dtype=np.object_))
        found = triton_grpc.InferenceServerClient(address).infer("cascade", [text])
        assert found.as_numpy("abstained").tolist() == [False, True]
        assert found.as_numpy("variant").tolist() == [b"fake-small", b"abstain"]
    finally:
        stop()


@pytest.mark.parametrize("position", [0, 1])
def test_decisions_are_refused_and_say_why(running: Deciding, split: tuple[str, str], position: int) -> None:
    """A `refusal` in the SDK's types; who it is left to is in our object and header alone."""
    reply = decide(running, ask(choice(*NEWS, name="topic"), text=split[position], model="cascade"))
    answer = Decision.model_validate(reply.json(), strict=True).answers[0]
    standing = reply.json()["sluice"]["answers"][0]
    assert answer.name == "topic"
    if position == 0:
        assert (answer.type, standing["abstained"], standing["certified"]) == ("choice", False, True)
        assert "x-sluice-abstained" not in reply.headers
    else:
        assert (answer.type, standing["abstained"], standing["certified"]) == ("refusal", True, False)
        assert (standing["variant"], reply.headers["x-sluice-abstained"]) == (ABSTAIN, "true")
        assert reply.headers["x-sluice-variant"] == ABSTAIN
        assert "left to a person" in standing["reason"]


def test_the_other_form_of_decisions_says_it_too(running: Deciding, split: tuple[str, str]) -> None:
    """System One: a refusal by the name of the question."""
    question = {"type": "choice", "instructions": "?", "criteria": dict.fromkeys(NEWS)}
    body = {"model": "cascade", "state": split[1], "questions": {"topic": question}}
    reply = decide(running, body, "/v1/systemone")
    assert reply.json()["answers"] == {"topic": {"type": "refusal"}}
    assert reply.json()["sluice"]["answers"][0]["abstained"] is True


def test_a_variant_by_name_never_abstains(running: Deciding, split: tuple[str, str]) -> None:
    """No policy has a part in it."""
    body = {"inputs": list(split), "model": "fake-small"}
    outputs = httpx.post(f"{running.url}/v1/classify", json=body).json()["outputs"]
    assert all("abstained" not in output and output["label"] in NEWS for output in outputs)


@pytest.mark.anyio
async def test_each_text_of_a_request_has_its_own_end(fake_folder: FakeFolder) -> None:
    """Answered at the first stage, at the second, or by nobody; what ran is what is charged."""
    world = World(fake_folder, abstaining("fake-small", "fake-other"))
    result = await world.ask("1@0.95 0@0.5 0@0.5", "1@0.3 2@0.93 0@0.5", "1@0.3 2@0.6 3@0.99")
    assert result.variant == ["fake-small", "fake-other", ABSTAIN]
    assert (result.escalated, result.abstained) == ([False, True, True], [False, False, True])
    assert [result.label(row) for row in range(3)] == ["entertainment", "politics", ""]
    assert world.stages["fake-large"].seen == []
    [record] = world.kept.answers
    assert (record.abstained, list(record.runs())) == (1, [("fake-small", 3), ("fake-other", 2)])


@pytest.mark.anyio
async def test_a_stage_that_fails_leaves_its_texts_to_a_person(fake_folder: FakeFolder) -> None:
    """An unsure answer never goes out in place of a better one: the text is degraded, and nobody answers."""
    world = World(fake_folder, abstaining("fake-small", "fake-other"))
    world.stages["fake-other"].problem = StageFailed("broke")
    result = await world.ask("1@0.3 2@0.93 0@0.5")
    assert (result.variant, result.degraded, result.abstained) == ([ABSTAIN], [True], [True])


@pytest.mark.anyio
async def test_no_budget_of_escalations_makes_it_guess(fake_folder: FakeFolder) -> None:
    """Beyond the policy's limit on escalations texts abstain too."""
    world = World(fake_folder, abstaining("fake-small", "fake-other", max_escalation_rate=0.0))
    result = await world.ask("1@0.3 2@0.93 0@0.5")
    assert (result.abstained, world.stages["fake-other"].seen) == ([True], [])


def test_it_is_counted_and_saves_nothing() -> None:
    """By family; the reference would have cost something, but it would have answered."""
    telemetry = Telemetry()
    prices = Prices({"small": 1.0, "large": 10.0}, "large")
    record = RequestRecord("cascade", ["small", ABSTAIN], [0.9, 0.3], 0.004, first="small", prices=prices)
    record.abstained = 1
    telemetry.of("news").answered(record)
    page = telemetry.counts().decode()
    assert 'sluice_abstained_total{family="news"} 1.0' in page
    assert 'sluice_saved_usd_total{family="news"} 8.0' in page
    assert 'variant="abstain"' in page


def test_the_first_stage_of_a_policy_that_abstains_is_inside_the_gateway(fake_folder: FakeFolder) -> None:
    """It is the last one that is asked, and every text meets it; nobody needs no place."""
    slots = slots_of(
        Settings(fake=FakeSettings()), fake_folder.family, abstaining("fake-small", "fake-other")
    )
    assert (slots.inline, slots.own) == (("fake-small",), ("fake-other",))
    assert slots_of(Settings(fake=FakeSettings()), fake_folder.family, abstaining("fake-small")).inline == (
        "fake-small",
    )
