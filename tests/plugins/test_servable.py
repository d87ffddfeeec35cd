"""An artifact of every runtime as an MLflow model, loaded where there is neither this repository nor its tests."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.models import Model as MlflowModel

from tuner import artifact
from tuner.candidate import Candidate
from tuner.catalog import members
from tuner.deploy import mlflow_model as servable
from tuner.forms.onnx import ONNX
from tuner.model import Model
from tuner.plugin import Backend
from tuner.plugins.backends.onnxruntime import OnnxRuntime
from tuner.system.environment import environment, library_versions
from tuner.system.launcher import Launcher
from tuner.tensors import Arrays
from tuner.testing.networks import IMAGE, PAIR, Pair, Patterns, Shelf, accuracy, trained
from tuner.testing.variants import plain
from tuner.testing.workbench import TARGET

BATCH = 3

LOAD = """
import sys
from pathlib import Path
import mlflow.pyfunc, numpy as np
model, inputs, answers = (Path(argument) for argument in sys.argv[1:])
loaded = mlflow.pyfunc.load_model(str(model))
import tuner.plugins
assert Path(tuner.plugins.__file__).is_relative_to(model), "the plugins came with the model"
outputs = loaded.predict(dict(np.load(inputs)))
np.savez(answers, **(outputs if isinstance(outputs, dict) else {"output_0": outputs}))
"""


def served(backend: Backend, model: Model, inputs: Arrays, folder: Path) -> dict[str, Any]:
    """What the backend's artifact answers as an MLflow model, in a process of its own."""
    champion, log = folder / "champion", folder / "worker.log"
    (champion / artifact.FILES).mkdir(parents=True)
    (folder / "cache").mkdir()
    with Launcher(8192, environment(1)).open(log) as worker:
        worker.run_for(240, backend.compile, model, BATCH, TARGET, champion / artifact.FILES, folder / "cache")
    artifact.write_manifest(
        champion, Candidate((), backend, BATCH), TARGET, model.inputs, library_versions(set(backend.libraries))
    )
    batch = {name: array[:BATCH] for name, array in inputs.items()}
    with Launcher(8192, environment(1)).open(log) as worker:
        outputs = worker.run_for(120, _answers, champion, batch)
    arrays: dict[str, Any] = {f"input:{name}": array for name, array in batch.items()}
    np.savez(champion / artifact.EXAMPLE, **arrays, **{f"output:{i}": output for i, output in enumerate(outputs)})
    servable.save(champion, {}, set(), MlflowModel(), folder / "model")
    np.savez(folder / "inputs.npz", **inputs)
    command = [sys.executable, "-c", LOAD, *(str(folder / name) for name in ("model", "inputs.npz", "answers.npz"))]
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=folder, env=variables, capture_output=True, text=True, timeout=240, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(np.load(folder / "answers.npz"))


def _answers(champion: Path, batch: Arrays) -> list[Any]:
    return [np.array(output) for output in artifact.load(champion).run(batch)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", {kind.libraries: kind for kind in reversed(members(Backend))}.values())
def test_a_backend_serves_more_samples_than_a_batch(kind: type[Backend], tmp_path: Path) -> None:
    backend: Any = plain(kind)
    if reason := backend.unavailable(TARGET):
        pytest.skip(reason)
    model = Shelf.of(trained(), IMAGE, tmp_path / "net").take(backend.accepts)
    samples = Patterns().load("evaluation")
    answers = served(backend, model, {"image": samples.inputs["image"][:100]}, tmp_path)
    assert list(answers) == ["output_0"]
    assert accuracy([answers["output_0"]], samples.labels[:100]) > 0.9


@pytest.mark.slow
def test_several_inputs_and_outputs_go_by_name(tmp_path: Path) -> None:
    backend: Any = OnnxRuntime()
    model = Shelf.of(Pair(), PAIR, tmp_path / "net").take((ONNX,))
    generator = np.random.default_rng(0)
    inputs = {
        "ids": generator.integers(16, size=(7, 4)),
        "scores": generator.normal(size=(7, 4)).astype(np.float32),
    }
    answers = served(backend, model, inputs, tmp_path)
    assert {name: answer.shape for name, answer in answers.items()} == {"output_0": (7, 4), "output_1": (7, 1)}
    np.testing.assert_allclose(answers["output_0"].sum(-1, keepdims=True), answers["output_1"], rtol=1e-4, atol=1e-4)
