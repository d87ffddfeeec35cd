"""NVIDIA GPUs, by stand-ins for nvidia-smi and for pynvml."""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from tuner.decide import doubts
from tuner.errors import RequestError
from tuner.plugins.devices.nvidia import VISIBLE, Nvidia
from tuner.system.energy import Counter
from tuner.target import Target

H100, A100 = "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB"
SMI = """#!{python}
import sys
boards = {boards!r}
if {problem!r}:
    sys.exit({problem!r})
fields = next(a for a in sys.argv if a.startswith("--query-gpu=")).partition("=")[2].split(",")
wanted = next((a.partition("=")[2] for a in sys.argv if a.startswith("--id=")), None)
for board in boards:
    if wanted in (None, board["uuid"]):
        print(", ".join(board.get(field, "[N/A]") for field in fields))
"""
Smi = Callable[..., None]
TARGET = Target("h100", "nvidia", device_name="H100")


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Smi:
    """Installs an nvidia-smi that lists boards of these names, or fails with what it says."""

    def install(*names: str, problem: str = "", uuid: str = "") -> None:
        boards = [
            {
                "index": str(index),
                "uuid": uuid or f"GPU-{index}{index}ab5678-1234",
                "name": name,
                "driver_version": "580.159.04",
                "memory.total": "81559",
                "clocks.sm": "345",
                "temperature.gpu": "31",
            }
            for index, name in enumerate(names)
        ]
        program = tmp_path / "nvidia-smi"
        program.write_text(SMI.format(python=sys.executable, boards=boards, problem=problem))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    monkeypatch.delenv(VISIBLE, raising=False)
    return install


@pytest.mark.parametrize(
    ("visible", "pinned"),
    [
        (None, "GPU-11ab5678-1234"),
        ("1", "GPU-11ab5678-1234"),
        ("2, 1", "GPU-22ab5678-1234"),
        ("GPU-22ab", "GPU-22ab5678-1234"),
        ("MIG-7", "MIG-7"),
    ],
)
def test_the_first_visible_board_that_fits_is_pinned(
    visible: str | None, pinned: str, smi: Smi, monkeypatch: pytest.MonkeyPatch
) -> None:
    smi(H100 if visible == "MIG-7" else A100, H100, H100)
    if visible is not None:
        monkeypatch.setenv(VISIBLE, visible)
    assert TARGET.check() == (f"{H100} MIG" if pinned == "MIG-7" else H100)
    assert TARGET.environment[VISIBLE] == pinned


def test_a_board_that_tells_no_identity_is_pinned_by_its_place(smi: Smi) -> None:
    smi(A100, H100, uuid="[N/A]")
    assert TARGET.environment[VISIBLE] == "1"


def test_peaks_are_those_of_the_model_that_the_target_names(smi: Smi) -> None:
    target = replace(TARGET, peak_tflops={"f16": 989.0}, memory_gb_s=3350.0, peak_device_name=H100)
    smi(H100)
    assert target.peaks is not None and not list(doubts.about_peaks(target))
    (doubt,) = doubts.about_peaks(replace(target, peak_device_name="NVIDIA H100 SXM9"))
    assert doubt.name == "peak_unknown" and H100 in doubt.sentence and "give target.peak_tflops" in doubt.sentence


def test_a_slice_of_a_board_has_not_its_peaks(smi: Smi, monkeypatch: pytest.MonkeyPatch) -> None:
    smi(H100)
    monkeypatch.setenv(VISIBLE, "MIG-7")
    assert replace(TARGET, peak_tflops={"f16": 989.0}, memory_gb_s=3350.0, peak_device_name=H100).peaks is None


@pytest.mark.parametrize("visible", ["", "-1", "NoDevFiles", "3"])
def test_boards_that_are_hidden_are_refused_in_a_sentence(
    visible: str, smi: Smi, monkeypatch: pytest.MonkeyPatch
) -> None:
    smi(H100, H100)
    monkeypatch.setenv(VISIBLE, visible)
    with pytest.raises(RequestError) as caught:
        TARGET.check()
    assert f"{VISIBLE}={visible!r} hides every GPU" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert VISIBLE not in TARGET.environment


