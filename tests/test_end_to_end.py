"""The real thing, small: trained digits on real runtimes, and models of one's own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import furnished
from tests.study import literal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

EAGER, ONNXRUNTIME, OPENVINO = (
    {"backend": {"_target_": f"tuner.plugins.backends.{name}"}}
    for name in ("eager.Eager", "onnxruntime.OnnxRuntime", "openvino.OpenVINO")
)
QUANTIZED = {"quantize": {"_target_": "tuner.plugins.transforms.onnx_static_int8.OnnxStaticInt8"}} | ONNXRUNTIME


@pytest.fixture(autouse=True)
def _one_cache(shared: Path, tmp_path: Path) -> None:
    """The machine's peaks are measured once."""
    furnished(tmp_path, shared)


def tune(folder: Path, *arguments: str, backends: list[Any]) -> dict[str, Any]:
    """The result of a study that must find a champion, run as a user would, standing in `folder`."""
    command = [
        sys.executable, "-m", "tuner.cli", "latency_ms=1000", "search_space.prune=null",
        f"search_space.deploy={literal(backends)}", "search_space.batch_size=8", "target.threads=1",
        "sampler=random", "trial.measure_s=0.1", "out_dir=out", f"cache_dir={folder / 'cache'}", *arguments,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("out/*/result.json")
    found: dict[str, Any] = json.loads(path.read_text())
    assert found["champion"] is not None
    assert found["trials"]["failed"] == 0
    return found


LOAD = """
import json, sys
from pathlib import Path
import numpy
from tuner import artifact
folder = Path(sys.argv[1])
deployed, data = artifact.load(folder), numpy.load(sys.argv[2])
size, outputs = deployed.batch_size, []
for start in range(0, len(data["label"]), size):
    outputs.append(deployed.run({"x": data["x"][start:start + size]})[0])
right = numpy.concatenate(outputs).argmax(-1) == data["label"]
print(json.dumps([float(right.mean()), sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def reloaded(folder: Path, found: dict[str, Any], data: Path) -> float:
    """The champion's accuracy in a process that has seen nothing else."""
    champion = folder / "out" / found["study"] / "champion"
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(champion), str(data)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    accuracy, loaded = json.loads(done.stdout)
    assert not {"optuna", "mlflow", "hydra"} & set(loaded)
    return float(accuracy)


def test_digits_are_tuned_on_real_runtimes(tmp_path: Path) -> None:
    from tuner.plugins.datasets.digits import Digits

    found = tune(tmp_path, "model=digits_cnn", backends=[EAGER, ONNXRUNTIME, OPENVINO, QUANTIZED])
    assert found["float_accuracy"] > 0.97
    champion, eager = (finding["throughput"] for finding in (found["champion"], found["baselines"]["eager"]))
    assert found["speedup"]["vs_eager"] == pytest.approx(champion / eager, rel=1e-3)
    samples = Digits().load("evaluation")
    np.savez(tmp_path / "digits.npz", label=samples.labels, **samples.inputs)
    assert reloaded(tmp_path, found, tmp_path / "digits.npz") == pytest.approx(found["champion"]["accuracy"], abs=1e-12)


OWN = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))

    def forward(self, x):
        return self.layers(x)

def make():
    torch.manual_seed(0)
    return Net()
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A user's folder: a module `mine`, and samples in `eval.npz` that its network labels itself."""
    import torch

    (tmp_path / "mine.py").write_text(OWN)
    scope: dict[str, Any] = {}
    exec(OWN, scope)
    x = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)
    with torch.no_grad():
        labels = scope["make"]().eval()(torch.from_numpy(x)).argmax(-1).numpy()
    np.savez(tmp_path / "eval.npz", x=x, label=labels)
    return tmp_path


def test_an_onnx_file_of_ones_own_is_tuned(own: Path) -> None:
    export = (
        "import mine, torch; torch.onnx.export(mine.make().eval(), (torch.zeros(1, 16),), 'net.onnx', "
        "input_names=['x'], output_names=['y'], dynamo=True)"
    )
    subprocess.run([sys.executable, "-c", export], cwd=own, check=True, capture_output=True)
    arguments = ("model=onnx", "model.path=net.onnx", "dataset=npz", "dataset.path=eval.npz")
    found = tune(own, *arguments, backends=[EAGER, ONNXRUNTIME, OPENVINO])
    assert found["model"] == "net"
    assert found["baselines"]["eager"] is None, "eager needs a torch module"
    assert reloaded(own, found, own / "eval.npz") == 1.0
