"""The files for `serve deploy` and KubeRay: they fit Ray's schema, our settings, and each other."""

from __future__ import annotations

import importlib
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from serve.ray.cluster import SWITCHES, ClusterArguments
from serve.settings.file import read_settings
from serve.settings.gateway import Settings

CONTAINER = {
    "type": "object",
    "required": ["name", "image", "env", "ports", "resources", "securityContext", "livenessProbe",
                 "readinessProbe", "startupProbe"],
    "properties": {
        "env": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "value"],
                "properties": {"name": {"type": "string"}, "value": {"type": "string"}},
            },
        },
        "securityContext": {
            "type": "object",
            "properties": {
                "allowPrivilegeEscalation": {"const": False},
                "capabilities": {"const": {"drop": ["ALL"]}},
            },
            "required": ["allowPrivilegeEscalation", "capabilities"],
        },
        "resources": {"type": "object", "required": ["requests", "limits"]},
    },
}  # fmt: skip
RAY_SERVICE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayService"},
        "metadata": {"type": "object", "required": ["name"]},
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["serveConfigV2", "rayClusterConfig"],
            "properties": {
                "serviceUnhealthySecondThreshold": {"type": "integer"},
                "deploymentUnhealthySecondThreshold": {"type": "integer"},
                "serveConfigV2": {"type": "string"},
                "rayClusterConfig": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["rayVersion", "authOptions", "headGroupSpec"],
                    "properties": {
                        "rayVersion": {"type": "string"},
                        "authOptions": {"const": {"mode": "token"}},
                        "headGroupSpec": {
                            "type": "object",
                            "required": ["rayStartParams", "template"],
                            "properties": {
                                "rayStartParams": {
                                    "type": "object",
                                    "additionalProperties": {"type": "string"},
                                },
                                "template": {
                                    "type": "object",
                                    "properties": {
                                        "spec": {
                                            "type": "object",
                                            "properties": {
                                                "containers": {"type": "array", "items": CONTAINER},
                                                "securityContext": {
                                                    "type": "object",
                                                    "properties": {"runAsNonRoot": {"const": True}},
                                                    "required": ["runAsNonRoot", "seccompProfile"],
                                                },
                                            },
                                            "required": ["containers", "securityContext"],
                                        }
                                    },
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}


@pytest.fixture(scope="module")
def serve_file(deploy: Path) -> dict[str, Any]:
    """The config for `serve deploy`."""
    found: dict[str, Any] = yaml.safe_load((deploy / "ray-serve.yaml").read_text())
    return found


@pytest.fixture(scope="module")
def kubernetes(deploy: Path) -> dict[str, dict[str, Any]]:
    """The Kubernetes objects by kind."""
    documents = yaml.safe_load_all((deploy / "kuberay-rayservice.yaml").read_text())
    return {document["kind"]: document for document in documents}


@pytest.fixture(scope="module")
def in_cluster(kubernetes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The Serve config inside the RayService."""
    found: dict[str, Any] = yaml.safe_load(kubernetes["RayService"]["spec"]["serveConfigV2"])
    return found


@pytest.fixture(scope="module")
def environment(deploy: Path) -> dict[str, str]:
    """The variables of ray.env."""
    lines = (line for line in (deploy / "ray.env").read_text().splitlines() if line and line[0] != "#")
    return {name: shlex.split(value)[0] for name, _, value in (line.partition("=") for line in lines)}


def test_serve_configs_fit_rays_schema(serve_file: dict[str, Any], in_cluster: dict[str, Any]) -> None:
    """Ray itself accepts both, with every key known to it."""
    schema = importlib.import_module("ray.serve.schema")
    for config in (serve_file, in_cluster):
        parsed = schema.ServeDeploySchema.model_validate(config)
        assert parsed.http_options.port == 8000
        assert set(config) <= set(schema.ServeDeploySchema.model_fields)
        for application in config["applications"]:
            assert set(application) <= set(schema.ServeApplicationSchema.model_fields)


def test_both_ways_deploy_the_same_application(
    serve_file: dict[str, Any], in_cluster: dict[str, Any]
) -> None:
    """One laptop or a cluster: the same application with the same settings."""
    assert serve_file["applications"] == in_cluster["applications"]


def test_import_path_leads_to_a_builder_and_its_arguments_are_known(serve_file: dict[str, Any]) -> None:
    """The builder exists, and every argument is a setting of the gateway."""
    application = serve_file["applications"][0]
    module, _, name = application["import_path"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))
    given = ClusterArguments.model_validate(application["args"]).settings
    assert given.port == serve_file["http_options"]["port"]
    assert given.host == serve_file["http_options"]["host"]
    assert given.state is not None


def test_a_settings_file_and_a_serve_config_have_the_same_names(
    serve_file: dict[str, Any], in_cluster: dict[str, Any], tmp_path: Path
) -> None:
    """`args.settings` of either config, written to a file, is what `sluice serve --settings` reads."""
    for config in (serve_file, in_cluster):
        raw = config["applications"][0]["args"]["settings"]
        path = tmp_path / "settings.yaml"
        path.write_text(yaml.safe_dump(raw))
        settings, _ = read_settings(path)
        assert settings == ClusterArguments.model_validate({"settings": raw}).settings


def test_the_example_of_a_settings_file_holds_every_setting(deploy: Path) -> None:
    """It is accepted as it stands, and names everything that can be set but the fakes."""
    path = deploy / "settings.example.yaml"
    settings, _ = read_settings(path)
    assert settings.stage_of("teacher").batch.max_items == 32
    raw = yaml.safe_load(path.read_text())
    assert set(raw) == set(Settings.model_fields) - {"fake"}
    for name in ("limits", "stage"):
        assert set(raw[name]) == set(type(getattr(settings, name)).model_fields)


def test_every_switch_is_set_for_every_way_to_start(
    environment: dict[str, str], kubernetes: dict[str, dict[str, Any]]
) -> None:
    """ray.env and the pod hold the same variables; the pod's token mode comes from KubeRay."""
    template = kubernetes["RayService"]["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]
    pod = {item["name"]: item["value"] for item in template["spec"]["containers"][0]["env"]}
    assert SWITCHES.items() <= environment.items()
    assert pod | {"RAY_AUTH_MODE": "token"} == environment


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


def test_ray_service_has_the_form_that_kuberay_reads(kubernetes: dict[str, dict[str, Any]]) -> None:
    """Keys are KubeRay's; the container is not root, is probed, and Ray asks for a token."""
    jsonschema.validate(kubernetes["RayService"], RAY_SERVICE)
    import ray

    assert kubernetes["RayService"]["spec"]["rayClusterConfig"]["rayVersion"] == ray.__version__


def test_only_the_gateways_port_is_open_to_all(kubernetes: dict[str, dict[str, Any]]) -> None:
    """The network policy selects the pods and opens nothing but 8000 to everybody."""
    spec = kubernetes["NetworkPolicy"]["spec"]
    labels = spec["podSelector"]["matchLabels"]
    template = kubernetes["RayService"]["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]
    assert labels.items() <= template["metadata"]["labels"].items()
    assert spec["policyTypes"] == ["Ingress"]
    to_all = [rule for rule in spec["ingress"] if "from" not in rule]
    assert [port["port"] for rule in to_all for port in rule["ports"]] == [8000]


def test_the_volume_that_is_mounted_is_claimed(kubernetes: dict[str, dict[str, Any]]) -> None:
    """Family, policy and state lie on the claim that the file makes."""
    pod = kubernetes["RayService"]["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]
    claims = {v["name"]: v.get("persistentVolumeClaim", {}).get("claimName") for v in pod["volumes"]}
    mounts = {m["name"]: m["mountPath"] for m in pod["containers"][0]["volumeMounts"]}
    assert claims["sluicegate"] == kubernetes["PersistentVolumeClaim"]["metadata"]["name"]
    assert mounts["sluicegate"] == "/srv/sluicegate"
