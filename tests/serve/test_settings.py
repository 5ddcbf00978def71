"""Where variants are placed, and what the settings refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from contract.errors import InputError
from contract.policy import Policy, Stage, single_variant_policy
from runtime.fake_family import write_fake_family
from serve.settings.file import Flag, read_settings
from serve.settings.gateway import Settings
from serve.settings.scaling import Scaling
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


def test_a_stage_that_is_named_says_only_what_is_other_about_it() -> None:
    """What `stages` leave out is as `stage` says it, batch rules too."""
    settings = Settings.model_validate(
        {
            "fake": {},
            "stage": {"threads": 2, "batch": {"max_items": 4}},
            "stages": {"large": {"batch": {"lanes": 3}}},
        }
    )
    large = settings.stage_of("large")
    assert (large.threads, large.batch.max_items, large.batch.lanes) == (2, 4, 3)
    assert Settings.model_validate_json(settings.model_dump_json()) == settings


def test_replicas_are_a_number_or_a_range() -> None:
    """A range starts at its lower end; one that is upside down is refused."""
    ranged = Settings.model_validate({"fake": {}, "replicas": {"min": 2, "max": 5}})
    assert (ranged.replicas, ranged.gateway_replicas) == (Scaling(min=2, max=5), 2)
    with pytest.raises(ValidationError, match="max is 1, below min, 3"):
        Settings.model_validate({"fake": {}, "replicas": {"min": 3, "max": 1}})


def written(folder: Path, text: str) -> Path:
    """A settings file."""
    path = folder / "settings.yaml"
    path.write_text(text)
    return path


def test_paths_in_a_settings_file_are_from_its_folder(tmp_path: Path) -> None:
    """So that a folder with family, policy and settings can be moved as a whole."""
    settings, said = read_settings(written(tmp_path, "family: build/family\npolicy: /srv/policy.json\n"))
    assert (settings.family, settings.policy) == (str(tmp_path / "build/family"), "/srv/policy.json")
    assert said == ()


def test_the_command_line_wins_over_the_file_and_says_so(tmp_path: Path) -> None:
    """One for every stage wins over those of single stages; what nobody typed holds where nothing is said."""
    path = written(tmp_path, "fake: {delay_ms: 3}\nport: 9000\nstages: {large: {threads: 4, replicas: 2}}\n")
    flags = (
        Flag("--port", ("port",), 9100),
        Flag("--threads", ("stage", "threads"), 2),
        Flag("--fake-delay-ms", ("fake", "delay_ms"), 0.0, default=True),
        Flag("--fake-error-rate", ("fake", "error_rate"), 0.5, default=True),
    )
    settings, said = read_settings(path, flags)
    assert settings.port == 9100
    assert (settings.stage.threads, settings.stage_of("large").threads) == (2, 2)
    assert settings.stage_of("large").replicas == 2
    assert settings.fake == FakeSettings(delay_ms=3, error_rate=0.5)
    assert said == (
        "--port 9100 wins over port: 9000 of the settings file",
        "--threads 2 wins over stages.large.threads: 4 of the settings file",
    )


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("fake: {}\nreplcas: 2\n", 2, "replicas\\?"),
        ("fake: {}\nstages:\n  large:\n    batch:\n      max_itms: 2\n", 5, "max_items\\?"),
        ("fake: {}\n\nlimits:\n  max_texts: none\n", 4, r"limits\.max_texts.*valid integer"),
        ("fake: {}\nreplicas:\n  min: 3\n  max: 1\n", 2, "below min"),
        ("family: a\nfake: {}\n", 1, "not both"),
        ("- port\n", None, "names with values"),
        ("port: [\n", None, "not readable YAML"),
        ("port: 1\nport: 2\n", None, "stands twice"),
    ],
)
def test_a_settings_file_that_is_wrong_is_refused_by_line_and_rule(
    tmp_path: Path, text: str, line: int | None, words: str
) -> None:
    """The refusal names the file, the line, the rule, and the name that may have been meant."""
    path = written(tmp_path, text)
    with pytest.raises(InputError, match=words) as told:
        read_settings(path)
    assert str(told.value).startswith(str(path) if line is None else f"{path}:{line}:")
