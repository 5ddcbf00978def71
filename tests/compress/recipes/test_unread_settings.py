"""Settings that nothing would read are refused, so that nobody waits for what they were meant to do."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from compress.recipes.data_part import DataPart
from compress.recipes.parts import VariantPart

PARTS: TypeAdapter[Any] = TypeAdapter(VariantPart)


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        ("quantize", {"method": "fp16", "mixed": 0.01}, "`mixed` is for INT8"),
        ("quantize", {"method": "dynamic", "calibration": 64}, "sets no scales"),
        ("quantize", {"method": "fp16", "calibration": 64}, "sets no scales"),
        ("channels", {"keep": 0.5, "importance": "magnitude", "images": 64}, "`importance: taylor`"),
        ("qat", {"method": "static", "training": {"epochs": 0}}, "an epoch at least"),
    ],
)
def test_settings_that_nothing_reads_are_refused(kind: str, settings: dict[str, Any], said: str) -> None:
    """Each is named with the rule it breaks."""
    with pytest.raises(ValidationError, match=said):
        PARTS.validate_python({"kind": kind, "name": "x", "parent": "teacher", **settings})


@pytest.mark.parametrize("settings", [{}, {"smooth": 0.5, "calibration": 64}, {"method": "static"}])
def test_a_part_survives_being_written_out_in_full(settings: dict[str, Any]) -> None:
    """Steps get every setting, defaults too; these are no settings that somebody gave."""
    part = PARTS.validate_python({"kind": "quantize", "name": "x", "parent": "teacher", **settings})
    assert PARTS.validate_python(part.model_dump(mode="json")) == part


@pytest.mark.parametrize("rule", [{"matches": "a"}, {"min_words": 2}, {"max_words": 2, "label": "a"}])
def test_slices_of_images_are_by_label(rule: dict[str, Any]) -> None:
    """An image has no words."""
    with pytest.raises(ValidationError, match="can only have `label`"):
        DataPart.model_validate({"file": "x.csv", "input": "image", "slices": {"odd": rule}})
    DataPart.model_validate({"file": "x.csv", "input": "image", "slices": {"odd": {"label": "a"}}})
