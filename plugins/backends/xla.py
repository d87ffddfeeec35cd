"""XLA: the compiler of JAX, given StableHLO by torch-mlir, for CPUs."""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tuner.errors import CandidateError
from tuner.forms.torch import EXPORTED, TORCH
from tuner.forms.torch_export import exported
from tuner.model import Form, Model
from tuner.plugin import Backend, Session, missing
from tuner.system.said import first_line
from tuner.target import Target
from tuner.tensors import Arrays, TensorSpec

_EXECUTABLE = "model.xla"
# convolutions and matrix products by XNNPACK's successor: without, both are several times slower
_LIBRARIES = "--xla_cpu_experimental_ynn_fusion_type=" + ",".join(
    f"LIBRARY_FUSION_TYPE_INDIVIDUAL_{what}" for what in ("CONVOLUTION", "DOT")
)


@dataclass(frozen=True)
class XLA(Backend):
    """float32, compiled ahead for the processor that compiles: where it is loaded it needs jaxlib alone, not torch.

    It takes no TorchScript, and no shapes that vary. Its sessions share one pool of threads in a process, of which the
    first one loaded says how many there are.
    """

    accepts: ClassVar[tuple[Form, ...]] = (TORCH, EXPORTED)
    slow: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("jaxlib", "torch-mlir", "torch")
    devices: ClassVar[tuple[str, ...] | None] = ("cpu",)

    def unavailable(self, target: Target) -> str | None:
        return missing("jax", "inference-tuner[xla]") or missing("torch_mlir", "inference-tuner[xla]")

    def compile(self, model: Model, batch_size: int, target: Target, out: Path, cache: Path) -> None:
        program = exported(model, batch_size, target)
        from jaxlib._jax import CompileOptions, JaxRuntimeError
        from torch_mlir.compiler_utils import OutputType, TorchMlirCompilerError
        from torch_mlir.fx import export_and_import

        try:
            module = export_and_import(program, output_type=OutputType.STABLEHLO, hooks=_constants())
            # XLA knows StableHLO only, and torch-mlir leaves constants in MLIR's own dialect
            code = str(module).replace("= arith.constant ", "= stablehlo.constant ")
            executable = _client(target.cores).compile_and_load(code, _device(target.cores), CompileOptions())
        except (TorchMlirCompilerError, JaxRuntimeError, NotImplementedError, ValueError) as error:
            raise CandidateError("unsupported_op", f"XLA cannot take this model: {first_line(error)}") from error
        (out / _EXECUTABLE).write_bytes(executable.serialize())

    def load(self, folder: Path, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target) -> Session:
        from jaxlib._jax import CompileOptions

        client, code = _client(target.cores), (folder / _EXECUTABLE).read_bytes()
        executable = client.deserialize_executable(code, _device(target.cores), CompileOptions())
        return _Session(executable, client.local_devices()[0], [spec.name for spec in inputs])

    def load_replicas(
        self, folder: Path, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target, replicas: int
    ) -> list[Session]:
        """They share the pool, which has a thread for each of the cores."""
        return [self.load(folder, inputs, batch_size, target) for _ in range(replicas)]


class _Session(Session):
    def __init__(self, executable: Any, device: Any, names: list[str]) -> None:
        self._executable, self._device, self._names = executable, device, names

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        import jax

        with jax.enable_x64(True):  # else whole numbers of 64 bits are cut to 32
            arrays = [jax.device_put(inputs[name], self._device) for name in self._names]
        results = self._executable.execute_sharded(arrays)
        return [np.array(of_devices[0]) for of_devices in results.disassemble_into_single_device_arrays()]


@cache
def _client(threads: int) -> Any:
    """XLA's, which reads from the environment how many threads it takes and what it compiles with."""
    os.environ["NPROC"] = str(threads)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    if _LIBRARIES not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_LIBRARIES}".strip()
    from jax.extend.backend import get_backend

    return get_backend("cpu")


def _device(threads: int) -> Any:
    from jaxlib._jax import DeviceList

    return DeviceList(tuple(_client(threads).local_devices()[:1]))


def _constants() -> Any:
    """Has weights written into the code: as the resources that torch-mlir makes of them, XLA does not take them."""
    import torch
    from torch.utils._python_dispatch import _disable_current_modes
    from torch_mlir import ir
    from torch_mlir.extras.fx_importer import FxImporterHooks

    class Constants(FxImporterHooks):  # type: ignore[misc]
        def resolve_literal(self, gni: Any, literal: Any, info: Any) -> Any:
            if not isinstance(literal, torch.Tensor) or literal.numel() < 2 or literal.dtype == torch.bool:
                return None  # torch-mlir writes these itself
            with _disable_current_modes():  # that of fake tensors, in which a real one has no numbers
                elements = ir.DenseElementsAttr.get(literal.detach().contiguous().numpy())
            kind = gni._cc.tensor_to_vtensor_type(literal)
            return ir.Operation.create("torch.vtensor.literal", [kind], attributes={"value": elements}).result

    return Constants()
