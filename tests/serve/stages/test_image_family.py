"""A family of image classifiers behind real HTTP: images arrive where texts would, as base64."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from contract.family import Family, Variant, artifact_of, write_family
from contract.policy import Policy, Stage
from router.decide.cascade import compile_policy
from runtime.pixels import PIXELS, PixelOptions, pixel_spec, png_text
from serve.dataplane.plane import DataPlane
from serve.http.app import Gateway
from serve.settings.gateway import Settings
from serve.settings.limits import RequestLimits
from serve.stages.loading import load_stage
from serve.types.stage import Snapshot
from tests.serve.parts import Kept, serving

OPTIONS = PixelOptions(8, 8, 1, (0.5,), (0.5,))
DARK, LIGHT, GREY = (png_text(np.full((8, 8), value, dtype=np.uint8)) for value in (0, 255, 140))


def image_family(folder: Path) -> Family:
    """Write a family of two variants that tell light images from dark ones, and are unsure about grey."""
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", [PIXELS], ["light"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Neg", ["light"], ["dark"]),
            helper.make_node("Unsqueeze", ["dark"], ["a"], axes=[1]),
            helper.make_node("Unsqueeze", ["light"], ["b"], axes=[1]),
            helper.make_node("Concat", ["a", "b"], ["logits"], axis=1),
        ],
        "toy",
        [helper.make_tensor_value_info(PIXELS, TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7)
    onnx.save(model, str(folder / "model.onnx"))
    artifact = artifact_of(folder, folder / "model.onnx")
    variants = tuple(
        Variant(name=name, kind=kind, runtime="onnx", artifact=artifact, encoder="pixels")
        for name, kind in (("teacher", "teacher"), ("small", "pruned"))
    )
    family = Family(
        name="images",
        labels=("dark", "light"),
        teacher="teacher",
        encoders={"pixels": pixel_spec(OPTIONS)},
        variants=variants,
    )
    write_family(folder, family)
    return family


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway on that family: the small variant answers what it is sure about."""
    folder = tmp_path_factory.mktemp("images")
    family, recorder, limits = image_family(folder), Kept(), RequestLimits()
    settings = Settings(family=str(folder))
    stages = {name: load_stage(settings, folder, family, name, recorder, "cpu") for name in family.names}
    policy = Policy(
        status="uncertified",
        reference="teacher",
        stages=(Stage(variant="small", threshold=0.8), Stage(variant="teacher")),
    ).sealed()
    snapshot = Snapshot(1, policy, compile_policy(policy, family.labels), family, stages)
    dataplane = DataPlane(lambda: snapshot, limits, recorder)
    with serving(Gateway(dataplane, limits, recorder, lambda: b"")) as address:
        yield address


def classify(url: str, inputs: Any, **more: Any) -> httpx.Response:
    """Send a request in the simple form."""
    return httpx.post(f"{url}/v1/classify", json={"inputs": inputs, **more}, timeout=30)


def test_images_are_answered_and_what_is_unsure_escalates(url: str) -> None:
    """Base64 goes in where text would; a grey image goes to the teacher, decoded once for both stages."""
    reply = classify(url, [DARK, LIGHT, GREY, f"data:image/png;base64,{DARK}"])
    assert reply.status_code == 200
    outputs = reply.json()["outputs"]
    assert [found["label"] for found in outputs] == ["dark", "light", "light", "dark"]
    assert [found["variant"] for found in outputs] == ["small", "small", "teacher", "small"]


def test_what_is_no_image_is_a_client_error(url: str) -> None:
    """Plain text and broken files are told 400 and what is expected, by router and by variant."""
    for model in ("cascade", "teacher"):
        for text in ("a plain text", "aGVsbG8="):
            reply = classify(url, [DARK, text], model=model)
            assert reply.status_code == 400
            assert "base64" in reply.text


def test_a_bad_image_spoils_no_other_request(url: str) -> None:
    """Requests that are batched with a bad one are answered all the same."""
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda i: classify(url, "nothing" if i % 4 == 0 else LIGHT), range(24)))
    assert [reply.status_code for reply in replies] == [400 if i % 4 == 0 else 200 for i in range(24)]


def test_decisions_about_an_image_are_answered_by_who_sees_it(url: str) -> None:
    """One `input_image` as a data URL, whatever is written beside it; two images, or none, are nobody's."""
    question = {"type": "choice", "instructions": "?", "choices": [{"value": "light"}, {"value": "dark"}]}

    def decide(*images: str) -> httpx.Response:
        shown = [
            {"type": "input_image", "image_url": f"data:image/png;base64,{image}", "detail": "low"}
            for image in images
        ]
        content = [{"type": "input_text", "text": "Light or dark?"}, *shown]
        body = {"model": "m", "input": [{"role": "user", "content": content}], "questions": [question]}
        return httpx.post(f"{url}/v1/decisions", json=body, timeout=30)

    seen = [decide(image) for image in (DARK, LIGHT, GREY)]
    assert [reply.json()["answers"][0]["choice"] for reply in seen] == ["dark", "light", "light"]
    assert [reply.headers["x-sluice-variant"] for reply in seen] == ["small", "small", "teacher"]
    for reply in (decide(), decide(DARK, LIGHT)):
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "question_not_served")
    assert decide("aGVsbG8=").status_code == 400
