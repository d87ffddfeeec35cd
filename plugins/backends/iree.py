"""IREE: an MLIR compiler and a small runtime, for CPUs."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tuner.errors import CandidateError
from tuner.forms.onnx import ONNX
from tuner.forms.onnx_sized import sized
from tuner.model import Form, Model
from tuner.plugin import Backend, Session, missing
from tuner.system.said import first_line
from tuner.target import Target
from tuner.tensors import Arrays, TensorSpec

_STACK_LIMIT = "--iree-llvmcpu-stack-allocation-limit"  # bytes; half of it by default, too little for a layer norm
_MODULE, _INPUTS = "model.vmfb", "inputs.json"


@dataclass(frozen=True)
class IREE(Backend):
    """Compiled for the processor that compiles. It takes no shapes that vary, and of quantized graphs only those whose
    operators its importer knows."""

    accepts: ClassVar[tuple[Form, ...]] = (ONNX,)
    slow: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("iree-base-compiler", "iree-base-runtime")
    devices: ClassVar[tuple[str, ...] | None] = ("cpu",)

    def unavailable(self, target: Target) -> str | None:
        return missing("iree.compiler", "inference-tuner[iree]") or missing("iree.runtime", "inference-tuner[iree]")

    def compile(self, model: Model, batch_size: int, target: Target, out: Path, cache: Path) -> None:
        from iree.compiler import CompilerToolError, ir, tools
        from iree.compiler.extras.onnx_importer import ModelInfo, NodeImporter, OnnxImportError

        proto, names = sized(model, batch_size)
        try:
            with ir.Context() as context:
                graph = ModelInfo(proto)
                module = graph.create_module(context=context).operation
                NodeImporter.define_function(graph.main_graph, module).import_all()
                code = io.BytesIO()
                module.write_bytecode(code)
            options = ["--iree-llvmcpu-target-cpu=host", "--iree-opt-level=O3", f"{_STACK_LIMIT}={2**16}"]
            compiled = tools.compile_str(
                code.getvalue(), input_type="onnx", target_backends=["llvm-cpu"], extra_args=options
            )
        except (OnnxImportError, CompilerToolError) as error:
            raise CandidateError("unsupported_op", f"IREE cannot take this model: {_reason(error)}") from error
        (out / _MODULE).write_bytes(compiled)
        (out / _INPUTS).write_text(json.dumps(names))

    def load(self, folder: Path, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target) -> Session:
        from iree import runtime

        config = runtime.Config(_driver(target.cores))
        compiled = runtime.VmModule.mmap(config.vm_instance, str(folder / _MODULE))
        hardware = runtime.create_hal_module(config.vm_instance, config.device)
        modules = runtime.SystemContext(vm_modules=[hardware, compiled], config=config).modules
        (entry,) = (name for name in compiled.function_names if not name.startswith("_") and "$" not in name)
        return _Session(modules[compiled.name][entry], json.loads((folder / _INPUTS).read_text()))


class _Session(Session):
    def __init__(self, call: Any, names: Sequence[str]) -> None:
        self._call, self._names = call, names

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        answer = self._call(*(inputs[name] for name in self._names))
        outputs = answer if isinstance(answer, tuple | list) else [answer]
        return [np.array(output.to_host()) for output in outputs]  # that memory is gone with the session


@cache
def _driver(threads: int) -> str:
    """What runs a module on so many threads. Their number is for the whole process, and set before the first one."""
    from iree.runtime import flags

    if threads == 1:
        return "local-sync"
    flags.parse_flags(f"--task_topology_group_count={threads}")
    return "local-task"


def _reason(error: Exception) -> str:
    """The first error that the compiler names, without what it was doing."""
    lines = [line for line in str(error).splitlines() if "error:" in line]
    return first_line(lines[0].partition("error:")[2].strip() if lines else error)
