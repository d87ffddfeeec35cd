"""ONNX Runtime: a graph optimiser and kernels for CPUs (and other devices through its providers)."""

import json
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from tuner.errors import CandidateError
from tuner.forms.onnx import BATCH, ONNX, Layout, copy
from tuner.model import Form, Model
from tuner.operators import OperatorTime, kind_of
from tuner.plugin import Backend, Native, Precision, Session, as_it_comes, later, missing
from tuner.system.fields import AtLeast
from tuner.target import Target
from tuner.tensors import Arrays, TensorSpec, samples_in

_LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "disabled": "ORT_DISABLE_ALL",
}
_WARM_UP, _PROFILED = 3, 15  # calls
_KERNEL = "_kernel_time"  # behind a node's name, where the profiler notes how long it ran
_CUDA = "CUDAExecutionProvider"
_PACKAGES = {  # one of them at a time: all bring the same module
    _CUDA: "onnxruntime-gpu",
    "TensorrtExecutionProvider": "onnxruntime-gpu",
    "OpenVINOExecutionProvider": "onnxruntime-openvino",
    "QNNExecutionProvider": "onnxruntime-qnn",
    "MIGraphXExecutionProvider": "onnxruntime-migraphx",
}
_CONVERSIONS = (
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Transpose", "ReorderInput", "ReorderOutput", "Cast",
)  # fmt: skip


