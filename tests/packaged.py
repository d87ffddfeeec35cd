"""A packaged champion without a study: built, described, and with figures that the test gives."""

import importlib.metadata
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tuner import artifact
from tuner.candidate import Candidate
from tuner.forms.onnx import ONNX
from tuner.measurement import Latency, Measurement
from tuner.model import Model
from tuner.plugin import Backend
from tuner.system.environment import environment, library_versions
from tuner.system.launcher import Launcher
from tuner.target import Target
from tuner.tensors import Arrays
from tuner.testing.fakes import CENTRES, INPUTS, write_linear

CORES, LIMIT_MS = 4, 10.0


def packaged(
    folder: Path,
    backend: Backend,
    batch_size: int = 8,
    replicas: int = 1,
    calls_ms: Sequence[float] = (2.0,),
    model: Model | None = None,
) -> Path:
    """The model (`linear`, unless it is another) in the backend, as a study leaves it in `folder / "champion"`."""
    champion, source = folder / "champion", folder / "source"
    for place in (champion / artifact.FILES, source, folder / "cache"):
        place.mkdir(parents=True)
    write_linear(source, CENTRES.T)
    model = model or Model(ONNX, source, INPUTS)
    versions = library_versions({"numpy", *backend.libraries}) | {"python": "3.11.9"}
    artifact.write_manifest(
        champion, Candidate((), backend, batch_size, replicas), Target("cpu", "cpu"), model.inputs, versions
    )
    batch: Arrays = {
        spec.name: np.random.default_rng(0).normal(size=spec.full(batch_size)).astype(spec.dtype)
        for spec in model.inputs
    }
    with Launcher(8192, environment(1)).open(folder / "log") as worker:
        target = Target("cpu", "cpu", threads=1)
        worker.run_for(240, backend.compile, model, batch_size, target, champion / artifact.FILES, folder / "cache")
        outputs = worker.run_for(120, _answers, champion, batch)
    arrays = {f"input:{name}": array for name, array in batch.items()}
    np.savez(champion / artifact.EXAMPLE, **arrays, **{f"output:{i}": output for i, output in enumerate(outputs)})
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


def _answers(champion: Path, batch: Arrays) -> list[Any]:
    return artifact.load(champion).run(batch)


def need_server() -> None:
    """Skips the test where what `tune serve` needs is not installed: an image for it cannot be described."""
    lines = importlib.metadata.requires("inference-tuner") or []
    served = {re.split(r"[<>=;]", line)[0] for line in lines if 'extra == "serve"' in line}
    if not served or "absent" in library_versions(served).values():
        pytest.skip("needs inference-tuner[serve]")


def forget(champion: Path, *names: str) -> Path:
    """The champion as a version before had it: its manifest without those."""
    facts: dict[str, Any] = json.loads((champion / artifact.MANIFEST).read_text())
    (champion / artifact.MANIFEST).write_text(json.dumps({k: v for k, v in facts.items() if k not in names}))
    (champion / artifact.CALLS).unlink(missing_ok=True)
    return champion
