"""The files for `serve deploy`: they fit Ray's schema, our settings, and each other."""

from __future__ import annotations

import importlib
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from serve.ray.cluster import MESSAGE_SIZE, SWITCHES, ClusterArguments
from serve.settings.file import read_settings
from serve.settings.limits import RequestLimits
from tests.deploy.serve_config import check_serve_config


@pytest.fixture(scope="module")
def serve_file(deploy: Path) -> dict[str, Any]:
    """The config for `serve deploy`."""
    found: dict[str, Any] = yaml.safe_load((deploy / "ray-serve.yaml").read_text())
    return found


@pytest.fixture(scope="module")
def environment(deploy: Path) -> dict[str, str]:
    """The variables of ray.env."""
    lines = (line for line in (deploy / "ray.env").read_text().splitlines() if line and line[0] != "#")
    return {name: shlex.split(value)[0] for name, _, value in (line.partition("=") for line in lines)}


def test_the_serve_config_fits_rays_schema(serve_file: dict[str, Any]) -> None:
    """Ray itself accepts it, with every key known to it."""
    check_serve_config(serve_file)


def test_import_path_leads_to_a_builder_and_its_arguments_are_known(serve_file: dict[str, Any]) -> None:
    """The builder exists, and every argument is a setting of the gateway."""
    application = serve_file["applications"][0]
    module, _, name = application["import_path"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))
    given = ClusterArguments.model_validate(application["args"]).read()
    assert given.port == serve_file["http_options"]["port"]
    assert given.host == serve_file["http_options"]["host"]
    assert given.state is not None


def test_a_settings_file_and_a_serve_config_have_the_same_names(
    serve_file: dict[str, Any], tmp_path: Path
) -> None:
    """`args.settings`, written to a file, is what `sluice serve --settings` and `settings_file` read."""
    raw = serve_file["applications"][0]["args"]["settings"]
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(raw))
    settings, _ = read_settings(path)
    assert settings == ClusterArguments.model_validate({"settings": raw}).read()
    assert settings == ClusterArguments.model_validate({"settings_file": str(path)}).read()


def test_the_example_of_a_settings_file_holds_every_setting(deploy: Path) -> None:
    """It is accepted as it stands, and names everything that can be set but the fakes."""
    path = deploy / "settings.example.yaml"
    settings, _ = read_settings(path)
    assert settings.stage_of("teacher").batch.max_items == 32
    raw = yaml.safe_load(path.read_text())
    assert names_missing(settings, raw) == ["fake"]


def names_missing(record: BaseModel, raw: dict[str, Any], path: str = "") -> list[str]:
    """The settings that `raw` does not name, down to single values."""
    missing = []
    for name in type(record).model_fields:
        value = getattr(record, name)
        if name not in raw:
            missing.append(path + name)
        elif isinstance(value, BaseModel):
            missing += names_missing(value, raw[name], f"{path}{name}.")
    return missing


def test_the_switches_that_the_gateway_asks_for_are_set(environment: dict[str, str]) -> None:
    """A node started with ray.env passes the check of the application."""
    assert SWITCHES.items() <= environment.items()
    assert environment[MESSAGE_SIZE] == str(RequestLimits().max_message_bytes)


def test_switches_are_ones_that_ray_knows(environment: dict[str, str]) -> None:
    """A misspelt switch would be ignored in silence: each name occurs in the installed Ray."""
    folder = Path(str(importlib.import_module("ray").__file__)).parent
    sources = [
        *(folder / "serve" / "_private").glob("*.py"),
        *(folder / "_private").rglob("*.py"),
        *(folder / "_common").rglob("*.py"),
        folder / "_raylet.so",
    ]
    text = b"".join(path.read_bytes() for path in sources if path.is_file())
    for name in environment:
        assert name.encode() in text or name.removeprefix("RAY_").encode() in text, name
