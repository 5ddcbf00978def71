"""Where variants are placed, and what the settings refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from contract.policy import Policy, Stage, single_variant_policy
from runtime.fake_family import write_fake_family
from serve.settings.gateway import Settings
from serve.settings.slots import slots_of
from serve.settings.stages import FakeSettings, StageSettings


def test_cheap_stages_are_inline_the_last_has_its_own_and_the_rest_share_a_shelf(tmp_path: Path) -> None:
    """Without a wish, placement follows the policy and the measured latency."""
    family = write_fake_family(tmp_path, delay_ms=1.0, rows=60)
    stages = (Stage(variant="fake-small", threshold=0.5), Stage(variant="fake-large"))
    policy = Policy(status="uncertified", reference="fake-large", stages=stages)
    slots = slots_of(Settings(fake=FakeSettings()), family, policy)
    assert (slots.inline, slots.own, slots.shelf) == (("fake-small",), ("fake-large",), ("fake-other",))


def test_a_variant_that_was_measured_fast_is_inline(tmp_path: Path) -> None:
    """Outside the policy too, a fast variant is worth no hop; what counts as fast can be set."""
    fakes = write_fake_family(tmp_path, delay_ms=1.0, rows=60)
    real = tuple(variant.model_copy(update={"runtime": "onnx"}) for variant in fakes.variants)
    family = fakes.model_copy(update={"variants": real})
    policy = single_variant_policy("fake-large")
    assert slots_of(Settings(fake=FakeSettings()), family, policy).inline == ("fake-small",)
    patient = Settings(fake=FakeSettings(), inline_below_ms=3.0)
    assert slots_of(patient, family, policy).inline == ("fake-small", "fake-other")


def test_a_wish_wins(tmp_path: Path) -> None:
    """A placement that is asked for is kept, whatever the policy says."""
    family = write_fake_family(tmp_path, delay_ms=1.0, rows=60)
    settings = Settings(fake=FakeSettings(), stages={"fake-small": StageSettings(placement="shelf")})
    slots = slots_of(settings, family, single_variant_policy("fake-small"))
    assert slots.shelf == ("fake-small", "fake-other", "fake-large")


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"family": "/f", "fake": {}},
        {"family": "relative"},
        {"family": "/f\udcc3"},
        {"fake": {}, "port": 8000, "admin_port": 8000},
        {"fake": {}, "no_such_option": 1},
        {"fake": {"error_rate": 2}},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    """No option is dropped in silence, and no contradiction is served."""
    with pytest.raises(ValidationError):
        Settings.model_validate(wrong)


def test_replicas_follow_the_cores() -> None:
    """At least two gateway replicas, unless a number is asked for."""
    assert Settings(fake=FakeSettings()).gateway_replicas >= 2
    assert Settings(fake=FakeSettings(), replicas=1).gateway_replicas == 1
