"""Servers of `tune serve` for tests, in a process of their own, and requests that a stranger would send."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import requests

from tests import study
from tests.fakes import Waking
from tests.servers import free_port
from tuner import artifact
from tuner.candidate import Candidate
from tuner.plugin import Backend
from tuner.serve.protocol import HEADER_LENGTH, encoded
from tuner.target import Target
from tuner.testing.fakes import INPUTS, WEIGHTS

BATCH = 8
OPTIONS = ("--quiet", "--latency-ms", "50")


def packaged(folder: Path, backend: Backend | None = None, replicas: int = 1) -> Path:
    """An artifact that answers with the first three of a sample's four numbers, in 2 ms of real time."""
    candidate = Candidate((), backend or Waking(2.0), BATCH, replicas=replicas)
    (folder / artifact.FILES).mkdir(parents=True)
    np.save(folder / artifact.FILES / WEIGHTS, np.eye(4, 3, dtype=np.float32))
    artifact.write_manifest(folder, candidate, Target("cpu", "cpu", threads=2), INPUTS, {})
    return folder


@dataclass
class Served:
    """A server that answers at `address`, and the name of what it serves."""

    address: str
    process: "subprocess.Popen[str]"
    name: str = "model"

    @property
    def infer(self) -> str:
        return f"{self.address}/v2/models/{self.name}/infer"

    def counts(self) -> dict[str, float]:
        """Its metrics, by name and labels."""
        lines = requests.get(f"{self.address}/metrics", timeout=10).text.splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    def outcomes(self) -> dict[str, int]:
        """Requests by how they ended, but for the ends that none had."""
        prefix = 'tune_serve_requests_total{outcome="'
        counted = {k.removeprefix(prefix)[:-2]: int(v) for k, v in self.counts().items() if k.startswith(prefix)}
        return {outcome: count for outcome, count in counted.items() if count}

    def replicas(self) -> list[psutil.Process]:
        (server,) = [p for p in psutil.Process(self.process.pid).children() if p.children()]  # that forks them
        return server.children()


@contextlib.contextmanager
def serving(
    place: Path | str,
    *options: str,
    env: dict[str, str] | None = None,
    tls: dict[str, Any] | None = None,
    log: Path | None = None,
) -> Iterator[Served]:
    """A server of the artifact in that place; killed at the end, if it is still there. Where it encrypts, `tls` is what
    a request needs for that. Its `log` is `server.log` beside the artifact unless the test says otherwise."""
    port, log = free_port(), log or Path(place).parent / "server.log"
    options = (str(place), "--port", str(port), "--name", "model", *options)
    with log.open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "tuner.cli", "serve", *options],
            cwd=study.ROOT,
            env=os.environ | (env or {}),
            stdout=said,
            stderr=said,
            text=True,
        )
    try:
        served = Served(f"http{'s' * (tls is not None)}://127.0.0.1:{port}", process)
        end = time.monotonic() + 60
        while not _ready(served.address, tls or {}):
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        yield served
    finally:
        process.kill()
        process.wait()


def _ready(address: str, tls: dict[str, Any]) -> bool:
    with contextlib.suppress(requests.ConnectionError):
        return requests.get(f"{address}/v2/health/ready", timeout=10, **tls).status_code == 200
    return False


def sample(identity: float, count: int = 1) -> dict[str, Any]:
    """Inputs whose answer begins with that number."""
    return {"x": np.full((count, 4), identity, np.float32)}


def identity_of(body: bytes, header_length: str) -> list[float]:
    """What the samples of an answer in bytes begin with."""
    return np.frombuffer(body[int(header_length) :], np.float32).reshape(-1, 3)[:, 0].tolist()


def asked(served: Served, identity: float, count: int = 1, **options: Any) -> requests.Response:
    body, headers = encoded(sample(identity, count))
    options["headers"] = headers | options.get("headers", {})
    return requests.post(served.infer, data=body, timeout=30, **options)


__all__ = ["HEADER_LENGTH", "Served", "asked", "identity_of", "packaged", "sample", "serving"]
