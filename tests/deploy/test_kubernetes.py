"""The files for Kubernetes: they fit KubeRay, Kubernetes, our settings, ray.env, and each other."""

from __future__ import annotations

import importlib
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from serve.ray.cluster import SWITCHES, ClusterArguments
from serve.settings.file import read_settings
from tests.deploy.kuberay import RAY_SERVICE
from tests.deploy.serve_config import check_serve_config

KUBERNETES = "1.33"


@pytest.fixture(scope="module")
def folder(deploy: Path) -> Path:
    """What `kubectl apply -k` is given."""
    return deploy / "kubernetes"


@pytest.fixture(scope="module")
def objects(folder: Path) -> dict[str, dict[str, Any]]:
    """The objects of the kustomization's files, and the job beside them, by kind."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    files = [*kustomization["resources"], "keys-job.yaml"]
    documents = [document for name in files for document in yaml.safe_load_all((folder / name).read_text())]
    return {document["kind"]: document for document in documents}


@pytest.fixture(scope="module")
def cluster(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The Ray cluster inside the RayService."""
    found: dict[str, Any] = objects["RayService"]["spec"]["rayClusterConfig"]
    return found


@pytest.fixture(scope="module")
def templates(cluster: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The pods of head and workers."""
    [workers] = cluster["workerGroupSpecs"]
    return {"head": cluster["headGroupSpec"]["template"], "worker": workers["template"]}


def test_the_ray_service_has_the_form_that_kuberay_reads(
    objects: dict[str, dict[str, Any]], cluster: dict[str, Any]
) -> None:
    """Every key is one of KubeRay's, Ray asks for a token, and its version is the installed one."""
    jsonschema.validate(objects["RayService"], RAY_SERVICE)
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["rayVersion"] == importlib.import_module("ray").__version__


def test_everything_else_fits_kubernetes_own_schemas(
    objects: dict[str, dict[str, Any]], templates: dict[str, dict[str, Any]]
) -> None:
    """Strictly: a key that Kubernetes does not know is an error, in pods of the RayService too."""
    pods = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, **template["metadata"]},
            "spec": template["spec"],
        }
        for name, template in templates.items()
    ]
    for each in [*(found for kind, found in objects.items() if kind != "RayService"), *pods]:
        check_kubernetes_knows(each)


def test_the_serve_config_takes_its_settings_from_the_config_map(
    folder: Path, objects: dict[str, dict[str, Any]], templates: dict[str, dict[str, Any]]
) -> None:
    """Its file is where the head mounts the map, and holds settings that this gateway accepts."""
    config = yaml.safe_load(objects["RayService"]["spec"]["serveConfigV2"])
    check_serve_config(config)
    arguments = ClusterArguments.model_validate(config["applications"][0]["args"])
    [generated] = yaml.safe_load((folder / "kustomization.yaml").read_text())["configMapGenerator"]
    mounts = mounted(templates["head"])
    assert mounts["settings"]["configMap"]["name"] == generated["name"]
    assert arguments.settings_file == f"{mounts['settings']['mountPath']}/{generated['files'][0]}"
    settings, _ = read_settings(folder / generated["files"][0])
    assert settings.port == config["http_options"]["port"]
    assert settings.host == config["http_options"]["host"]
    assert str(settings.family).startswith(mounts["family"]["mountPath"])


def test_the_state_is_where_every_pod_reaches_it(
    folder: Path, objects: dict[str, dict[str, Any]], templates: dict[str, dict[str, Any]]
) -> None:
    """In an object store, whose credentials every pod has from one Secret; families are cached on each."""
    settings, _ = read_settings(folder / "settings.yaml")
    assert str(settings.state).startswith("s3://")
    job = objects["Job"]["spec"]["template"]
    assert str(settings.state) in job["spec"]["containers"][0]["args"]
    for template in (*templates.values(), job):
        [secret] = template["spec"]["containers"][0]["envFrom"]
        assert secret == {"secretRef": {"name": "sluicegate-store"}}
    for template in templates.values():
        assert str(settings.family_cache).startswith(mounted(template)["cache"]["mountPath"])


