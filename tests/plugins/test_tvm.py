"""TVM, always in child processes: it installs signal handlers, and a killed tuner must leave the cache sound."""

import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tuner.candidate import Candidate
from tuner.errors import RequestError
from tuner.plugins.backends.tvm import TVM
from tuner.plugins.backends.tvm_tuning import ROUND, Budget, Effort, portions
from tuner.tables import read_tables
from tuner.target import Target

onnx = pytest.importorskip("onnx")
if importlib.util.find_spec("tvm") is None:  # without importing it here
    pytest.skip("tvm is not installed", allow_module_level=True)

BATCH, TRIALS = 4, 8
TUNING: list[dict[str, Any]] = [{}, {"strategy": "replay-trace"}, {"cost_model": "random"}, {"budget": "gain"}]
TUNING.append({"prepack": True})
COMPILE = """
import json, sys
from pathlib import Path
from tuner.errors import CandidateError
from tuner.forms.onnx import ONNX
from tuner.plugins.backends.tvm import TVM
from tuner.target import Target
from tuner.model import Model
from tuner.tensors import TensorSpec
directory, out, cache, settings = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), json.loads(sys.argv[4])
out.mkdir()
model = Model(ONNX, directory, (TensorSpec("x", (1, 8, 8), "float32"),))
try:
    target = Target("cpu", "cpu", threads=1, peak_tflops={"f32": 0.1}, memory_gb_s=10)
    TVM(**settings).compile(model, 4, target, out, cache)
    assert "torch" not in sys.modules
except CandidateError as error:
    print(json.dumps([error.kind, error.sentence]))
"""
DIES = """
from tuner.plugins.backends.tvm_lowering import import_tvm
import_tvm(1)
import tvm.s_tir.meta_schedule as ms
tuned = ms.tune.tune_tasks
def dies_of_matmul(tasks, **more):
    if any("matmul" in task.task_name for task in tasks):
        raise RuntimeError("parallel_for_dynamic error with Check failed: (old_rv != nullptr) is false")
    return tuned(tasks=tasks, **more)
ms.tune.tune_tasks = dies_of_matmul
"""
"""What MetaSchedule does where its evolution cannot replay a schedule."""
RUN = """
import os, sys
from pathlib import Path
if sys.argv[3] == "torch":
    import torch
import numpy
from tuner.plugins.backends.tvm import TVM
from tuner.target import Target
from tuner.tensors import TensorSpec
before = os.sched_getaffinity(0)
x = numpy.load(sys.argv[2])
kept = x.copy()
spec = TensorSpec("x", x.shape[1:], "float32")
session = TVM().load(Path(sys.argv[1]), (spec,), len(x), Target("cpu", "cpu", threads=1))
first = session.run({"x": x})
assert all((a == b).all() for a, b in zip(first, session.run({"x": x}))) and (x == kept).all()
assert os.sched_getaffinity(0) == before
assert sys.argv[3] == "torch" or not {"torch", "onnx", "xgboost", "optuna", "mlflow"} & set(sys.modules)
numpy.savez(sys.argv[2] + ".out.npz", *first)
"""
CROSS = """
import sys
from pathlib import Path
from tuner.forms.onnx import ONNX
from tuner.model import Model
from tuner.plugins.backends.tvm import TVM
from tuner.plugins.backends.tvm_lowering import described, import_tvm
from tuner.request import compose
from tuner.target import Target
from tuner.tensors import TensorSpec
def tvm_target(target):
    return import_tvm(1).target.Target(described(target, 512))
directory, out = Path(sys.argv[1]), Path(sys.argv[2])
model = Model(ONNX, directory, (TensorSpec("x", (1, 8, 8), "float32"),))
targets = compose.targets([])
for target in targets.values():
    if target.device == "nvidia":  # what tuning asks of a GPU
        about = tvm_target(target)
        assert all(about.attrs[f"max_{of}_per_block"] for of in ("threads", "shared_memory")), target.name
assert "of kind vulkan" in TVM().crosses(Target("other", "nvidia", tvm={"kind": "vulkan"}))
for name in ("a100", "jetson_orin", "graviton3"):
    target = targets[name]
    assert TVM().crosses(target) is None and "measuring" in TVM(trials_per_task=8).crosses(target)
    (out / name).mkdir(parents=True)
    TVM().compile(model, 4, target, out / name, out)
"""


def child(code: str, *arguments: object) -> str:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "tuning.json").read_text(encoding="utf-8"))
    return found


