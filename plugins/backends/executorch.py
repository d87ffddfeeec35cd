"""ExecuTorch: torch's runtime for devices, here on CPUs with XNNPACK's kernels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from tuner.errors import CandidateError
from tuner.forms.torch import EXPORTED, TORCH
from tuner.forms.torch_export import exported
from tuner.model import Form, Model
from tuner.plugin import Backend, Session, missing
from tuner.system.said import first_line
from tuner.target import Target
from tuner.tensors import Arrays, TensorSpec

_PROGRAM = "model.pte"


@dataclass(frozen=True)
class ExecuTorch(Backend):
    """float32. What XNNPACK has no kernel for is run by ExecuTorch's own, which are slow.

    It takes no TorchScript, and no shapes that vary. Its sessions share one pool of threads in a process.
    """

    accepts: ClassVar[tuple[Form, ...]] = (TORCH, EXPORTED)
    slow: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("executorch", "torch")
    requirements: ClassVar[tuple[str, ...]] = (
        "executorch==1.5.1",
        "torch==2.13.0",
    )  # torchao and coremltools of its own
    devices: ClassVar[tuple[str, ...] | None] = ("cpu",)

    def unavailable(self, target: Target) -> str | None:
        return missing("executorch", "executorch")

    def crosses(self, target: Target) -> str | None:
        return self.unavailable(target)

    def compile(self, model: Model, batch_size: int, target: Target, out: Path, cache: Path) -> None:
        program = exported(model, batch_size, target)
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower
        from executorch.exir.error import ExportError

        try:
            edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
            (out / _PROGRAM).write_bytes(edge.to_executorch().buffer)
        except (ExportError, RuntimeError) as error:
            raise CandidateError("unsupported_op", f"ExecuTorch cannot take this model: {first_line(error)}") from error

    def load(self, folder: Path, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target) -> Session:
        from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
        from executorch.runtime import Runtime

        _unsafe_reset_threadpool(target.cores)  # unsafe while something runs
        program = Runtime.get().load_program(folder / _PROGRAM)
        return _Session(program, [spec.name for spec in inputs])


class _Session(Session):
    def __init__(self, program: Any, names: list[str]) -> None:
        self._program, self._names = program, names
        self._forward = program.load_method("forward")

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        import torch

        outputs = self._forward.execute([torch.tensor(inputs[name]) for name in self._names])
        return [output.numpy() for output in outputs]
