"""ONNX Runtime: a graph optimiser and kernels for CPUs (and other devices through its providers)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from tuner.errors import CandidateError
from tuner.forms.onnx import BATCH, ONNX, copy
from tuner.model import Form, Model
from tuner.plugin import Backend, Session, missing
from tuner.target import Target
from tuner.tensors import Arrays, TensorSpec


@dataclass(frozen=True)
class OnnxRuntime(Backend):
    """All graph optimisations, on the providers the target lists."""

    variable: ClassVar[bool] = True
    accepts: ClassVar[tuple[Form, ...]] = (ONNX,)
    libraries: ClassVar[tuple[str, ...]] = ("onnxruntime",)

    def unavailable(self, target: Target) -> str | None:
        if reason := missing("onnxruntime"):
            return reason
        import onnxruntime

        if not target.hardware.host and set(target.onnxruntime_providers) <= {"CPUExecutionProvider"}:
            return (
                f"target={target.name} lists only the CPU; put its device's in target.onnxruntime_providers "
                "(CUDAExecutionProvider for NVIDIA)"
            )
        if lacking := set(target.onnxruntime_providers) - set(onnxruntime.get_available_providers()):
            return f"this build of onnxruntime lacks {', '.join(sorted(lacking))}; pip install onnxruntime-gpu"
        return None

    def compile(self, model: Model, batch_size: int, target: Target, out: Path, cache: Path) -> None:
        copy(model.directory, out)

    def load(self, folder: Path, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target) -> Session:
        import onnxruntime

        providers = list(target.onnxruntime_providers)
        if "CUDAExecutionProvider" in providers:
            onnxruntime.preload_dlls()  # CUDA libraries that pip installed, which the system loader does not find
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = target.cores  # they spin for a while after a call, as they do when deployed
        options.log_severity_level = 3
        # the batch is known: a free axis would keep shapes from being folded
        options.add_free_dimension_override_by_name(BATCH, batch_size)
        session = onnxruntime.InferenceSession(folder / ONNX.file, options, providers=providers)
        if session.get_providers()[0] != providers[0]:  # a provider that fails to load is skipped in silence
            raise CandidateError(
                "error", f"onnxruntime could not load {providers[0]}; its log names the missing library"
            )
        return _Session(session)


class _Session(Session):
    def __init__(self, session: Any) -> None:
        self._session = session

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        outputs: list[NDArray[Any]] = self._session.run(None, inputs)
        return outputs