@dataclass(frozen=True)
class OnnxRuntime(Backend):
    """On the providers that the target lists, with the options of a session.

    `graph` is how far it is optimised (in labels `-g0`: disabled, `-g1`: basic, `-g2`: extended). `parallel` runs
    operators that do not need one another side by side, a thread each, where else all threads share one operator.
    Without `arena` memory is asked of the system for every call, and without `spinning` threads sleep as soon as there
    is no work: slower alone, kinder to others. `threads` is the most that a session has, where that is fewer than its
    cores: a call of microseconds is not worth sharing. `tf32` lets CUDA's provider multiply float32 in TF32.
    """

    graph: Literal["all", "extended", "basic", "disabled"] = later("all")
    parallel: bool = later(False)
    arena: bool = later(True)
    spinning: bool = later(True)
    threads: Annotated[int, AtLeast(1)] | None = later(None)
    tf32: bool = later(False)

    variable: ClassVar[bool] = True
    accepts: ClassVar[tuple[Form, ...]] = (ONNX,)
    libraries: ClassVar[tuple[str, ...]] = ("onnxruntime",)

    @property
    def label(self) -> str:
        level = [*_LEVELS][::-1].index(self.graph)  # as ONNX Runtime numbers them: "-extended" would be too long
        marks = {f"-g{level}": self.graph != "all", "-par": self.parallel, "-noarena": not self.arena}
        marks |= {"-nospin": not self.spinning, f"-{self.threads}t": self.threads is not None}
        return ("ort-tf32" if self.tf32 else "onnxruntime") + "".join(mark for mark, shown in marks.items() if shown)

    @property
    def arithmetic(self) -> Precision:
        return "tf32" if self.tf32 else "f32"

    @property
    def untuned(self) -> bool:
        return as_it_comes(replace(self, tf32=False))

    def unavailable(self, target: Target) -> str | None:
        if reason := missing("onnxruntime"):
            return reason
        import onnxruntime

        if reason := self.crosses(target):
            return reason
        if lacking := set(target.onnxruntime_providers) - set(onnxruntime.get_available_providers()):
            return f"this build of onnxruntime lacks {', '.join(sorted(lacking))}; {_mend(lacking)}"
        return None

    def crosses(self, target: Target) -> str | None:
        """The graph is compiled where it is loaded."""
        if self.tf32 and not ("tf32" in target.precisions and _CUDA in target.onnxruntime_providers):
            return f"target={target.name} does not list both {_CUDA} and tf32 among its precisions"
        if target.hardware.host or set(target.onnxruntime_providers) - {"CPUExecutionProvider"}:
            return None
        return (
            f"target={target.name} has no provider for {target.hardware.kind}; put it in "
            "target.onnxruntime_providers (CUDAExecutionProvider for NVIDIA)"
        )

    def compile(self, model: Model, batch_size: int, target: Target, out: Path, cache: Path) -> None:
        copy(model.directory, out)

    def load(self, folder: Path, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target) -> Session:
        import onnxruntime

        providers = self._providers(target)
        if _CUDA in target.onnxruntime_providers:
            onnxruntime.preload_dlls()  # CUDA libraries that pip installed, which the system loader does not find
        session = onnxruntime.InferenceSession(
            folder / ONNX.file, self._options(batch_size, target.cores), providers=providers
        )
        first = target.onnxruntime_providers[0]
        if session.get_providers()[0] != first:  # a provider that fails to load is skipped in silence
            raise CandidateError("error", f"onnxruntime could not load {first}; its log names the missing library")
        return _Session(session)

    def operator_times(
        self, folder: Path, inputs: tuple[TensorSpec, ...], target: Target, batch: Arrays
    ) -> list[OperatorTime]:
        import onnxruntime

        if list(target.onnxruntime_providers) != ["CPUExecutionProvider"]:
            return []  # what others launch goes on behind the clock
        options = self._options(samples_in(batch, inputs), target.cores)
        options.enable_profiling = True
        with tempfile.TemporaryDirectory() as scratch:
            options.profile_file_prefix = str(Path(scratch) / "profile")
            session = onnxruntime.InferenceSession(folder / ONNX.file, options, providers=["CPUExecutionProvider"])
            for _ in range(_WARM_UP + _PROFILED):
                session.run(None, batch)
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        calls: dict[str, list[dict[str, Any]]] = {}
        for event in events:
            if event["cat"] == "Node" and event["name"].endswith(_KERNEL):
                calls.setdefault(event["name"].removesuffix(_KERNEL), []).append(event)
        if any(of_it[0]["args"]["op_name"] in ("If", "Loop", "Scan") for of_it in calls.values()):
            return []  # what is inside is told beside the whole
        return [_operator_time(name, of_it[_WARM_UP:]) for name, of_it in calls.items()]

    def _providers(self, target: Target) -> list[Any]:
        """With their options: by CUDA's default float32 is multiplied in TF32."""
        options = {_CUDA: {"use_tf32": str(int(self.tf32))}}
        return [(name, options[name]) if name in options else name for name in target.onnxruntime_providers]

    def _threads(self, cores: int) -> int:
        """Of a session that has so many cores."""
        return min(cores, self.threads or cores)

    def _options(self, batch_size: int, cores: int) -> Any:
        import onnxruntime

        threads = self._threads(cores)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, _LEVELS[self.graph])
        if self.parallel:
            options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
            options.inter_op_num_threads, options.intra_op_num_threads = threads, 1
        else:
            options.intra_op_num_threads = threads
        options.enable_cpu_mem_arena = self.arena
        if not self.spinning:  # else they spin for a while after a call, as they do when deployed
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        # the batch is known: a free axis would keep shapes from being folded
        options.add_free_dimension_override_by_name(BATCH, batch_size)
        return options

    def native(self, server: str, folder: Path, target: Target, replicas: int) -> Native | str:
        if server != "triton":
            return "it serves ONNX with another runtime than ONNX Runtime: the figures would not be those measured"
        if set(target.onnxruntime_providers) - {"CPUExecutionProvider", _CUDA}:
            return f"it sets up {target.onnxruntime_providers[0]} otherwise"
        if _CUDA in target.onnxruntime_providers and not self.tf32:
            return "it multiplies in TF32 on a GPU; tf32=true of ONNX Runtime is that"
        if self.graph != "all" or not self.arena or not self.spinning:
            return f"it is not told all the options of {self.label}"
        threads = str(self._threads(target.share(replicas).cores))
        settings = {"intra_op_thread_count": threads}
        if self.parallel:
            settings = {"execution_mode": "1", "inter_op_thread_count": threads, "intra_op_thread_count": "1"}
        model = Layout.described(Model(ONNX, folder, ()))
        return Native("onnxruntime", settings, ONNX.output_names(model), model.batch_size is None)

    def loader(self, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target) -> str | None:
        count = self._threads(target.cores)
        threads = [f"options.intra_op_num_threads = {count}"]
        if self.parallel:
            threads = [f"options.inter_op_num_threads, options.intra_op_num_threads = {count}, 1"]
            threads.append("options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL")
        if not self.spinning:
            spins = [f"session.{of}_op.allow_spinning" for of in ("intra", "inter")]
            threads += [f"options.add_session_config_entry({name!r}, '0')" for name in spins]
        lines = "\n".join(threads)
        return f"""\
import onnxruntime

options = onnxruntime.SessionOptions()
options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.{_LEVELS[self.graph]}
options.enable_cpu_mem_arena = {self.arena}
{lines}
options.add_free_dimension_override_by_name({BATCH!r}, {batch_size})
session = onnxruntime.InferenceSession(files / {ONNX.file!r}, options, providers={self._providers(target)})


def run(inputs):
    return session.run(None, inputs)
"""


def _mend(lacking: Iterable[str]) -> str:
    """What brings those providers."""
    packages = sorted({_PACKAGES[provider] for provider in lacking if provider in _PACKAGES})
    return f"pip install {' '.join(packages)} in its place" if packages else "install a build of it that has them"


def _operator_time(name: str, events: Sequence[Mapping[str, Any]]) -> OperatorTime:
    """Of what the profiler noted of each call of that node."""
    operator = events[0]["args"]["op_name"]
    kind = kind_of(operator, r"Conv|MatMul|Gemm", _CONVERSIONS)
    quantized = re.match(r"QLinear|QGemm|QAttention|Dynamic", operator) or "Integer" in operator
    kept = {dtype for tensor in events[0]["args"]["input_type_shape"] for dtype in tensor}
    computes_in = "int8" if quantized or (kind == "other" and kept & {"uint8", "int8"}) else "f32"
    ms = float(np.median([event["dur"] for event in events])) / 1e3
    return OperatorTime(re.sub(r"_(token_\d+|nchwc|quant)$", "", name), kind, computes_in, ms)


class _Session(Session):
    def __init__(self, session: Any) -> None:
        self._session = session

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        outputs: list[NDArray[Any]] = self._session.run(None, inputs)
        return outputs
