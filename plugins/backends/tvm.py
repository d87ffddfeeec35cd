"""Apache TVM: graphs compiled to machine code whose loops MetaSchedule searches by measuring on this machine."""

import importlib.metadata
import importlib.util
import json
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from tuner.errors import CandidateError
from tuner.forms.onnx import ONNX
from tuner.model import Form, Model
from tuner.operators import OperatorTime
from tuner.plugin import Backend, Session, encode, later
from tuner.plugins.backends.tvm_lowering import (
    X86,
    Layout,
    described,
    export,
    for_gpu,
    foreign,
    import_tvm,
    prepared,
    processor,
    scheduled,
)
from tuner.plugins.backends.tvm_on_board import OnBoard
from tuner.plugins.backends.tvm_records import (
    FAILED_S,
    IMPORTED,
    REACHED,
    RECORDS,
    costs_of,
    key_of,
    locked,
    reach,
    reached,
)
from tuner.plugins.backends.tvm_session import HostSession, TvmSession, kernel_times, virtual_machine
from tuner.plugins.backends.tvm_tasks import table, tuned_tasks
from tuner.plugins.backends.tvm_tuning import ROUND, Budget, CostModel, Effort, Strategy, measure
from tuner.plugins.devices.tvm_board import TvmBoard
from tuner.system.fields import AtLeast
from tuner.system.said import last_line
from tuner.target import Target
from tuner.tensors import Arrays, TensorSpec, samples_in

_LIBRARY, _OBJECTS = "model.so", "model.tar"
_OF_TUNING = ("strategy", "cost_model", "budget")


