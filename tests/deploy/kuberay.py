"""The form of a RayService, `ray.io/v1`, as KubeRay 1.5 reads it: which keys there are, and of which kind.

Written from the fields that KubeRay's custom resource definition has (github.com/ray-project/kuberay,
Apache-2.0). Pods and services inside are Kubernetes' own and are checked against its schemas.
"""

from __future__ import annotations

from typing import Any

TEXT: dict[str, Any] = {"type": "string"}
FLAG: dict[str, Any] = {"type": "boolean"}
COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
TEXTS: dict[str, Any] = {"type": "object", "additionalProperties": TEXT}
POD: dict[str, Any] = {"type": "object", "required": ["metadata", "spec"]}


def _keys(required: tuple[str, ...] = (), **known: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(required),
        "properties": known,
    }


HEAD = _keys(
    ("rayStartParams", "template"),
    enableIngress=FLAG,
    headService={"type": "object"},
    labels=TEXTS,
    rayStartParams=TEXTS,
    resources=TEXTS,
    serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    template=POD,
)
WORKERS = _keys(
    ("groupName", "rayStartParams", "template"),
    groupName=TEXT,
    idleTimeoutSeconds=COUNT,
    labels=TEXTS,
    maxReplicas=COUNT,
    minReplicas=COUNT,
    numOfHosts=COUNT,
    rayStartParams=TEXTS,
    replicas=COUNT,
    resources=TEXTS,
    scaleStrategy={"type": "object"},
    suspend=FLAG,
    template=POD,
)
CLUSTER = _keys(
    ("headGroupSpec",),
    authOptions=_keys(mode={"enum": ["disabled", "token"]}),
    autoscalerOptions={"type": "object"},
    enableInTreeAutoscaling=FLAG,
    gcsFaultToleranceOptions={"type": "object"},
    headGroupSpec=HEAD,
    headServiceAnnotations=TEXTS,
    managedBy=TEXT,
    rayVersion=TEXT,
    suspend=FLAG,
    upgradeStrategy={"type": "object"},
    workerGroupSpecs={"type": "array", "items": WORKERS},
)
RAY_SERVICE = _keys(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayService"},
    metadata={"type": "object", "required": ["name"]},
    spec=_keys(
        ("rayClusterConfig", "serveConfigV2"),
        excludeHeadPodFromServeSvc=FLAG,
        rayClusterConfig=CLUSTER,
        rayClusterDeletionDelaySeconds=COUNT,
        serveConfigV2=TEXT,
        serveService={"type": "object"},
        suspend=FLAG,
        upgradeStrategy={"type": "object"},
    ),
)
