"""OpenVINO Model Server: a folder of versions, and the configuration that sets the runtime as it was measured."""

import json
import shutil
from pathlib import Path
from typing import ClassVar

from tuner.deploy.deployment import Batching, Deployment
from tuner.deploy.format import Format
from tuner.errors import RequestError


class OpenVINOModelServer(Format):
    name: ClassVar[str] = "openvino-model-server"
    batching: ClassVar[Batching] = Batching.NONE

    def write(self, deployment: Deployment, out: Path) -> list[str]:
        candidate, name = deployment.manifest.candidate, deployment.name
        deployment.require_one_shape("OpenVINO Model Server as it is set up here")
        native = candidate.backend.native(self.name, deployment.files, deployment.manifest.target, candidate.replicas)
        if isinstance(native, str):
            raise RequestError(
                f"OpenVINO Model Server does not take {candidate.label}: {native}; --format docker or triton serves it"
            )
        shutil.copytree(deployment.files, out / name / "1")
        model = {
            "name": name,
            "base_path": f"/models/{name}",
            "nireq": candidate.replicas,
            "plugin_config": dict(native.settings),
        }
        (out / "config.json").write_text(json.dumps({"model_config_list": [{"config": model}]}, indent=2) + "\n")
        notes = [
            f"docker run -v {out}:/models:ro -p 8000:8000 openvino/model_server:latest "
            "--config_path /models/config.json --rest_port 8000"
        ]
        versions = [f"{name} {deployment.facts['versions'].get(name)}" for name in candidate.backend.libraries]
        notes.append(f"the server brings a runtime of its own; measured was {', '.join(versions)}")
        if deployment.batch_size > 1:
            notes.append(
                f"it forms no batches: each request must hold {deployment.batch_size} samples; --format docker or "
                "triton forms them of single ones"
            )
        return notes
