"""Apache TVM: graphs compiled to machine code whose loops MetaSchedule searches by measuring on this machine."""

import contextlib
import hashlib
import importlib.util
import json
import logging
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from numpy.typing import NDArray

from tuner.errors import CandidateError
from tuner.forms.onnx import ONNX
from tuner.model import Form, Model
from tuner.plugin import Backend, Session
from tuner.system.fields import AtLeast
from tuner.system.files import critical_section
from tuner.system.said import last_line
from tuner.target import Target
from tuner.tensors import Arrays, TensorSpec

_ROUND = 8  # schedules proposed, built and measured together; with fewer a task may end with no valid one
_FAILED_S = 1e9  # MetaSchedule writes 1e10 s for a schedule that did not build or run
_RECORDS = ("database_workload.json", "database_tuning_record.json")  # MetaSchedule's own names
_X86 = platform.machine() == "x86_64"


@dataclass(frozen=True)
class TVM(Backend):
    """`trials_per_task` schedules are built and measured for each distinct fused operator (a task) of the graph;
    0 leaves the loops as they come, tens of times slower.

    `layout` is that of convolutions, `vector_bits` the vector width that LLVM prefers (x86).
    """

    trials_per_task: Literal[0] | Annotated[int, AtLeast(_ROUND)] = 0
    layout: Literal["NHWC", "NCHW"] = "NHWC"
    vector_bits: Literal[256, 512] = 512
    seed: Annotated[int, AtLeast(1)] = 1

    accepts: ClassVar[tuple[Form, ...]] = (ONNX,)
    slow: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("apache-tvm", "apache-tvm-ffi")
    devices: ClassVar[tuple[str, ...] | None] = ("cpu",)
    records: ClassVar[tuple[str, ...]] = (*_RECORDS, "trials_per_task")

    @property
    def label(self) -> str:
        marks = {f"-ms{self.trials_per_task}": self.trials_per_task, "-nchw": self.layout == "NCHW"}
        marks["-v256"] = self.vector_bits == 256
        return "tvm" + "".join(mark for mark, shown in marks.items() if shown)

    def unavailable(self, target: Target) -> str | None:
        if target.tvm.get("kind", "llvm") != "llvm":
            return f"tvm compiles for CPUs only as yet (tvm.kind llvm), and target={target.name} is none"
        for library in ("xgboost", "cloudpickle", "psutil"):
            if self.trials_per_task and importlib.util.find_spec(library) is None:
                return f"tvm tunes with {library}, which is not installed; pip install 'inference-tuner[tvm]'"
        if not any(map(shutil.which, ("g++", "clang++"))):
            return "tvm links with a C++ compiler and finds neither g++ nor clang++; install one"
        try:
            tvm = _import_tvm(target.cores)
        except Exception as error:
            return f"tvm does not import ({last_line(error)}); pip install 'inference-tuner[tvm]'"
        try:
            features = tvm.target.codegen.llvm_get_cpu_features(tvm.target.Target(self._target(target)))
        except Exception as error:
            return f"tvm refuses target.tvm={dict(target.tvm)}: {last_line(error)}"
        if _X86 and self.vector_bits == 512 and "avx512f" not in features:
            return "tvm: vector_bits=512 needs AVX-512, which this processor lacks; use vector_bits=256"
        return None

    def rungs(self) -> tuple[Backend, ...]:
        """A quarter of the trials, at least one round of them, then all: most of the gain comes early."""
        first = max(self.trials_per_task // 4, _ROUND)
        return (replace(self, trials_per_task=first), self) if first < self.trials_per_task else (self,)

    def compile(self, model: Model, batch_size: int, target: Target, out: Path, cache: Path) -> None:
        """Writes the library, the records of its tasks and `tuning.json`, which counts them."""
        tvm = _import_tvm(target.cores)
        from tvm.s_tir import meta_schedule as ms

        with tvm.target.Target(self._target(target)) as llvm:
            module, names = self._prepared(model, batch_size)
            tasks = ms.relax_integration.extract_tasks(module, llvm)
            summary = {"inputs": names, "target": str(llvm), "tvm": tvm.__version__, "tasks": len(tasks)}
            summary |= {"trials_per_task": self.trials_per_task, "tasks_with_valid_record": 0, "records": 0}
            if self.trials_per_task and tasks:
                summary |= self._tune(tasks, str(llvm), target.cores, cache, out)
                module = tvm.relax.transform.MetaScheduleApplyDatabase(str(out))(module)
            try:
                tvm.compile(module, llvm).export_library(str(out / "model.so"))
            except Exception as error:
                raise CandidateError("compile", f"TVM failed to build this model: {last_line(error)}") from error
        (out / "tuning.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")

    def load(self, folder: Path, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target) -> Session:
        tvm = _import_tvm(target.cores)
        library = tvm.runtime.load_module(str(folder / "model.so"))
        order = json.loads((folder / "tuning.json").read_text(encoding="utf-8"))["inputs"]
        specs = sorted(inputs, key=lambda spec: order.index(spec.name))
        buffers = {spec.name: tvm.runtime.empty(spec.full(batch_size), spec.dtype) for spec in specs}
        return _Session(tvm.relax.VirtualMachine(library, tvm.cpu())["main"], buffers)

    def _target(self, target: Target) -> dict[str, Any]:
        """TVM's target; the same for tuning as for compiling, or no record is found."""
        described = {"kind": "llvm", "num-cores": target.cores, **target.tvm}
        described.setdefault("mcpu", _host_cpu())
        if _X86:
            sign = "+" if self.vector_bits == 256 else "-"
            described["mattr"] = [*described.get("mattr", []), f"{sign}prefer-256-bit"]
        return described

    def _prepared(self, model: Model, batch_size: int) -> tuple[Any, list[str]]:
        """The graph for one batch size, and its inputs in order. Batch norms are folded into weights, convolutions
        have the layout asked for, operators are fused."""
        import onnx
        from tvm import relax, transform
        from tvm.relax.frontend.onnx import from_onnx

        proto = onnx.load(model.path)
        weights = {tensor.name for tensor in proto.graph.initializer}
        shapes = {spec.name: list(spec.full(batch_size)) for spec in model.inputs}
        do = relax.transform
        passes = [do.DecomposeOpsForInference(), do.CanonicalizeBindings(), do.FoldConstant()]
        if self.layout == "NHWC":
            passes += [do.ConvertLayout({"relax.nn.conv2d": ["NHWC", "HWIO"]}), do.FoldConstant()]
        try:
            graph = from_onnx(proto, shapes, {spec.name: spec.dtype for spec in model.inputs})
            graph = transform.Sequential([*passes, relax.get_pipeline("zero")])(graph)
        except Exception as error:
            raise CandidateError("unsupported_op", f"TVM cannot take this model: {last_line(error)}") from error
        return graph, [value.name for value in proto.graph.input if value.name not in weights]

    def _tune(self, tasks: list[Any], llvm: str, cores: int, cache: Path, out: Path) -> dict[str, Any]:
        """Copies to `out` the records of the tasks, after measuring those that the cache lacks."""
        from tvm.s_tir import meta_schedule as ms

        hashes = sorted(ms.utils.shash2hex(task.dispatched[0]) for task in tasks)  # batch and preparation included
        versions = [importlib.metadata.version(name) for name in self.libraries]
        key = hashlib.sha256(json.dumps([hashes, llvm, self.seed, versions]).encode()).hexdigest()[:32]
        with _locked(cache / key) as work:
            start = time.monotonic()
            database = ms.database.JSONDatabase(work_dir=str(work))
            reused = len(database)
            done = work / "trials_per_task"  # a small search space is spent before it has that many records
            if not done.exists() or int(done.read_text(encoding="utf-8")) < self.trials_per_task:
                self._measure(tasks, database, cores, work)
                done.with_suffix(".new").write_text(str(self.trials_per_task), encoding="utf-8")
                done.with_suffix(".new").replace(done)
            for name in _RECORDS:
                shutil.copyfile(work / name, out / name)
            valid = sum(min(costs, default=_FAILED_S) < _FAILED_S for costs in _costs(database, tasks))
            counts = {"records": len(database), "reused": reused, "measured": len(database) - reused}
            seconds = round(time.monotonic() - start, 1)
            return {"tasks_with_valid_record": valid, **counts, "seconds": seconds, "database": key}

    def _measure(self, tasks: list[Any], database: Any, cores: int, work: Path) -> None:
        """Adds records until each task has `trials_per_task`, or its search space is spent."""
        _register_intrinsics()
        from tvm.s_tir import meta_schedule as ms

        logger = logging.getLogger("tvm.s_tir.meta_schedule")
        logger.setLevel(logging.WARNING)
        config = ms.runner.EvaluatorConfig(number=1, repeat=1, min_repeat_ms=40)
        runner = ms.runner.LocalRunner(timeout_sec=10, evaluator_config=config)  # a crash there costs that schedule
        model = ms.cost_model.XGBModel(num_tuning_cores=cores, num_warmup_samples=2 * _ROUND)
        builder = _builder(work / "build")
        missing = [self.trials_per_task - len(costs) for costs in _costs(database, tasks)]
        for trials in sorted({count for count in missing if count > 0}, reverse=True):
            group = [task for task, count in zip(tasks, missing, strict=True) if count == trials]
            contexts = [
                ms.TuneContext(
                    mod=task.dispatched[0],
                    target=task.target,
                    space_generator="post-order-apply",
                    search_strategy=ms.search_strategy.EvolutionarySearch(population_size=64, genetic_num_iters=2),
                    task_name=task.task_name,
                    logger=logger,
                    rand_state=seed,
                    num_threads=cores,
                )
                for task, seed in zip(group, ms.utils.fork_seed(self.seed, n=len(group)), strict=True)
            ]
            ms.tune.tune_tasks(
                tasks=contexts,
                task_weights=[task.weight for task in group],
                work_dir=str(work),
                max_trials_global=trials * len(group),
                max_trials_per_task=trials,
                num_trials_per_iter=_ROUND,
                builder=builder,
                runner=runner,
                database=database,
                cost_model=model,
            )


class _Session(Session):
    def __init__(self, main: Any, buffers: dict[str, Any]) -> None:
        self._main, self._buffers = main, buffers

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        for name, buffer in self._buffers.items():
            buffer.copyfrom(inputs[name])
        result = self._main(*self._buffers.values())
        return [output.numpy() for output in ([result] if hasattr(result, "numpy") else result)]


def _import_tvm(threads: int) -> Any:
    os.environ["TVM_NUM_THREADS"] = str(threads)
    os.environ.setdefault("TVM_BIND_THREADS", "0")  # or it pins the caller, in every process, to the first cores
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]  # tvm_ffi imports torch wherever it is installed
    try:
        import tvm
        import tvm.relax
        import tvm.target.codegen
    finally:
        if hidden:
            del sys.modules["torch"]
    return tvm


