"""A packaged champion without a study: built, described, and with figures that the test gives."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tuner import artifact
from tuner.candidate import Candidate
from tuner.forms.onnx import ONNX
from tuner.measurement import Latency, Measurement
from tuner.model import Model
from tuner.plugin import Backend
from tuner.system.environment import environment, library_versions
from tuner.system.launcher import Launcher
from tuner.target import Target
from tuner.tensors import Arrays, TensorSpec
from tuner.testing.fakes import CENTRES, INPUTS, write_linear

CORES, LIMIT_MS = 4, 10.0
INPUT: tuple[TensorSpec, ...] = INPUTS


def packaged(
    folder: Path, backend: Backend, batch_size: int = 8, replicas: int = 1, calls_ms: Sequence[float] = (2.0,)
) -> Path:
    """`linear` in the backend, as a study leaves it in `folder / "champion"`."""
    champion, source = folder / "champion", folder / "source"
    for place in (champion / artifact.FILES, source, folder / "cache"):
        place.mkdir(parents=True)
    write_linear(source, CENTRES.T)
    model, target = Model(ONNX, source, INPUT), Target("cpu", "cpu", threads=1)
    with Launcher(8192, environment(1)).open(folder / "log") as worker:
        worker.run_for(120, backend.compile, model, batch_size, target, champion / artifact.FILES, folder / "cache")
    candidate = Candidate((), backend, batch_size, replicas)
    versions = library_versions({"numpy", *backend.libraries}) | {"python": "3.11.9"}
    artifact.write_manifest(champion, candidate, Target("cpu", "cpu"), INPUT, versions)
    batch: Arrays = {"x": np.resize(CENTRES, (batch_size, CENTRES.shape[1])).astype(np.float32)}
    np.savez(champion / artifact.EXAMPLE, **{"input:x": batch["x"], "output:0": batch["x"] @ CENTRES.T})
    calls = np.resize(np.asarray(calls_ms, np.float32), 400)
    np.save(champion / artifact.CALLS, calls)
    p50, p90, p95, p99 = (float(np.percentile(calls, q)) for q in (50, 90, 95, 99))
    measured = Measurement(Latency(p50, p90, p95, p99, (p95, p95)), throughput=batch_size / p50 * 1e3, memory_mb=100.0)
    artifact.extend_manifest(
        champion,
        measurement=measured.to_json(),
        goal={"latency_ms": LIMIT_MS, "latency_percentile": 95},
        machine={"cpu": "a processor", "cores": CORES},
        evenness=1.0,
    )
    return champion


def forget(champion: Path, *names: str) -> Path:
    """The champion as a version before had it: its manifest without those."""
    facts: dict[str, Any] = json.loads((champion / artifact.MANIFEST).read_text())
    (champion / artifact.MANIFEST).write_text(json.dumps({k: v for k, v in facts.items() if k not in names}))
    (champion / artifact.CALLS).unlink(missing_ok=True)
    return champion
