"""KServe: an InferenceService whose predictor is the container of `--format docker`."""

from pathlib import Path
from typing import Any, ClassVar

import yaml

from tuner.deploy.deployment import Deployment
from tuner.deploy.format import Format
from tuner.deploy.formats.kubernetes import BUSY, bounds, container, doubted, for_knative, volumes


class KServe(Format):
    name: ClassVar[str] = "kserve"

    def write(self, deployment: Deployment, out: Path) -> list[str]:
        held = deployment.capacity
        least, most = bounds(deployment, held)
        target = max(1, int(BUSY * held.rate))
        predictor: dict[str, Any] = {
            "minReplicas": least,
            "maxReplicas": most,
            "scaleMetric": "rps",
            "scaleTarget": target,
            "containers": [{"name": "kserve-container", **for_knative(container(deployment))}],
            "volumes": volumes(deployment),
        }
        service = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": deployment.name},
            "spec": {"predictor": predictor},
        }
        file = out / f"{deployment.name}.yaml"
        file.write_text(yaml.safe_dump(service, sort_keys=False, width=1000))
        return [
            f"kubectl create secret generic {deployment.name} --from-literal=api-key=… && kubectl apply -f {file}",
            f"the image {deployment.image} is what --format docker makes; push it where the cluster finds it (--image)",
            f"it scales at {target:,} requests per second and replica, of one sample each",
            *doubted(deployment),
        ]