@dataclass(frozen=True)
class TVM(Backend):
    """`trials_per_task` schedules are built and measured for each distinct fused operator (a task) of the graph;
    0 leaves the loops as they come, tens of times slower.

    For NVIDIA GPUs it writes CUDA, which NVRTC compiles where it is loaded; loops without a record are as TVM has them
    for any GPU. For a board that TVM's RPC tracker knows it compiles here, and tunes and times there. With
    `compile_only=true` it compiles also where no such device is, untuned.
    `layout` is that of convolutions, `vector_bits` the vector width that LLVM prefers where the processor has it (x86).

    Schedules are proposed by evolution, from those that a `cost_model` finds best, or at random (`strategy`).
    `budget="even"` measures as many for each task; `"gain"` as many altogether, which after a round of each go to the
    tasks that the graph spends most in and that still get faster, by MetaSchedule's own rule. With `prepack` weights
    lie in the artifact as the schedule of their task reads them.
    """

    trials_per_task: Literal[0] | Annotated[int, AtLeast(ROUND)] = 0
    layout: Layout = "NHWC"
    vector_bits: Literal[256, 512] = 512
    seed: Annotated[int, AtLeast(1)] = 1
    strategy: Strategy = later("evolutionary")  # noqa: RUF009
    cost_model: CostModel = later("xgb")  # noqa: RUF009
    budget: Budget = later("even")  # noqa: RUF009
    prepack: bool = later(False)

    accepts: ClassVar[tuple[Form, ...]] = (ONNX,)
    slow: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("apache-tvm", "apache-tvm-ffi")
    devices: ClassVar[tuple[str, ...] | None] = ("cpu", "nvidia", "tvm_board")
    records: ClassVar[tuple[str, ...]] = (*RECORDS, REACHED)

    @property
    def label(self) -> str:
        marks = {f"-ms{self.trials_per_task}": self.trials_per_task, "-nchw": self.layout == "NCHW"}
        replay = self.strategy == "replay-trace"  # which asks no model
        marks |= {"-v256": self.vector_bits == 256, "-replay": replay}
        marks |= {
            "-random": self.cost_model == "random" and not replay,
            "-gain": self.budget == "gain",
            "-prepack": self.prepack,
        }
        return "tvm" + "".join(mark for mark, shown in marks.items() if shown)

    def unavailable(self, target: Target) -> str | None:
        if processor(target) and target.tvm.get("kind", "llvm") != "llvm":
            return f"tvm compiles for CPUs and boards with tvm.kind llvm, and target={target.name} has another"
        if (idle := self._idle()) is not None:
            return f"tvm: {idle}; leave it out"
        if self.prepack and not processor(target):
            return f"tvm: prepack is for processors, and target={target.name} is none; leave it out"
        for library in ("xgboost", "cloudpickle", "psutil"):
            if self.trials_per_task and importlib.util.find_spec(library) is None:
                return f"tvm tunes with {library}, which is not installed; pip install 'inference-tuner[tvm]'"
        if not any(map(shutil.which, ("g++", "clang++"))):
            return "tvm links with a C++ compiler and finds neither g++ nor clang++; install one"
        try:
            tvm = import_tvm(target.cores)
        except Exception as error:
            return f"tvm does not import ({last_line(error)}); pip install 'inference-tuner[tvm]'"
        try:
            chosen = tvm.target.Target(described(target, self.vector_bits))
            features = tvm.target.codegen.llvm_get_cpu_features(chosen) if target.hardware.host else ()
        except Exception as error:
            return f"tvm refuses target.tvm={dict(target.tvm)}: {last_line(error)}"
        if self.vector_bits != type(self).vector_bits and not target.hardware.host:
            return "tvm: vector_bits is for the processor of this machine; leave it out"
        if target.hardware.far:
            return None
        if not target.hardware.host:
            return _unfit_for_cuda(target, chosen.kind.name, tvm.cuda().exist)
        if X86 and self.vector_bits == 256 and "avx512f" not in features:
            return "tvm: this processor's vectors have 256 bits anyway; leave vector_bits out"
        return None

    def crosses(self, target: Target) -> str | None:
        if self.trials_per_task:
            return f"{self.label} tunes by measuring on the device; trials_per_task=0 compiles without it"
        try:
            kind = import_tvm(target.cores).target.Target(described(target, self.vector_bits)).kind.name
        except Exception as error:
            return f"tvm refuses target.tvm={dict(target.tvm)}: {last_line(error)}"
        return None if kind in ("llvm", "cuda") else _of_another_kind(target, kind)

    def rungs(self) -> tuple[Backend, ...]:
        """A quarter of the trials, then all: most of the gain comes early. At least one round of them, and another
        where they go by gain: each search begins with a round of every task."""
        first = max(self.trials_per_task // 4, ROUND if self.budget == "even" else 2 * ROUND)
        return (replace(self, trials_per_task=first), self) if first < self.trials_per_task else (self,)

    def compile(self, model: Model, batch_size: int, target: Target, out: Path, cache: Path) -> None:
        """Writes the library, the records of its tasks and `tuning.json`, which tells of them."""
        tvm = import_tvm(target.cores)
        from tvm.s_tir import meta_schedule as ms

        with tvm.target.Target(described(target, self.vector_bits)) as llvm:
            module, names = prepared(model, batch_size, self.layout, prepack=self.prepack)
            tasks = ms.relax_integration.extract_tasks(module, llvm)
            summary = {"inputs": names, "target": str(llvm), "tvm": tvm.__version__, "tasks": len(tasks)}
            summary |= {"trials_per_task": self.trials_per_task, "tasks_with_valid_record": 0, "records": 0}
            if self.trials_per_task and tasks:
                summary |= self._tune(tasks, str(llvm), target, cache, out)
                module = scheduled(module, out, prepack=self.prepack)
            if llvm.kind.name == "cuda":
                module = for_gpu(module)
            export(module, llvm, out / (_OBJECTS if foreign(target) else _LIBRARY))
        (out / "tuning.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")

    def load(self, folder: Path, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target) -> Session:
        tvm = import_tvm(target.cores)
        path, specs = _compiled(folder, inputs)
        if isinstance(board := target.hardware, TvmBoard):
            return OnBoard(tvm, board, path, specs, batch_size)
        kind, device = (HostSession, "cpu") if target.hardware.host else (TvmSession, "cuda")
        vm, buffers = virtual_machine(tvm, path, specs, batch_size, device)
        return kind(vm["main"], buffers)

    def operator_times(
        self, folder: Path, inputs: tuple[TensorSpec, ...], target: Target, batch: Arrays
    ) -> list[OperatorTime]:
        if not target.hardware.host:
            return []  # what others launch goes on behind the clock
        tvm, size = import_tvm(target.cores), samples_in(batch, inputs)
        return kernel_times(*virtual_machine(tvm, *_compiled(folder, inputs), size, "cpu"), batch)

    def loader(self, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target) -> str | None:
        threads = "" if target.hardware.far else f'os.environ.setdefault("TVM_NUM_THREADS", "{target.cores}")\n'
        device = "cpu" if processor(target) else "cuda"
        return f"""\
import json
import os

{threads}import tvm
import tvm.relax

library = tvm.runtime.load_module(str(files / {_OBJECTS if foreign(target) else _LIBRARY!r}))
device = tvm.{device}()
main = tvm.relax.VirtualMachine(library, device)["main"]
order = json.loads((files / "tuning.json").read_text())["inputs"]


def run(inputs):
    result = main(*(tvm.runtime.tensor(inputs[name], device) for name in order))
    return [output.numpy() for output in ([result] if hasattr(result, "numpy") else result)]
"""

    def _idle(self) -> str | None:
        """Which choice would do nothing, so that the same would be measured under two names."""
        if self.budget == "gain" and self.trials_per_task < 2 * ROUND:
            return f"budget=gain shares out what a first round leaves, and trials_per_task is less than {2 * ROUND}"
        if self.strategy == "replay-trace" and not self.trials_per_task:
            return "strategy is of tuning, and trials_per_task is 0"
        if self.cost_model == "random" and (self.strategy == "replay-trace" or not self.trials_per_task):
            return "cost_model is of evolutionary tuning"
        if self.prepack and not self.trials_per_task:
            return "prepack lays out weights for tuned schedules, and trials_per_task is 0"
        return None

    def _tune(self, tasks: list[Any], llvm: str, target: Target, cache: Path, out: Path) -> dict[str, Any]:
        """Copies to `out` the records of the tasks, after measuring those that the cache lacks."""
        from tvm.s_tir import meta_schedule as ms

        libraries = [importlib.metadata.version(name) for name in self.libraries]
        places = [target.remote] if target.hardware.far else []  # records of one board are not another's
        chosen = {name: value for name, value in encode(self).items() if name in _OF_TUNING}  # unless as it comes
        key = key_of(tasks, llvm, self.seed, libraries, *places, *([chosen] if chosen else []))
        with locked(cache / key) as work:
            start = time.monotonic()
            database = ms.database.JSONDatabase(work_dir=str(work))
            reused = len(database)
            more, died = reached(work) < self.trials_per_task, []
            if more:
                effort = Effort(self.trials_per_task, self.seed, self.strategy, self.cost_model, self.budget)
                died = measure(tasks, database, work, target, effort)
            valid = sum(min(costs, default=FAILED_S) < FAILED_S for costs in costs_of(database, tasks))
            if more and not valid:
                for name in RECORDS:
                    (work / name).unlink(missing_ok=True)
                raise CandidateError("error", "not one schedule that TVM tried could be built and measured")
            if more:
                reach(work, self.trials_per_task)
            for name in RECORDS:
                shutil.copyfile(work / name, out / name)
            counts = {"records": len(database), "reused": reused, "measured": len(database) - reused}
            seconds = round(time.monotonic() - start, 1)
            imported = (work / IMPORTED).exists()
            # what another machine measured is no share of this one's
            peak = target.peaks.flops_per_s.get("f32") if target.peaks is not None and not imported else None
            tuned = tuned_tasks(tasks, database, out, peak)
            table(tuned, imported=imported, died=died).write(out, "tvm_tasks")
            found = {"by_task": [asdict(task) for task in tuned], "imported": imported, "died_of": died}
            return {"tasks_with_valid_record": valid, **counts, "seconds": seconds, "database": key, **found}


def _compiled(folder: Path, inputs: tuple[TensorSpec, ...]) -> tuple[Path, list[TensorSpec]]:
    """What `compile` wrote there, and its inputs in the order in which it takes them."""
    path = folder / (_LIBRARY if (folder / _LIBRARY).exists() else _OBJECTS)
    order = json.loads((folder / "tuning.json").read_text(encoding="utf-8"))["inputs"]
    return path, sorted(inputs, key=lambda spec: order.index(spec.name))


def _of_another_kind(target: Target, kind: str) -> str:
    return f"tvm compiles CUDA for NVIDIA GPUs, and target.tvm={dict(target.tvm)} is of kind {kind}"


def _unfit_for_cuda(target: Target, kind: str, sees_device: bool) -> str | None:
    if kind != "cuda":
        return _of_another_kind(target, kind)
    if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.bindings") is None:
        return "tvm compiles CUDA with NVRTC, by cuda.bindings, which is not installed; pip install cuda-bindings"
    if not sees_device:
        return "tvm sees no CUDA device; it needs the driver, and CUDA 13's runtime (pip install nvidia-cuda-runtime)"
    return None
