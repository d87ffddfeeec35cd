"""OpenVINO: Intel's compiler and runtime for CPUs; it uses AVX-512 and AMX where the processor has them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from tuner.errors import CandidateError
from tuner.forms.onnx import ONNX
from tuner.forms.openvino import OPENVINO
from tuner.model import Form, Model
from tuner.operators import OperatorTime, kind_of
from tuner.plugin import Backend, Native, Precision, Session, later, missing
from tuner.system.fields import AtLeast
from tuner.system.said import last_line
from tuner.target import Target
from tuner.tensors import Arrays, TensorSpec

_WARM_UP, _PROFILED = 3, 40  # calls
_CONVERSIONS = ("Reorder", "Convert", "FakeQuantize")


@dataclass(frozen=True)
class OpenVINO(Backend):
    """A stream for each replica, at a fixed batch size.

    `hint` is what OpenVINO tunes the streams for, and without `pinning` their threads may move between cores.
    `threads` is the most that a stream has, where that is fewer than its cores.
    `precision` is the arithmetic of layers that no transform has quantized. bf16 keeps inputs, outputs and
    files in float32, and pays on processors with bf16 instructions (AMX above all).
    """

    precision: Literal["f32", "bf16"] = "f32"
    hint: Literal["latency", "throughput"] = later("latency")
    pinning: bool = later(True)
    threads: Annotated[int, AtLeast(1)] | None = later(None)

    accepts: ClassVar[tuple[Form, ...]] = (OPENVINO, ONNX)
    libraries: ClassVar[tuple[str, ...]] = ("openvino",)
    devices: ClassVar[tuple[str, ...] | None] = ("cpu",)

    @property
    def label(self) -> str:
        marks = {f"-{self.precision}": self.precision != "f32", f"-{self.hint}": self.hint != "latency"}
        marks |= {"-unpinned": not self.pinning, f"-{self.threads}t": self.threads is not None}
        return "openvino" + "".join(mark for mark, shown in marks.items() if shown)

    @property
    def arithmetic(self) -> Precision:
        return self.precision

    def unavailable(self, target: Target) -> str | None:
        if reason := missing("openvino", "inference-tuner[openvino]"):
            return reason
        import openvino

        capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if self.precision.upper() not in {"F32", *capabilities}:
            return f"this CPU has no {self.precision} instructions ({', '.join(capabilities)}); use precision=f32"
        return None

    def crosses(self, target: Target) -> str | None:
        return missing("openvino", "inference-tuner[openvino]")

    def compile(self, model: Model, batch_size: int, target: Target, out: Path, cache: Path) -> None:
        import openvino

        try:
            graph = openvino.Core().read_model(model.path)
            graph.reshape({spec.name: spec.full(batch_size) for spec in model.inputs})
        except RuntimeError as error:
            raise CandidateError("unsupported_op", f"OpenVINO cannot take this model: {last_line(error)}") from error
        openvino.save_model(graph, out / OPENVINO.file, compress_to_fp16=False)

    def load(self, folder: Path, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target) -> Session:
        (session,) = self.load_replicas(folder, inputs, batch_size, target, 1)
        return session

    def load_replicas(
        self, folder: Path, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target, replicas: int
    ) -> list[Session]:
        import openvino

        compiled = openvino.Core().compile_model(folder / OPENVINO.file, "CPU", self._config(target, replicas))
        sessions: list[Session] = [_Session(compiled.create_infer_request()) for _ in range(replicas)]
        if replicas > 1:  # two first calls at once may wait for each other for ever, in what the first of all sets up
            sessions[0].run({spec.name: np.zeros(spec.full(batch_size), spec.dtype) for spec in inputs})
        return sessions

    def operator_times(
        self, folder: Path, inputs: tuple[TensorSpec, ...], target: Target, batch: Arrays
    ) -> list[OperatorTime]:
        import openvino

        config = {**self._config(target, 1), "PERF_COUNT": "YES"}
        request = openvino.Core().compile_model(folder / OPENVINO.file, "CPU", config).create_infer_request()
        for _ in range(_WARM_UP):
            request.infer(batch)
        first_ms = _sums_ms(request, _WARM_UP)
        for _ in range(_PROFILED):
            request.infer(batch)
        times = zip(request.profiling_info, first_ms, _sums_ms(request, _WARM_UP + _PROFILED), strict=True)
        return [_operator_time(info, max(0.0, last - first) / _PROFILED) for info, first, last in times if last > 0]

    def native(self, server: str, folder: Path, target: Target, replicas: int) -> Native | str:
        if server == "triton":
            return "its OpenVINO backend (beta) is held to no precision, but takes bf16 where the processor has it"
        return Native("openvino", self._config(target, replicas))

    def loader(self, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target) -> str | None:
        return f"""\
import openvino

config = {self._config(target, 1)}
compiled = openvino.Core().compile_model(files / {OPENVINO.file!r}, "CPU", config)


def run(inputs):
    return list(compiled(inputs).to_tuple())
"""

    def _config(self, target: Target, streams: int) -> dict[str, str]:
        most = target.cores if self.threads is None else min(target.cores, self.threads * streams)
        config = {
            # never left to the default, which is bf16 where the processor has it
            "INFERENCE_PRECISION_HINT": self.precision,
            "PERFORMANCE_HINT": self.hint.upper(),
            "NUM_STREAMS": str(streams),
            "INFERENCE_NUM_THREADS": str(most),
        }
        if not self.pinning:  # else OpenVINO decides
            config["ENABLE_CPU_PINNING"] = "NO"
        return config


def _sums_ms(request: Any, calls: int) -> list[float]:
    """What each node took in so many calls, which are all there were: OpenVINO tells the mean of them, and nothing of
    what takes less than a microsecond."""
    return [calls * info.real_time.total_seconds() * 1e3 for info in request.profiling_info]


def _operator_time(info: Any, ms: float) -> OperatorTime:
    """Of a node, with what it takes of a call."""
    kind = kind_of(info.node_type, r"Convolution|Deconvolution|FullyConnected|MatMul|Attention", _CONVERSIONS)
    arithmetic = info.exec_type.rpartition("_")[2].lower()
    computes_in = "int8" if arithmetic in ("i8", "u8") else arithmetic
    name = info.node_name.removesuffix("/DequantizationMultiply").removesuffix("/WithoutBiases")
    return OperatorTime(name, kind, computes_in, ms)


class _Session(Session):
    def __init__(self, request: Any) -> None:
        self._request = request

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        # not shared, outputs are copied: else they are views of the request's own memory, overwritten by its next call
        results = self._request.infer(inputs, share_inputs=True, share_outputs=False)
        return list(results.to_tuple())
