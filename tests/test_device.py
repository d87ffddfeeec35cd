"""Devices: what every one answers, and one that another distribution brings."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests import outside, study
from tuner import artifact
from tuner.catalog import members
from tuner.device import Device
from tuner.errors import RequestError
from tuner.target import Target

BOARD = """
import os
import time
from dataclasses import dataclass
from typing import ClassVar
from tuner.testing.fakes import Null
from tuner.device import Device, Peaks
from tuner.system.energy import Counter

class Abacus(Device):
    name = "abacus"
    kind = "an abacus"

    def found(self):
        return ("Abacus 20", "Abacus 30")

    def variables(self, device_name):
        return {"ABACUS": self.find(device_name)}

    energy_step_s = 0.02

    def energy(self):
        return (Counter("beads", 5.0 * (time.monotonic() // 0.02)),)

    def memory_mb(self):
        return 5000.0

    def measure_peaks(self, threads):
        return Peaks({"f32": 1e9}, memory_bytes_per_s=1e9)

    def versions(self):
        return {"firmware": "1.2"}

@dataclass(frozen=True)
class Beads(Null):
    devices: ClassVar[tuple[str, ...] | None] = ("abacus",)

    def load(self, folder, inputs, batch_size, target):
        assert os.environ["ABACUS"] == "Abacus 30"
        return super().load(folder, inputs, batch_size, target)

@dataclass(frozen=True)
class OnCpus(Null):
    devices: ClassVar[tuple[str, ...] | None] = ("cpu",)
"""


@pytest.mark.parametrize("kind", members(Device), ids=lambda kind: kind.name)
def test_every_device_answers_wherever_it_is_asked(kind: type[Device]) -> None:
    device = kind()
    assert all(isinstance(name, str) and name for name in device.found())
    assert device.absence().strip() and "\n" not in device.absence()
    assert device.memory_mb() >= 0
    device.synchronise()
    device.energy()
    target = Target("here", kind.name)
    assert all(isinstance(value, str) for value in target.environment.values())
    assert json.dumps(dict(device.versions()))


def test_a_device_that_nobody_has_is_refused_by_name() -> None:
    with pytest.raises(
        RequestError, match=r"target.device='abacus' must be one of amd, cpu, nvidia, openvino_npu, qnn, tpu"
    ):
        Target("mine", "abacus")


def test_the_former_name_of_a_device_is_read() -> None:
    target = {"name": "a100", "device": "cuda", "device_name": "A100", "onnxruntime_providers": []}
    assert Target.from_json(target).device == "nvidia"


def test_a_cpu_is_held_to_its_name() -> None:
    with pytest.raises(RequestError, match="looked for a CPU named 'Abacus'"):
        Target("mine", "cpu", device_name="Abacus").check()


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A study on a device from outside, and what it said."""
    folder = tmp_path_factory.mktemp("abacus")
    outside.install(folder / "site", "abacus", BOARD)
    board = ("target.name=board", "target.device=abacus", "target.device_name='30'", "target.memory_gb_s=null")
    overrides = ("latency_ms=20", *board, "n_trials=3")
    backends = study.deploy({"_target_": "abacus.Beads", "ms": 1.0}, {"_target_": "abacus.OnCpus"})
    space = ["search_space.batch_size=[4]", backends, "reference.onnx._target_=abacus.Beads"]
    paths = os.pathsep.join([str(folder / "site"), str(study.ROOT)])
    with study.process(folder, *overrides, *space, env=os.environ | {"PYTHONPATH": paths}) as process:
        told, wrong = process.communicate()
    assert process.returncode == 0, wrong + told
    return folder, told


def test_a_study_runs_on_a_device_from_outside(tuned: tuple[Path, str]) -> None:
    result = study.result(tuned[0], "linear-board-001")
    assert result["verdict"] in ("feasible", "certified")
    assert result["environment"]["device"] == "Abacus 30"
    assert result["environment"]["hardware"] == {"name": "Abacus 30", "firmware": "1.2"}
    manifest = json.loads((tuned[0] / "out/linear-board-001/champion" / artifact.MANIFEST).read_text())
    assert manifest["target"]["device"] == "abacus"


def test_its_own_figures_are_taken(tuned: tuple[Path, str]) -> None:
    champion: dict[str, Any] = study.result(tuned[0], "linear-board-001")["champion"]
    assert champion["memory_mb"] > 5000
    assert 0 < champion["energy_j"] < 1, "250 W for a moment"
    assert champion["roofline"]["attainable"] <= 1e9


def test_a_plugin_for_other_devices_is_left_out(tuned: tuple[Path, str]) -> None:
    left_out = study.result(tuned[0], "linear-board-001")["left_out"]
    assert left_out == {"null-2": "null-2 works for cpu devices only, and target=board is an abacus"}