def network(directory: Path, *nodes: Any, **weights: Any) -> Path:
    """Saves a graph from `x` (batch, 1, 8, 8) to `y`."""
    from onnx import TensorProto, helper, numpy_helper

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(list(nodes), "net", [x], [y], constants)
    directory.mkdir()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, directory / "model.onnx")
    return directory


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from onnx.helper import make_node

    r = np.random.default_rng(0)

    def f32(*shape: int) -> Any:
        return r.standard_normal(shape).astype(np.float32) / 4

    return network(
        tmp_path_factory.mktemp("net") / "cnn",
        make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        make_node("BatchNormalization", ["a", "scale", "shift", "mean", "var"], ["b"]),
        make_node("Relu", ["b"], ["c"]),
        make_node("Flatten", ["c"], ["d"]),
        make_node("Gemm", ["d", "head", "bias"], ["y"]),
        w=f32(16, 1, 3, 3),
        scale=1 + f32(16),
        shift=f32(16),
        mean=f32(16),
        var=1 + abs(f32(16)),
        head=f32(1024, 10),
        bias=f32(10),
    )


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers, which are tuned in a third of the time."""
    from onnx.helper import make_node

    r = np.random.default_rng(0)
    return network(
        tmp_path_factory.mktemp("net") / "dense",
        make_node("Flatten", ["x"], ["a"]),
        make_node("Gemm", ["a", "w"], ["b"]),
        make_node("Relu", ["b"], ["c"]),
        make_node("Gemm", ["c", "head"], ["y"]),
        w=r.standard_normal((64, 48)).astype(np.float32) / 8,
        head=r.standard_normal((48, 10)).astype(np.float32) / 8,
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def tuned(cnn: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tuned") / "out"
    child(COMPILE, cnn, out, cache, json.dumps({"trials_per_task": TRIALS}))
    return out


def assert_agrees(artifact: Path, model: Path, folder: Path, also: str = "-") -> None:
    """Runs the artifact in a fresh process on random inputs, and ONNX Runtime here."""
    import onnxruntime

    x = np.random.default_rng(1).standard_normal((BATCH, 1, 8, 8), dtype=np.float32)
    np.save(folder / "x.npy", x)
    child(RUN, artifact, folder / "x.npy", also)
    with np.load(folder / "x.npy.out.npz") as outputs:
        got = outputs["arr_0"]
    (expected,) = onnxruntime.InferenceSession(model / "model.onnx").run(None, {"x": x})
    np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"trials_per_task": 4},
        {"trials_per_task": -1},
        {"layout": "HWC"},
        {"vector_bits": 128},
        {"seed": 0},
        {"strategy": "annealing"},
        {"cost_model": "mlp"},
        {"budget": "odd"},
    ],
)
def test_refuses_wrong_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=f"TVM.{next(iter(settings))}="):
        TVM(**settings)


def test_labels_tell_candidates_apart() -> None:
    assert [TVM().label, TVM(16).label, TVM(8, "NCHW", 256).label] == ["tvm", "tvm-ms16", "tvm-ms8-nchw-v256"]


def test_each_choice_of_tuning_is_another_candidate() -> None:
    labels = {TVM(16, **choice).label for choice in TUNING}
    assert labels == {"tvm-ms16", "tvm-ms16-replay", "tvm-ms16-random", "tvm-ms16-gain", "tvm-ms16-prepack"}
    assert len({Candidate((), TVM(16, **choice), 8).key for choice in TUNING}) == len(TUNING)


def test_what_was_kept_before_there_were_choices_is_found() -> None:
    kept = {"trials_per_task": 16, "layout": "NHWC", "vector_bits": 512, "seed": 1}
    backend = {"_target_": "tuner.plugins.backends.tvm.TVM", **kept}
    before = {"transforms": [], "backend": backend, "batch_size": 8}
    assert Candidate((), TVM(16), 8).to_json() == before
    assert Candidate.from_json(before) == Candidate((), TVM(16), 8)


def test_a_choice_that_would_do_nothing_is_left_out() -> None:
    target = Target("cpu", "cpu", threads=1)
    idle = [TVM(8, budget="gain"), TVM(strategy="replay-trace"), TVM(cost_model="random"), TVM(prepack=True)]
    idle.append(TVM(8, strategy="replay-trace", cost_model="random"))  # it asks no model
    assert all("leave it out" in str(backend.unavailable(target)) for backend in idle)


def test_rungs_leave_something_to_share_out() -> None:
    assert [rung.trials_per_task for rung in TVM(16).rungs()] == [8, 16]
    assert [rung.trials_per_task for rung in TVM(16, budget="gain").rungs()] == [16]
    assert TVM(64, budget="gain").rungs() == (TVM(16, budget="gain"), TVM(64, budget="gain"))


def test_a_budget_by_gain_is_as_large_and_each_task_has_a_round_of_it() -> None:
    tasks = [SimpleNamespace(name=name, weight=weight) for name, weight in (("light", 1), ("new", 1), ("heavy", 9))]
    fresh = [[], [], []]

    def shared(costs: list[list[float]], budget: Budget) -> list[tuple[list[str], int, int]]:
        effort = Effort(32, 1, "evolutionary", "xgb", budget)
        return [([t.name for t in group], all_, most) for group, all_, most in portions(tasks, costs, effort)]

    assert shared(fresh, "even") == [(["light", "new", "heavy"], 96, 32)]
    assert shared(fresh, "gain") == [(["heavy", "light", "new"], 96, 128)], "it begins with a round of each"
    interrupted = [[1e-3] * 8, [], [1e-3] * 8]
    assert shared(interrupted, "even") == [(["new"], 32, 32), (["light", "heavy"], 48, 24)]
    assert shared(interrupted, "gain") == [(["new"], 8, 8), (["new", "heavy", "light"], 72, 128)]
    assert shared([[1e-3] * 90, [1e-3] * 8, [1e10] * 8], "gain") == [], "all is spent"


def test_is_for_cpus_nvidia_and_boards() -> None:
    reason = TVM().elsewhere(Target("mi300x", "amd", tvm={"kind": "rocm"}))
    assert reason is not None and "target=mi300x" in reason
    reason = TVM().unavailable(Target("board", "cpu", tvm={"kind": "cuda"}))
    assert reason is not None and "target=board" in reason


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names x86 processors")
def test_says_what_is_wrong_with_a_target() -> None:
    code = "import sys, json; from tuner.plugins.backends.tvm import TVM; from tuner.target import Target\n"
    code += "print(TVM(vector_bits=int(sys.argv[2])).unavailable(Target('mine', 'cpu', tvm=json.loads(sys.argv[1]))))"
    assert "target.tvm={'mpcu': 'znver4'}" in child(code, '{"mpcu": "znver4"}', 512)
    assert "leave vector_bits out" in child(code, '{"mcpu": "haswell"}', 256)
    assert child(code, '{"mcpu": "haswell"}', 512).strip() == "None", "as wide as the processor has them"
    assert child(code, '{"mcpu": "skylake-avx512"}', 256).strip() == "None"


@pytest.mark.slow
def test_compiles_for_a_gpu_and_for_arm_which_are_not_here(cnn: Path, tmp_path: Path) -> None:
    child(CROSS, cnn, tmp_path)
    assert b"__global__" in (tmp_path / "a100/model.so").read_bytes(), "CUDA, compiled where it is loaded"
    for name in ("graviton3", "jetson_orin"):  # a GPU's host is another processor too
        with tarfile.open(tmp_path / name / "model.tar") as archive:
            objects = [archive.extractfile(member) for member in archive if member.name.endswith(".o")]
            machines = {int.from_bytes(file.read(20)[18:], "little") for file in objects if file is not None}
        assert machines == {183}, "ELF's number of AArch64"


@pytest.mark.slow
def test_tuning_measures_every_task(tuned: Path) -> None:
    found = summary(tuned)
    assert found["tasks_with_valid_record"] == found["tasks"] >= 3
    assert found["measured"] == found["records"] >= 2 * TRIALS
    assert found["reused"] == 0
    lines = (tuned / "database_tuning_record.json").read_text(encoding="utf-8").splitlines()
    seconds = [max(json.loads(line)[1][1]) for line in lines]
    assert len(seconds) == found["records"]
    assert min(seconds) > 0


@pytest.mark.slow
def test_tasks_are_tuned_although_metaschedule_dies_of_one(cnn: Path, tmp_path: Path) -> None:
    settings = json.dumps({"trials_per_task": TRIALS})
    assert not child(DIES + COMPILE, cnn, tmp_path / "out", tmp_path / "cache", settings)
    found = summary(tmp_path / "out")
    (died,) = found["died_of"]
    schedules = {task["name"]: task["records"] for task in found["by_task"]}
    assert "matmul" in died and schedules.pop(died) == 0
    assert schedules and all(schedules.values())
    (told,) = (table for table in read_tables(tmp_path / "out") if "TVM tuned" in table.title)
    assert told.title.endswith(f"; MetaSchedule died of {died}")


@pytest.mark.slow
def test_what_was_found_of_each_task_is_told(tuned: Path) -> None:
    found = summary(tuned)["by_task"]
    assert len(found) == summary(tuned)["tasks"]
    assert sum(task["records"] for task in found) == summary(tuned)["records"]
    (convolution,) = [task for task in found if "conv2d" in task["name"]]
    work = BATCH * 64 * 16 * 9 * 2  # a multiplication and an addition for each weight, and what is fused with them
    assert work < convolution["flop"] < 1.3 * work
    assert convolution["gflops"] == pytest.approx(convolution["flop"] / convolution["best_ms"] / 1e6)
    assert convolution["share_of_peak"] == pytest.approx(convolution["gflops"] / 100)
    assert convolution["curve_ms"] == [convolution["best_ms"]], "one round"
    spent = [task["weight"] * task["best_ms"] for task in found]
    assert spent == sorted(spent, reverse=True)
    (told,) = read_tables(tuned)
    assert told.columns[-1] == f"best ms after {TRIALS}, all"
    assert [row[0] for row in told.rows] == [task["name"] for task in found]


@pytest.mark.slow
@pytest.mark.parametrize("choice", [TUNING[1] | TUNING[2], TUNING[3] | TUNING[4]], ids=str)
def test_a_choice_of_tuning_tunes_every_task_and_keeps_its_own_records(
    dense: Path, tmp_path: Path, choice: dict[str, Any]
) -> None:
    trials = 2 * TRIALS if "budget" in choice else TRIALS
    settings = json.dumps({"trials_per_task": trials, **choice})
    child(COMPILE, dense, tmp_path / "out", tmp_path / "cache", settings)
    found = summary(tmp_path / "out")
    assert found["tasks_with_valid_record"] == found["tasks"]
    assert found["measured"] < trials * found["tasks"] + ROUND, "the last round may be more than was left"
    child(COMPILE, dense, tmp_path / "again", tmp_path / "cache", settings)
    assert summary(tmp_path / "again")["measured"] == 0
    (folder,) = (path.parent for path in (tmp_path / "cache").glob("*/database_tuning_record.json"))
    assert folder.name == found["database"]
    assert_agrees(tmp_path / "out", dense, tmp_path)


@pytest.mark.slow
def test_second_compile_reuses_records_and_mends_a_torn_line(
    cnn: Path, cache: Path, tuned: Path, tmp_path: Path
) -> None:
    (records,) = cache.glob("*/database_tuning_record.json")
    with records.open("a", encoding="utf-8") as file:
        file.write('[0,[[[["GetSBl')
    child(COMPILE, cnn, tmp_path / "out", cache, json.dumps({"trials_per_task": TRIALS}))
    found = summary(tmp_path / "out")
    assert found["measured"] == 0
    assert found["reused"] == summary(tuned)["records"]


@pytest.mark.slow
def test_tuned_agrees_with_onnxruntime(cnn: Path, tuned: Path, tmp_path: Path) -> None:
    assert_agrees(tuned, cnn, tmp_path)


@pytest.mark.slow
def test_loads_beside_torch(cnn: Path, tuned: Path, tmp_path: Path) -> None:
    assert_agrees(tuned, cnn, tmp_path, also="torch")


def test_untuned_agrees_with_onnxruntime(cnn: Path, tmp_path: Path) -> None:
    child(COMPILE, cnn, tmp_path / "out", tmp_path / "cache", json.dumps({"layout": "NCHW"}))
    assert summary(tmp_path / "out")["records"] == 0
    assert_agrees(tmp_path / "out", cnn, tmp_path)


def test_refuses_an_unsupported_operator_with_a_sentence(tmp_path: Path) -> None:
    from onnx.helper import make_node

    model = network(tmp_path / "net", make_node("Det", ["x"], ["y"]))
    kind, sentence = json.loads(child(COMPILE, model, tmp_path / "out", tmp_path / "cache", "{}"))
    assert kind == "unsupported_op"
    assert "Det" in sentence and "\n" not in sentence


@pytest.mark.slow
def test_continues_after_being_killed(cnn: Path, tmp_path: Path) -> None:
    """SIGKILL to the process group in the middle of tuning costs only what was not yet recorded."""
    cache, settings = tmp_path / "cache", json.dumps({"trials_per_task": TRIALS})
    command = [sys.executable, "-c", COMPILE, cnn, tmp_path / "killed", cache, settings]
    tuner = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not any(path.stat().st_size for path in cache.glob("*/database_tuning_record.json")):
        assert tuner.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    os.killpg(tuner.pid, signal.SIGKILL)
    tuner.wait()
    child(COMPILE, cnn, tmp_path / "out", cache, settings)
    found = summary(tmp_path / "out")
    assert found["reused"] > 0 and found["measured"] > 0
    assert found["tasks_with_valid_record"] == found["tasks"]
    assert_agrees(tmp_path / "out", cnn, tmp_path)
    assert not list(cache.glob("*/build"))


@pytest.mark.slow
def test_two_processes_share_one_cache(cnn: Path, tmp_path: Path) -> None:
    settings = json.dumps({"trials_per_task": TRIALS, "vector_bits": 256})
    outs = [tmp_path / "a", tmp_path / "b"]
    commands = [[sys.executable, "-c", COMPILE, cnn, out, tmp_path / "cache", settings] for out in outs]
    both = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for command in commands]
    assert [process.wait(timeout=240) for process in both] == [0, 0]
    assert sorted(summary(out)["measured"] > 0 for out in outs) == [False, True]
