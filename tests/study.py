"""Studies of the fakes: their command line, and what they leave behind."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from tests import fakes
from tuner.cli import main

Refused = Callable[..., str]  # runs a command line that must be refused, and returns the message
ROOT = Path(__file__).parents[1]
PEAKS = ("target.peak_tflops={f32:0.1}", "target.memory_gb_s=10")  # to measure them takes ten seconds
MEASURED = ("target.memory_gb_s=null",)
"""Has the peaks measured after all."""
QUICK = ("trial.measure_s=0.1", "trial.timeout_s=30", "sampler=random", "target.threads=1")


def overrides(folder: Path, *more: str) -> list[str]:
    """A command line that tunes the fakes, its output under `folder`; `more` wins."""
    quick = QUICK if any(o.startswith("target=") or o in MEASURED for o in more) else (*QUICK, *PEAKS)
    return [
        f"hydra.searchpath=[pkg://tuner.testing.conf,file://{ROOT / 'tests/conf'}]",
        "model=linear",
        "dataset=points",
        "search_space=fakes",
        "reference.onnx._target_=tuner.testing.fakes.Null",
        f"out_dir={folder / 'out'}",
        f"cache_dir={folder / 'cache'}",
        *(default for default in quick if default.partition("=")[0] not in {m.partition("=")[0] for m in more}),
        *more,
    ]


def literal(value: Any) -> str:
    """A value as Hydra reads it on a command line."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(literal, value)) + "]"
    return json.dumps(value)


def node(kind: type, **fields: Any) -> dict[str, Any]:
    """A plugin as a space has it."""
    return {"_target_": f"{kind.__module__}.{kind.__qualname__}", **fields}


def deploy(*backends: dict[str, Any]) -> str:
    return "search_space.deploy=" + literal([{"backend": backend} for backend in backends])


class Held:
    """Studies whose trial number `after` + 1 stays under way until they may `go`, whoever tries it."""

    def __init__(self, stage: Path, after: int) -> None:
        self.stage, self._after = stage, after

    def space(self, *batch_sizes: int) -> list[str]:
        """Two candidates for each batch size."""
        sizes = batch_sizes or (1, 2, 3, 4)
        backend = node(fakes.Held, ms=[2.0, 1.0], stage=str(self.stage), after=self._after)
        return [f"search_space.batch_size={literal(list(sizes))}", deploy(backend)]

    def until(self, running: int = 1) -> None:
        """Waits until so many trials are held."""
        end = time.monotonic() + 120
        while (count := self._loaded()) < self._after + running:
            assert time.monotonic() < end, f"{count} artifacts were loaded"
            time.sleep(0.02)

    def go(self) -> None:
        (self.stage / "go").touch()

    def _loaded(self) -> int:
        file = self.stage / "loaded"
        return len(file.read_text().split()) if file.exists() else 0


def tune(folder: Path, *more: str) -> int:
    return main(overrides(folder, *more))


def process(folder: Path, *more: str, **keywords: Any) -> "subprocess.Popen[str]":
    """The same in a process of its own."""
    command = [sys.executable, "-m", "tuner.cli", *overrides(folder, *more)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **keywords)


def until_said(process: "subprocess.Popen[str]", start: str) -> None:
    """Waits until a process that `process` started says a line with this start."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith(start):
            return
    raise AssertionError(f"{start!r} was not said: {''.join(said)}")


def result(folder: Path, study: str = "linear-cpu-001") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out" / study / "result.json").read_text())
    return found


def runs(folder: Path, study: str = "linear-cpu-001") -> tuple[Run, list[Run]]:
    """The study's run in MLflow, and its trials' in order."""
    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'out/mlflow.db'}")
    experiments = [found.experiment_id for found in client.search_experiments()]
    every = client.search_runs(experiments, max_results=1000)
    (parent,) = [run for run in every if run.data.tags.get("study") == study]
    children = [run for run in every if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    return parent, sorted(children, key=lambda run: run.info.start_time)