def test_every_switch_is_set_on_every_pod(deploy: Path, templates: dict[str, dict[str, Any]]) -> None:
    """The pods have what ray.env has; the token's mode comes from KubeRay."""
    lines = (line for line in (deploy / "ray.env").read_text().splitlines() if line and line[0] != "#")
    environment = {name: shlex.split(value)[0] for name, _, value in (line.partition("=") for line in lines)}
    for template in templates.values():
        pod = {item["name"]: item["value"] for item in template["spec"]["containers"][0]["env"]}
        assert pod | {"RAY_AUTH_MODE": "token"} == environment
    assert SWITCHES.items() <= environment.items()


def test_the_head_holds_no_work(objects: dict[str, dict[str, Any]], cluster: dict[str, Any]) -> None:
    """No replica fits on it, and no client is sent there."""
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert objects["RayService"]["spec"]["excludeHeadPodFromServeSvc"] is True


def test_the_workers_have_room_for_the_replicas(folder: Path, cluster: dict[str, Any]) -> None:
    """The fewest workers that may be left hold a part of the gateway; all that are asked for hold all."""
    settings, _ = read_settings(folder / "settings.yaml")
    [workers] = cluster["workerGroupSpecs"]
    assert settings.replicas_per_node is not None
    assert workers["replicas"] * settings.replicas_per_node >= settings.gateway_replicas
    assert 2 <= workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]


def test_containers_have_limits_and_no_rights(
    objects: dict[str, dict[str, Any]], templates: dict[str, dict[str, Any]]
) -> None:
    """Nobody is root, nothing is escalated, and every long-lived container is probed."""
    job = objects["Job"]["spec"]["template"]
    for template in (*templates.values(), job):
        assert template["spec"]["securityContext"]["runAsNonRoot"] is True
        assert template["spec"]["automountServiceAccountToken"] is False
        [container] = template["spec"]["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"requests", "limits"} <= set(container["resources"])
    for template in templates.values():
        assert {"startupProbe", "livenessProbe"} <= set(template["spec"]["containers"][0])


def test_only_the_gateways_port_is_open_to_all(
    objects: dict[str, dict[str, Any]], templates: dict[str, dict[str, Any]]
) -> None:
    """The network policy selects all pods and opens nothing but 8000 to everybody."""
    spec = objects["NetworkPolicy"]["spec"]
    for template in templates.values():
        assert spec["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert spec["policyTypes"] == ["Ingress"]
    to_all = [rule for rule in spec["ingress"] if "from" not in rule]
    assert [port["port"] for rule in to_all for port in rule["ports"]] == [8000]


def test_the_dashboard_is_open_to_the_operator_alone(objects: dict[str, dict[str, Any]]) -> None:
    """As both the chart and the kustomization of KubeRay label it, and not as every Ray pod is labelled."""
    [rule] = [
        rule
        for rule in objects["NetworkPolicy"]["spec"]["ingress"]
        if any(port["port"] == 8265 for port in rule.get("ports", ()))
    ]
    [source] = rule["from"]
    chosen = source["podSelector"]["matchLabels"].items()
    for name in ("kuberay", "kuberay-operator"):
        operator = {"app.kubernetes.io/name": name, "app.kubernetes.io/component": "kuberay-operator"}
        assert chosen <= operator.items()
    by_default = {"app.kubernetes.io/name": "kuberay", "app.kubernetes.io/created-by": "kuberay-operator"}
    assert not chosen <= by_default.items()


def test_drained_nodes_take_one_worker_at_a_time(
    objects: dict[str, dict[str, Any]], templates: dict[str, dict[str, Any]]
) -> None:
    """The disruption budget selects the workers and not the head."""
    spec = objects["PodDisruptionBudget"]["spec"]
    assert spec["maxUnavailable"] == 1
    chosen = spec["selector"]["matchLabels"].items()
    assert chosen <= templates["worker"]["metadata"]["labels"].items()
    assert not chosen <= templates["head"]["metadata"]["labels"].items()


def mounted(template: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the volumes of a pod with the paths where its container has them."""
    volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
    mounts = template["spec"]["containers"][0]["volumeMounts"]
    assert {mount["name"] for mount in mounts} == set(volumes)
    return {mount["name"]: volumes[mount["name"]] | mount for mount in mounts}


def check_kubernetes_knows(thing: dict[str, Any]) -> None:
    """Hold an object against Kubernetes' schema of its kind; raises on a key that is not there."""
    kubernetes_validate.validate(thing, KUBERNETES, strict=True)
