"""Devices that nobody has at hand, by what their machines say of themselves; and the targets that name them."""

from pathlib import Path

import pytest

from tests.study import Refused
from tuner import conf
from tuner.candidate import Candidate
from tuner.decide.choice import plain_runtime
from tuner.device import fits
from tuner.errors import RequestError
from tuner.plugins.backends import tvm_on_board
from tuner.plugins.backends.eager import Eager
from tuner.plugins.backends.onnxruntime import OnnxRuntime
from tuner.plugins.backends.openvino import OpenVINO
from tuner.plugins.backends.torch_compile import TorchCompile
from tuner.plugins.backends.tvm import TVM
from tuner.plugins.devices import amd, openvino_npu, qnn, tpu
from tuner.plugins.devices.tvm_board import TvmBoard
from tuner.request import compose
from tuner.system.machine import cpu_name
from tuner.target import Target

NOT_HERE = sorted({file.stem for file in Path(conf.__path__[0]).glob("target/*.yaml")} - {"cpu", "board"})
ROCMINFO = """
Agent 1
*******
  Name:                    AMD EPYC 9654 96-Core Processor
  Uuid:                    CPU-XX
  Marketing Name:          AMD EPYC 9654 96-Core Processor
  Device Type:             CPU
*******
Agent 2
*******
  Name:                    gfx942
  Uuid:                    GPU-0f7ab52f8f2b0a8c
  Marketing Name:          AMD Instinct MI300X
  Device Type:             GPU
  Pool Info:
    Pool 1
      Name:                  inner
"""


@pytest.fixture(scope="module")
def targets() -> dict[str, Target]:
    return compose.targets([])


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


def test_rocminfo_tells_of_boards() -> None:
    assert amd.boards(ROCMINFO) == [amd.Board("GPU-0f7ab52f8f2b0a8c", "AMD Instinct MI300X")]
    assert amd.boards("") == []


def test_the_pci_bus_tells_of_tpus(tmp_path: Path) -> None:
    bus = tree(tmp_path, {"0/vendor": "0x8086", "0/device": "0x0063", "1/vendor": "0x1ae0", "1/device": "0x0063"})
    assert tpu.chips(bus) == ("TPU v5e",)


def test_the_kernel_tells_of_npus(tmp_path: Path) -> None:
    accelerators = tree(tmp_path / "accel", {"accel0/device/device": "0x643e", "accel1/device/device": "0x1234"})
    (accelerators / "accel0/device/driver").symlink_to(tmp_path / "intel_vpu")
    (accelerators / "accel1/device/driver").symlink_to(tmp_path / "other")
    assert openvino_npu.npus(accelerators) == ("Intel NPU (Lunar Lake)",)
    files = tree(tmp_path, {"dev/fastrpc-cdsp": "", "soc/machine": "X1E80100"})
    assert qnn.npus(files / "dev", files / "soc") == ("X1E80100",)
    assert qnn.npus(files / "soc", files / "soc") == ()


def test_an_arm_processor_is_called_by_its_part(tmp_path: Path) -> None:
    files = tree(
        tmp_path, {"pi": "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b", "new": "CPU part : 0xeee"}
    )
    assert [cpu_name(files / name) for name in ("pi", "new")] == ["Cortex-A76", "0xeee"]


@pytest.mark.parametrize(
    ("wanted", "name", "fitting"),
    [
        ("A10", "NVIDIA A10", True),
        ("A10", "NVIDIA A100-SXM4-80GB", False),
        ("A10", "NVIDIA A10G", False),
        ("L4", "NVIDIA L40S", False),
        ("a100", "NVIDIA A100-SXM4-80GB", True),
        ("RTX 4090", "NVIDIA GeForce RTX 4090", True),
        ("RTX 4090", "NVIDIA GeForce RTX 4090 Laptop GPU", False),
        ("RTX 4090 Laptop", "NVIDIA GeForce RTX 4090 Laptop GPU", True),
        ("RTX 5000", "Quadro RTX 5000 with Max-Q Design", False),
        ("H200", "NVIDIA H200", True),
        ("H200", "NVIDIA GH200 480GB", False),
        ("B200", "NVIDIA GB200", False),
        (None, "anything", True),
    ],
)
def test_a_device_is_the_one_named_and_none_whose_name_only_looks_like_it(
    wanted: str | None, name: str, fitting: bool
) -> None:
    assert fits(wanted, name) is fitting


