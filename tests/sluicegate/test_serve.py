"""What the options of `sluice serve` become."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from contract.policy import single_variant_policy, write_policy
from runtime.fake_family import write_fake_family
from serve.settings.gateway import Settings
from serve.settings.limits import RequestLimits
from sluicegate.serve_cmd import command


def test_room_for_larger_images_is_made_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Body and text limits come from their options, and are the defaults where nothing is said."""
    served: list[Settings] = []

    def spy(settings: Settings, *_: Any) -> None:
        served.append(settings)

    monkeypatch.setattr("sluicegate.serve_cmd.run_until_stopped", spy)
    for options in ((), ("--max-body-mib", "8", "--max-characters", "4000000")):
        CliRunner().invoke(command, ["--fake", *options], catch_exceptions=False)
    usual, larger = (settings.limits for settings in served)
    assert usual == RequestLimits()
    assert larger == RequestLimits(max_body_bytes=8 << 20, max_characters=4_000_000)


def test_a_price_of_energy_reaches_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    """--watts-per-core becomes a setting, and is unknown where it is not given."""
    served: list[Settings] = []
    monkeypatch.setattr("sluicegate.serve_cmd.run_until_stopped", lambda settings, _: served.append(settings))
    for options in ((), ("--watts-per-core", "4.5")):
        CliRunner().invoke(command, ["--fake", *options], catch_exceptions=False)
    assert [settings.watts_per_core for settings in served] == [None, 4.5]


def test_a_settings_file_is_served_with_the_command_line_over_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Options that were typed win; the defaults of the others do not."""
    served: list[Settings] = []
    monkeypatch.setattr("sluicegate.serve_cmd.run_until_stopped", lambda settings, _: served.append(settings))
    file = tmp_path / "settings.yaml"
    file.write_text("fake: {delay_ms: 3}\nport: 9000\nstage: {threads: 4}\nlimits: {max_texts: 7}\n")
    options = ["--settings", str(file), "--port", "9100", "--max-body-mib", "2"]
    result = CliRunner().invoke(command, options, catch_exceptions=False)
    assert "--port 9100 wins over port: 9000" in result.output.replace("\n", " ")
    (settings,) = served
    assert settings.fake is not None
    assert (settings.port, settings.stage.threads, settings.fake.delay_ms) == (9100, 4, 3)
    assert settings.limits == RequestLimits(max_texts=7, max_body_bytes=2 << 20)


def test_a_family_on_the_command_line_takes_the_place_of_the_files_fakes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The two exclude each other, so one that was typed puts the other out."""
    served: list[Settings] = []
    monkeypatch.setattr("sluicegate.serve_cmd.run_until_stopped", lambda settings, _: served.append(settings))
    file = tmp_path / "settings.yaml"
    file.write_text("fake: {delay_ms: 3}\n")
    CliRunner().invoke(command, [str(tmp_path), "--settings", str(file)], catch_exceptions=False)
    file.write_text("family: elsewhere\n")
    CliRunner().invoke(command, ["--fake", "--settings", str(file)], catch_exceptions=False)
    assert [settings.family for settings in served] == [str(tmp_path), None]


@pytest.mark.parametrize("options", [["--json"], []])
def test_a_dry_run_shows_settings_and_slots_and_starts_nothing(
    monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    """All defaults are filled in, and every variant has its place."""
    monkeypatch.delattr("sluicegate.serve_cmd.run_until_stopped")
    result = CliRunner().invoke(command, ["--fake", "--dry-run", *options], catch_exceptions=False)
    told = (json.loads if options else yaml.safe_load)(result.output)
    assert told["settings"]["stage"]["batch"]["max_items"] == 16
    assert told["slots"] == {"inline": ["fake-small"], "own": ["fake-large"], "shelf": ["fake-other"]}


def test_what_has_no_effect_is_said(tmp_path: Path) -> None:
    """A name that no variant has, and replicas where there are none; what has an effect is not mentioned."""
    file = tmp_path / "settings.yaml"
    replicas = ", ".join(f"fake-{name}: {{replicas: 3}}" for name in ("small", "other", "large"))
    file.write_text(f"fake: {{}}\nstages: {{fake-larg: {{threads: 4}}, {replicas}}}\n")
    options = ["--settings", str(file), "--dry-run"]
    told = " ".join(CliRunner().invoke(command, options, catch_exceptions=False).output.split())
    assert "stages.fake-larg has no effect now" in told
    assert "did you mean fake-large?" in told
    assert "stages.fake-small.replicas has no effect: it runs inside the gateway" in told
    assert "stages.fake-other.replicas has no effect: it runs on the shelf" in told
    assert "stages.fake-large.replicas" not in told


def test_options_of_the_fake_are_refused_for_a_family(tmp_path: Path) -> None:
    """They would change nothing."""
    result = CliRunner().invoke(command, [str(tmp_path), "--fake-delay-ms", "5"])
    assert result.exit_code == 2
    assert "--fake-delay-ms goes with --fake" in result.output


def test_several_families_are_named_with_their_policies(tmp_path: Path) -> None:
    """Each has its slots; a policy says whose it is, and a file's word on families gives way."""
    for name in ("news", "mood"):
        write_fake_family(tmp_path / name, rows=60, name=name)
    write_policy(tmp_path / "mood.json", single_variant_policy("fake-small"))
    file = tmp_path / "settings.yaml"
    file.write_text("families: [{path: news, name: other}]\nport: 8123\n")
    folders = [str(tmp_path / name) for name in ("news", "mood")]
    options = ["--policy", f"mood={tmp_path / 'mood.json'}", "--settings", str(file), "--dry-run", "--json"]
    result = CliRunner().invoke(command, [*folders, *options], catch_exceptions=False)
    told = json.loads(result.stdout)
    assert [(each["path"], each["policy"]) for each in told["settings"]["families"]] == [
        (folders[0], None),
        (folders[1], str(tmp_path / "mood.json")),
    ]
    assert told["settings"]["port"] == 8123
    assert told["slots"]["news"]["own"] == ["fake-large"]
    assert told["slots"]["mood"]["own"] == ["fake-small"]
    assert "wins over families of the settings file" in " ".join(result.stderr.split())
    alone = CliRunner().invoke(command, ["--settings", str(file), "--dry-run"], catch_exceptions=False)
    assert yaml.safe_load(alone.stdout)["settings"]["families"][0]["path"] == str(tmp_path / "news")


@pytest.mark.parametrize(
    ("policies", "said"),
    [
        (["policy.json"], "say which: NAME=policy.json"),
        (["weather=policy.json"], "the families are news, mood"),
    ],
)
def test_a_policy_of_nobody_is_refused(tmp_path: Path, policies: list[str], said: str) -> None:
    """Before anything starts, as a wrong command line."""
    for name in ("news", "mood"):
        write_fake_family(tmp_path / name, rows=60, name=name)
    write_policy(tmp_path / "policy.json", single_variant_policy("fake-small"))
    given = [word for policy in policies for word in ("--policy", policy)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        result = CliRunner().invoke(command, ["news", "mood", *given, "--dry-run"])
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())