def test_another_board_than_the_target_names_is_refused(smi: Smi) -> None:
    smi(A100)
    with pytest.raises(RequestError, match=f"looked for an NVIDIA GPU named 'H100', found {A100}; run"):
        TARGET.check()


def test_a_driver_that_does_not_answer_is_told(smi: Smi) -> None:
    smi(H100, problem="Failed to initialize NVML: Driver/library version mismatch")
    with pytest.raises(RequestError, match="nvidia-smi fails: Failed to initialize NVML"):
        TARGET.check()
    assert Nvidia().versions() == {"driver": "absent"}


def test_facts_are_those_of_the_pinned_board(smi: Smi) -> None:
    smi(A100, H100)
    assert Nvidia().facts(TARGET.device_name) == {
        "name": H100,
        "uuid": "GPU-11ab5678-1234",
        "driver": "580.159.04",
        "memory_mb": pytest.approx(85_520.8, abs=0.1),
        "clock_mhz": 345.0,
        "temperature_c": 31.0,
    }


class NvmlError(Exception):
    pass


class Nvml(ModuleType):
    """pynvml with one process of ours on each board; a board is what it was asked for by."""

    NVMLError = NvmlError
    NVML_PERF_POLICY_POWER, NVML_PERF_POLICY_THERMAL = 0, 1

    def __init__(self, millijoules: int | None = None, used: int | None = None) -> None:
        super().__init__("pynvml")
        self.millijoules, self.used = millijoules, used
        self.opened: object = None

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetHandleByIndex(self, index: int) -> object:
        self.opened = index
        return self

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> object:
        self.opened = uuid
        return self

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: object) -> int:
        if self.millijoules is None:
            raise NvmlError("Not Supported")
        return self.millijoules

    def nvmlDeviceGetViolationStatus(self, handle: object, policy: int) -> SimpleNamespace:
        if self.millijoules is None:
            raise NvmlError("Not Supported")
        return SimpleNamespace(violationTime=self.millijoules * 10**6 * policy)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: object) -> list[SimpleNamespace]:
        others = SimpleNamespace(pid=1, usedGpuMemory=10**10)
        return [others, SimpleNamespace(pid=os.getpid(), usedGpuMemory=self.used)]


def test_the_boards_energy_is_counted_beside_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(millijoules=2500))
    assert Nvidia().energy()[-1] == Counter("gpu", 2.5)


@pytest.mark.parametrize("module", [None, Nvml()], ids=["not installed", "old GPU"])
def test_a_board_without_a_counter(module: ModuleType | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", module)
    assert "gpu" not in [counter.name for counter in Nvidia().energy()]


@pytest.mark.parametrize(("visible", "opened"), [(None, 0), ("3,1", 3), ("GPU-5a", "GPU-5a")])
def test_energy_is_of_the_board_that_cuda_sees_first(
    visible: str | None, opened: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml = Nvml(millijoules=0)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.delenv(VISIBLE, raising=False)
    if visible:
        monkeypatch.setenv(VISIBLE, visible)
    Nvidia().energy()
    assert nvml.opened == opened


def test_a_clock_that_was_held_down_is_told(smi: Smi, monkeypatch: pytest.MonkeyPatch) -> None:
    smi(A100, H100)
    told = []
    for nvml in (Nvml(millijoules=1000), Nvml(millijoules=5000), Nvml()):
        monkeypatch.setitem(sys.modules, "pynvml", nvml)
        told.append(Nvidia().held_down_s("H100"))
        assert nvml.opened == "GPU-11ab5678-1234"
    assert told == [{"heat": 1.0, "its power limit": 0.0}, {"heat": 5.0, "its power limit": 0.0}, {}]
    (doubt,) = doubts.about_clocks(Nvidia.kind, told[0], told[1])
    assert doubt.sentence == "an NVIDIA GPU held its clock down during the study: 4 s for heat"
    assert not list(doubts.about_clocks(Nvidia.kind, told[0], told[2]))


@pytest.mark.parametrize(("used", "memory_mb"), [(700_000_000, 700.0), (None, 0.0)], ids=["told", "in a container"])
def test_memory_of_the_board_is_this_processs_own(
    used: int | None, memory_mb: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(used=used))
    assert Nvidia().memory_mb() == memory_mb
