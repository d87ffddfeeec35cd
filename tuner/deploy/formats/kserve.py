"""KServe: an InferenceService whose predictor is the container of `--format docker`."""

from pathlib import Path
from typing import Any, ClassVar

import yaml

from tuner.deploy.deployment import Deployment
from tuner.deploy.format import Format
from tuner.deploy.formats.kubernetes import bounds, container, doubted


class KServe(Format):
    name: ClassVar[str] = "kserve"
    by_tune_serve: ClassVar[bool] = True

    def write(self, deployment: Deployment, out: Path) -> list[str]:
        held = deployment.capacity
        least, most = bounds(deployment, held)
        predictor: dict[str, Any] = {
            "minReplicas": least,
            "maxReplicas": most,
            "scaleMetric": "rps",
            "scaleTarget": max(1, int(held.rate)),
            "containers": [{"name": "kserve-container", **container(deployment)}],
        }
        # Knative, which KServe may run on, has no probe of the start
        del predictor["containers"][0]["startupProbe"]
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
            f"it scales at {int(held.rate):,} requests per second and replica, of one sample each",
            *doubted(deployment),
        ]
