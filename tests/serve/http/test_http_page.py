"""docs/http.md says what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

from contract import errors
from contract.errors import RequestError
from serve.http.openapi import build
from serve.http.refusals import REFUSED
from serve.settings.limits import RequestLimits
from serve.wire import oip, v1
from serve.wire.errors import error_reply
from serve.wire.schemas import ClassifyReply

PAGE = (Path(__file__).parents[3] / "docs" / "http.md").read_text("utf-8")


def block(kind: str) -> str:
    """Return the code block of that kind."""
    found = re.search(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found.group(1)


def test_the_examples_are_in_the_wire_form() -> None:
    """The request parses, and the reply is what the description says."""
    call = v1.parse(block("json request").encode(), RequestLimits(), 0.0)
    reply = ClassifyReply.model_validate(json.loads(block("json reply")))
    assert len(call.request.texts) == len(reply.outputs)


def test_the_limits_are_the_defaults() -> None:
    """Every limit is in the table, with its default."""
    rows = dict(re.findall(r"^\| `(max_\w+|objective_ms)` \| ([\d.]+|null) \|", PAGE, re.MULTILINE))
    assert rows == {name: json.dumps(value) for name, value in RequestLimits().model_dump().items()}


def test_every_refusal_is_explained() -> None:
    """Each status that an error maps to has a row."""
    rows = set(re.findall(r"^\| (\d{3}) \|", PAGE, re.MULTILINE))
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RequestError)
    ]
    assert {str(error_reply(kind("x")).status) for kind in kinds} <= rows


def test_every_path_of_the_description_is_in_the_table_of_calls() -> None:
    """A call that is offered is on the page; those with a version are said to be the same."""
    for path in build()["paths"]:
        assert f"{path.replace('/versions/{version_}', '')}`" in PAGE


def test_every_call_that_is_refused_is_in_the_other_table() -> None:
    """A refusal that the code gives is explained on the page."""
    for told in REFUSED:
        path = told.replace("{model:model}", "{model}").split("{rest:")[0]
        assert path.replace("/unload", "/load").replace(":explain", ":predict") in PAGE


def test_every_output_is_named() -> None:
    """The page names all tensors."""
    for name in oip.VARIANT_OUTPUTS:
        assert f"`{name}`" in PAGE
