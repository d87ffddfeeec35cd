"""A Deployment, its Service, and an autoscaler on what one replica was measured to hold."""

import math
from pathlib import Path
from typing import Any, ClassVar

import yaml

from tuner.deploy.capacity import Capacity
from tuner.deploy.deployment import PORT, Deployment, batch_bytes
from tuner.deploy.format import Format

_METRIC = "tune_serve_samples_per_second"
_USER = 10001
_SERVER_MB = 256  # what `tune serve` takes besides the processes of its sessions
_SECRET = "api-key"
_START_S = 600  # what a session may take to load
_LINGER_S = 5  # until nobody is sent to a pod that is about to end
_DRAIN_S = 30
BUSY = 0.7  # of what a replica holds: above it, a pod more; at the limit itself the rate answered grows no further
_LEAST = 2  # without a rate: one, and one to spare


class Kubernetes(Format):
    name: ClassVar[str] = "kubernetes"

    def write(self, deployment: Deployment, out: Path) -> list[str]:
        held = deployment.capacity
        documents = [_deployment(deployment), _service(deployment), _autoscaler(deployment, held)]
        text = "---\n".join(yaml.safe_dump(each, sort_keys=False, width=1000) for each in documents)
        (out / f"{deployment.name}.yaml").write_text(text)
        return [
            f"kubectl create secret generic {deployment.name} --from-literal={_SECRET}=… && "
            f"kubectl apply -f {out / deployment.name}.yaml",
            f"the image {deployment.image} is what --format docker makes; push it where the cluster finds it (--image)",
            f"the autoscaler asks for the metric {_METRIC} of each pod: docs/export.md has the rule for "
            "prometheus-adapter that gives it",
            *doubted(deployment),
        ]


def container(deployment: Deployment) -> dict[str, Any]:
    """The container of a replica: the image, its key, what it may use, and when it is well."""
    shared_mb = batch_bytes(deployment) / 1e6
    resources: dict[str, Any] = {"requests": {"cpu": str(deployment.cores)}, "limits": {"cpu": str(deployment.cores)}}
    if (peak_mb := deployment.measurement.memory_mb) is not None:  # of all sessions in one process: each has its own
        weights_mb = deployment.measurement.size_mb or 0.0  # again for each smaller batch, as each session has its own
        peak_mb += 2 * weights_mb * len(deployment.manifest.smaller)
        memory_mb = round(deployment.manifest.candidate.replicas * peak_mb + shared_mb) + _SERVER_MB
        resources["requests"]["memory"] = resources["limits"]["memory"] = f"{memory_mb}M"
    if (device := deployment.manifest.target.hardware.kubernetes) is not None:
        resources["limits"][device] = 1

    def probe(path: str, **times: int) -> dict[str, Any]:
        return {"httpGet": {"path": path, "port": PORT}, **times}

    secret = {"name": deployment.name, "key": _SECRET}
    return {
        "image": deployment.image,
        "ports": [{"containerPort": PORT, "protocol": "TCP"}],
        "env": [{"name": "TUNE_API_KEY", "valueFrom": {"secretKeyRef": secret}}],
        "resources": resources,
        "startupProbe": probe("/v2/health/ready", periodSeconds=2, failureThreshold=_START_S // 2),
        "readinessProbe": probe("/v2/health/ready", periodSeconds=5, timeoutSeconds=2),
        "livenessProbe": probe("/v2/health/live", periodSeconds=10, timeoutSeconds=5),
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(_LINGER_S)]}}},
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "batches", "mountPath": "/dev/shm"}],
    }


def volumes(deployment: Deployment) -> list[dict[str, Any]]:
    """What the server and its sessions share: a container has 64 MB of it by itself."""
    megabytes = math.ceil(batch_bytes(deployment) / 1e6) + 1
    return [{"name": "batches", "emptyDir": {"medium": "Memory", "sizeLimit": f"{megabytes}M"}}]


def for_knative(container: dict[str, Any]) -> dict[str, Any]:
    """KServe may run on it: it has no probe of the start and no hook of the end, and drains by itself."""
    kept = {key: value for key, value in container.items() if key not in ("startupProbe", "lifecycle")}
    return {**kept, "livenessProbe": {**container["livenessProbe"], "initialDelaySeconds": _START_S}}


def bounds(deployment: Deployment, held: Capacity) -> tuple[int, int]:
    """The least replicas, which hold the rate that is wanted with one to spare, and the most."""
    rate = deployment.wanted.rate
    least = _LEAST if rate is None else held.copies(rate)
    return least, 2 * least


def doubted(deployment: Deployment) -> list[str]:
    """What to doubt in what a replica holds."""
    if deployment.wanted.held is not None:
        return []
    return [
        f"that a replica holds {deployment.capacity.rate:,.0f} samples/s is simulated, without what a server adds; "
        "measure a running one, and give what it held: --held R"
    ]


def _labels(deployment: Deployment) -> dict[str, str]:
    return {"app.kubernetes.io/name": deployment.name}


def _deployment(deployment: Deployment) -> dict[str, Any]:
    pod = {
        "terminationGracePeriodSeconds": _LINGER_S + _DRAIN_S + 5,
        "automountServiceAccountToken": False,
        "containers": [{"name": "serve", **container(deployment)}],
        "volumes": volumes(deployment),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": deployment.name, "labels": _labels(deployment)},
        "spec": {  # no replicas: they are the autoscaler's
            "selector": {"matchLabels": _labels(deployment)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {"metadata": {"labels": _labels(deployment)}, "spec": pod},
        },
    }


def _service(deployment: Deployment) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": deployment.name, "labels": _labels(deployment)},
        "spec": {
            "selector": _labels(deployment),
            "ports": [{"name": "http", "port": 80, "targetPort": PORT, "protocol": "TCP"}],
        },
    }


def _autoscaler(deployment: Deployment, held: Capacity) -> dict[str, Any]:
    least, most = bounds(deployment, held)
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": deployment.name, "labels": _labels(deployment)},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment.name},
            "minReplicas": least,
            "maxReplicas": most,
            "metrics": [
                {
                    "type": "Pods",
                    "pods": {
                        "metric": {"name": _METRIC},
                        "target": {"type": "AverageValue", "averageValue": f"{round(BUSY * held.rate * 1e3)}m"},
                    },
                }
            ],
        },
    }
