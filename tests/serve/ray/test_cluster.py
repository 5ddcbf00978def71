"""The application of a Serve config file: what it refuses before anything is deployed."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract.errors import EnvironmentProblem, InputError
from contract.family import read_family
from serve.control.family_store import open_family_store
from serve.control.revision_store import open_revisions
from serve.ray.cluster import MESSAGE_SIZE, SWITCHES, application
from serve.settings.limits import RequestLimits


@pytest.fixture
def switched(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment in which Ray was started as it should be."""
    for name, value in SWITCHES.items():
        monkeypatch.setenv(name, value)


def test_an_unknown_setting_is_refused_by_name(switched: None) -> None:
    """A misspelt option is never silently dropped."""
    with pytest.raises(InputError, match=r"settings\.replcas"):
        application({"settings": {"fake": {}, "state": "/tmp/s", "replcas": 2}})


def test_ray_without_the_switches_is_refused(
    switched: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without HAProxy the gateway would be slow and nobody would know why."""
    monkeypatch.delenv("RAY_SERVE_ENABLE_HA_PROXY")
    with pytest.raises(EnvironmentProblem, match=r"RAY_SERVE_ENABLE_HA_PROXY.*\n.*ray\.env"):
        application({"settings": {"fake": {}, "state": str(tmp_path)}})


def test_grpc_needs_a_bound_on_messages(
    switched: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ray's servers read a message before we see a key: by themselves 2 GiB of it."""
    given = {"settings": {"fake": {}, "state": str(tmp_path / "state"), "grpc_port": 9000}}
    monkeypatch.delenv(MESSAGE_SIZE, raising=False)
    for size in (None, str(1 << 31)):
        if size is not None:
            monkeypatch.setenv(MESSAGE_SIZE, size)
        with pytest.raises(EnvironmentProblem, match=r"GRPC_MAX_MESSAGE_SIZE=1064960.*\n.*ray\.env"):
            application(given)
    monkeypatch.setenv(MESSAGE_SIZE, str(RequestLimits().max_message_bytes))
    assert type(application(given)).__name__ == "Application"


def test_a_cluster_needs_a_state_directory(switched: None) -> None:
    """A state that only one process sees would let replicas disagree for ever."""
    with pytest.raises(InputError, match=r"settings\.state is needed"):
        application({"settings": {"fake": {}}})


def test_a_fake_family_makes_an_application(switched: None, tmp_path: Path) -> None:
    """With everything there, the builder returns what Serve deploys, and the first revision is committed."""
    built = application({"settings": {"fake": {}, "state": str(tmp_path / "state")}})
    assert type(built).__name__ == "Application"
    assert any((tmp_path / "state").rglob("*.json"))


def test_a_state_that_stays_in_force_is_told_in_the_log(
    switched: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What `sluice serve` says in its terminal while it starts is in the log of a deploy."""
    for seed in (1, 2):
        application({"settings": {"fake": {"seed": seed}, "state": str(tmp_path / "state")}})
    assert "the state directory was for another family" in caplog.text


def test_every_deploy_counts_in_a_folder_of_its_own(switched: None, tmp_path: Path) -> None:
    """Figures of an earlier deploy are not added to, and nobody can prepare the folder beforehand."""
    folders = set()
    for _ in range(2):
        built = application(
            {"metrics": str(tmp_path / "m"), "settings": {"fake": {}, "state": str(tmp_path / "state")}}
        )
        options = built._bound_deployment.ray_actor_options
        folders.add(Path(options["runtime_env"]["env_vars"]["PROMETHEUS_MULTIPROC_DIR"]))
    assert len(folders) == 2
    assert {folder.parent for folder in folders} == {tmp_path / "m"}


def test_settings_may_come_from_a_file(switched: None, tmp_path: Path) -> None:
    """A ConfigMap on the head's disk does for what else stands in the Serve config."""
    file = tmp_path / "settings.yaml"
    file.write_text("fake: {}\nstate: state\n")
    built = application({"settings_file": str(file)})
    assert type(built).__name__ == "Application"
    assert any((tmp_path / "state" / "revisions").glob("*.json"))
    for wrong in ({}, {"settings": {"fake": {}}, "settings_file": str(file)}):
        with pytest.raises(InputError, match="settings or settings_file"):
            application(wrong)


def test_the_family_is_kept_with_the_state(switched: None, tmp_path: Path) -> None:
    """A node that has not the folder of the family fetches it by its hash."""
    application({"settings": {"fake": {}, "state": str(tmp_path / "state")}})
    latest = open_revisions(str(tmp_path / "state")).latest()
    assert latest is not None
    fetched = open_family_store(str(tmp_path / "state"), tmp_path / "node").fetch(latest.family_sha256)
    assert read_family(fetched).sha256 == latest.family_sha256


def test_certificates_that_have_no_effect_on_a_cluster_are_refused(switched: None, tmp_path: Path) -> None:
    """Nobody is to take a connection for encrypted that is not."""
    tls = {"cert": "/c.pem", "key": "/k.pem"}
    with pytest.raises(InputError, match=r"settings\.tls has no effect on a cluster"):
        application({"settings": {"fake": {}, "state": str(tmp_path), "tls": tls}})
