"""The committed description of the HTTP interface."""

from __future__ import annotations

from pathlib import Path

from serve.http.openapi import build, render
from serve.wire.decisions.errors import PATHS

COMMITTED = Path(__file__).parents[3] / "docs" / "openapi.json"


def test_the_committed_description_is_what_the_code_says() -> None:
    """docs/openapi.json is up to date: `python -m serve.http.openapi > docs/openapi.json`."""
    assert COMMITTED.read_text("utf-8") == render()


def test_every_field_has_an_example_or_is_made_of_fields_that_have() -> None:
    """A reader sees what each value looks like."""
    for name, schema in build()["components"]["schemas"].items():
        for field, described in schema["properties"].items():
            made_of_others = "$ref" in str(described)
            assert "examples" in described or made_of_others, f"{name}.{field}"


def test_every_reference_resolves_and_every_refusal_has_the_error_form() -> None:
    """No dangling references; 4xx and 5xx replies are described as ErrorBody, or in OpenAI's form."""
    document = build()
    names = set(document["components"]["schemas"])
    text = render()
    for part in text.split('"#/components/schemas/')[1:]:
        assert part.split('"', 1)[0] in names
    for name, path in document["paths"].items():
        form = "DecisionError" if name in PATHS else "ErrorBody"
        for operation in path.values():
            for status, reply in operation["responses"].items():
                if status >= "400":
                    schema = reply["content"]["application/json"]["schema"]
                    assert schema == {"$ref": f"#/components/schemas/{form}"}