def _host_cpu() -> str:
    """LLVM's name for this processor, or a generic one where they disagree on AVX-512 (old LLVM, hypervisor)."""
    from tvm.target import Target, codegen

    name = str(codegen.llvm_get_system_cpu())
    if not _X86:
        return name
    has = "avx512f" in Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    named = "avx512f" in codegen.llvm_get_cpu_features(Target({"kind": "llvm", "mcpu": name}))
    return name if has == named else "x86-64-v4" if has else "x86-64-v3"


def _register_intrinsics() -> None:
    """Loads this processor's tensor intrinsics alone: the package itself parses every GPU's for 9 to 18 s."""
    name = "tvm.s_tir.tensor_intrin"
    spec = importlib.util.find_spec(name)
    if name not in sys.modules and spec is not None:
        sys.modules[name] = importlib.util.module_from_spec(spec)
        importlib.import_module(f"{name}.{'x86' if _X86 else 'arm_cpu'}")


def _builder(folder: Path) -> Any:
    """Builds in this process; MetaSchedule's LocalBuilder starts interpreters anew for every round."""
    from tvm.ir.utils import derived_object
    from tvm.s_tir.meta_schedule.builder import BuilderResult, PyBuilder
    from tvm.s_tir.meta_schedule.builder.local_builder import default_build

    def build(module: Any, target: Any, place: Path) -> Any:
        place.mkdir(parents=True)
        try:
            library = default_build(module, target, None)
            library.export_library(str(place / "schedule.so"), workspace_dir=str(place))
        except Exception as error:  # recorded as a failed measurement
            return BuilderResult(None, last_line(error))
        return BuilderResult(str(place / "schedule.so"), None)

    @derived_object
    class Builder(PyBuilder):  # type: ignore[misc]
        count = 0

        def build(self, build_inputs: list[Any]) -> list[Any]:
            self.count += 1
            place = folder / str(self.count)
            return [build(each.mod, each.target, place / str(i)) for i, each in enumerate(build_inputs)]

    return Builder()


def _costs(database: Any, tasks: list[Any]) -> list[list[float]]:
    """For each task the seconds of its records."""
    records = [(record.workload, max(map(float, record.run_secs))) for record in database.get_all_tuning_records()]
    workloads = [database.commit_workload(task.dispatched[0]) for task in tasks]
    return [[cost for owner, cost in records if owner.same_as(workload)] for workload in workloads]


@contextlib.contextmanager
def _locked(work: Path) -> Iterator[Path]:
    """The folder for this process alone, mended of the torn lines and the builds that a killed one left."""
    work.mkdir(parents=True, exist_ok=True)
    with critical_section(work / "lock"):
        for path in filter(Path.exists, (work / name for name in _RECORDS)):
            os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
        shutil.rmtree(work / "build", ignore_errors=True)
        yield work
        shutil.rmtree(work / "build", ignore_errors=True)
