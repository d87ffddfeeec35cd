"""A context for `docker build`: the artifact, the source that loads it, pinned requirements, and `tune serve`."""

import importlib.metadata
import math
from pathlib import Path
from typing import ClassVar

from packaging.requirements import Requirement

from tuner.deploy.deployment import PORT, Deployment, batch_bytes
from tuner.deploy.format import Format
from tuner.errors import RequestError
from tuner.system.environment import library_versions

_USER = 10001
_SHARED_MB = 60  # a container has 64 MB by itself
_READY = "/v2/health/ready"
_DOCKERFILE = """\
FROM python:{python}-slim

RUN useradd --uid {user} --create-home serve
WORKDIR /srv
COPY requirements.txt ./
RUN pip install --no-cache-dir --requirement requirements.txt
COPY code ./code
COPY champion ./champion

ENV PYTHONPATH=/srv/code PYTHONUNBUFFERED=1 {variables}
USER {user}
EXPOSE {port}
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \\
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:{port}{ready}', timeout=4)"]
CMD {command}
"""


class Docker(Format):
    name: ClassVar[str] = "docker"

    def write(self, deployment: Deployment, out: Path) -> list[str]:
        candidate = deployment.manifest.candidate
        installed = deployment.copy_with_code(out, candidate.replicas)
        versions = deployment.facts["versions"]
        lines = deployment.requirements(*_of_the_server(), *installed)
        if any(
            found.endswith("+cpu") for found in versions.values()
        ):  # PyPI's wheels of torch are the large ones, for GPUs
            lines.insert(0, "--extra-index-url https://download.pytorch.org/whl/cpu")
        (out / "requirements.txt").write_text("\n".join(lines) + "\n")
        command = ["python", "-m", "tuner.cli", "serve", "/srv/champion", "--name", deployment.name]
        command += ["--host", "0.0.0.0", "--port", str(PORT)]
        python = versions.get("python", "3.11").split(".")
        environment = deployment.manifest.target.environment
        (out / "Dockerfile").write_text(
            _DOCKERFILE.format(
                python=".".join(python[:2]),
                user=_USER,
                port=PORT,
                ready=_READY,
                variables=" ".join(f"{name}={value}" for name, value in sorted(environment.items())),
                command="[" + ", ".join(f'"{word}"' for word in command) + "]",
            )
        )
        (out / ".dockerignore").write_text("**/__pycache__\n")
        notes = [
            f"docker build -t {deployment.image} {out} && "
            f"docker run {_memory(deployment)}-p {PORT}:{PORT} -e TUNE_API_KEY=… {deployment.image}"
        ]
        if candidate.backend.loader(deployment.manifest.inputs, deployment.batch_size, deployment.replica) is None:
            notes.append("where the model is a class of your own, give its module: --code my_package")
        return notes


def _memory(deployment: Deployment) -> str:
    """The option that gives the server and its sessions room for their batches in memory; else they share a disk."""
    megabytes = batch_bytes(deployment) / 1e6
    return f"--shm-size {math.ceil(megabytes) + 1}m " if megabytes > _SHARED_MB else ""


def _of_the_server() -> list[str]:
    """The distributions that `tune serve` needs besides the artifact's own: those of the extra of that name, and the
    tuner's own that it imports whatever it does. Raises RequestError where they are not here, to be pinned."""
    required = [Requirement(line) for line in importlib.metadata.requires("inference-tuner") or ()]
    served = [r.name for r in required if r.marker is not None and r.marker.evaluate({"extra": "serve"})]
    absent = [name for name, version in library_versions({*served}).items() if version == "absent"]
    if absent or not served:
        raise RequestError(
            f"--format docker pins what tune serve needs: {', '.join(absent) or 'its extra'} is not installed; "
            "pip install 'inference-tuner[serve]'"
        )
    return [*served, "numpy", "packaging", "psutil"]