def test_a_board_that_is_gone_is_no_fault_of_what_was_to_run_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tvm_on_board, "_GONE_S", -1.0)
    monkeypatch.setattr(TvmBoard, "servers", lambda board: {"another": 2})
    monkeypatch.setattr(TvmBoard, "free", lambda board: 0)
    with pytest.raises(RequestError, match=r"no server of the board 'desk' at 127.0.0.1:1 answers .* goes on"):
        tvm_on_board.OnBoard(None, TvmBoard("127.0.0.1:1", "desk"), Path("library.so"), [], 1)


def test_targets_say_what_they_compute_in(targets: dict[str, Target]) -> None:
    assert {"a10", "b200", "mi300x", "tpu_v5e", "intel_npu", "snapdragon", "graviton3", "jetson_orin"} <= targets.keys()
    for name, target in targets.items():
        assert target.name == name
        assert target.precisions or name == "cpu"
        assert set(target.peak_tflops) <= set(target.precisions)
        assert bool(target.peak_tflops) == (target.memory_gb_s is not None)


def test_what_computes_in_another_precision_is_left_out(targets: dict[str, Target]) -> None:
    assert Eager("bf16").elsewhere(targets["a10"]) is None
    reason = Eager("bf16").elsewhere(targets["t4"])
    assert reason == "eager-bf16 computes in bf16, and target=t4 in f32, f16, int8, int4 only"


def test_tf32_is_a_precision_of_its_own(targets: dict[str, Target]) -> None:
    assert Eager("tf32").elsewhere(targets["a100"]) is None
    assert "in tf32, and target=t4 in" in str(Eager("tf32").elsewhere(targets["t4"]))
    assert "target.precisions of target=cpu lacks it" in str(Eager("tf32").unavailable(targets["cpu"]))
    assert "does not list both CUDAExecutionProvider and tf32" in str(OnnxRuntime(tf32=True).crosses(targets["t4"]))
    assert OnnxRuntime(tf32=True).crosses(targets["a100"]) is None
    untuned = [Eager("tf32"), TorchCompile("tf32"), OnnxRuntime(tf32=True), OnnxRuntime(), Eager()]
    assert all(plain_runtime(Candidate((), backend, 1)) for backend in untuned), "torch and ONNX Runtime do so anyway"
    tuned = [Eager("f16"), TorchCompile("tf32", "reduce-overhead"), OnnxRuntime(tf32=True, arena=False)]
    assert not any(plain_runtime(Candidate((), backend, 1)) for backend in tuned)
    assert targets["a100"].peak_tflops["tf32"] == 8 * targets["a100"].peak_tflops["f32"]


def test_peaks_that_are_given_are_those_of_the_device_that_is_here() -> None:
    given = ["target=h100", "target.peak_tflops={f16:756}", "target.memory_gb_s=2000"]
    assert compose.composed(given[:1]).target.peak_device_name == "NVIDIA H100 80GB HBM3"
    assert compose.composed(given).target.peak_device_name is None


def test_a_gpu_has_a_search_space_of_its_own_unless_another_is_asked_for() -> None:
    backends = {name: str(compose.composed([f"target={name}"]).search_space) for name in ("cpu", "h200", "mi300x")}
    assert ["TorchCompile" in backends[name] for name in ("cpu", "h200", "mi300x")] == [False, True, True]
    assert "TorchCompile" not in str(compose.composed(["target=h200", "search_space=quick"]).search_space)


def test_what_can_be_compiled_for_a_device_that_is_not_here(targets: dict[str, Target]) -> None:
    for backend in (OnnxRuntime(), OpenVINO()):
        assert backend.elsewhere(targets["graviton3"]) is None and backend.crosses(targets["graviton3"]) is None
    assert OnnxRuntime().crosses(targets["a100"]) is None
    for name in ("tpu_v5e", "board"):
        assert f"target={name} has no provider for" in str(OnnxRuntime().crosses(targets[name]))
    assert "only, and target=mi300x is an AMD GPU" in str(TVM().elsewhere(targets["mi300x"]))
    assert OpenVINO().elsewhere(targets["a100"]) is not None
    assert Eager().crosses(targets["a100"]) == "eager compiles only where its device is"


@pytest.mark.parametrize("name", NOT_HERE)
def test_one_that_is_not_here_is_refused_and_nothing_spent(
    name: str, refused: Refused, targets: dict[str, Target]
) -> None:
    if targets[name].present:
        pytest.skip("such a device is here")
    told = refused(f"target={name}", "latency_ms=5")
    assert f"target={name}: looked for" in told
