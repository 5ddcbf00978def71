"""What the options of `sluice serve` become."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

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
