"""LiteRT, which was TensorFlow Lite: a runtime for devices, with XNNPACK's kernels on CPUs."""

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

_FILE = "model.tflite"


@dataclass(frozen=True)
class LiteRT(Backend):
    """float32, from torch by litert-torch. It takes no TorchScript, and no shapes that vary."""

    accepts: ClassVar[tuple[Form, ...]] = (TORCH, EXPORTED)
    slow: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("litert-torch", "ai-edge-litert")
    requirements: ClassVar[tuple[str, ...]] = ("litert-torch==0.10.0", "ai-edge-litert==2.3.0", "torch==2.13.0")
    devices: ClassVar[tuple[str, ...] | None] = ("cpu",)

    def unavailable(self, target: Target) -> str | None:
        return missing("ai_edge_litert", "ai-edge-litert")

    def crosses(self, target: Target) -> str | None:
        return self.unavailable(target)

    def compile(self, model: Model, batch_size: int, target: Target, out: Path, cache: Path) -> None:
        program = exported(model, batch_size, target)
        import litert_torch

        taken, _ = program.example_inputs
        try:
            wide = any(spec.dtype.endswith("64") for spec in model.inputs)  # else it would take them as 32 bits
            litert_torch.convert(program.module(), taken, enable_x64=wide).export(str(out / _FILE))
        except (RuntimeError, ValueError, NotImplementedError) as error:
            raise CandidateError("unsupported_op", f"LiteRT cannot take this model: {first_line(error)}") from error

    def load(self, folder: Path, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target) -> Session:
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_path=str(folder / _FILE), num_threads=target.cores)
        interpreter.allocate_tensors()
        return _Session(interpreter, [spec.name for spec in inputs])


class _Session(Session):
    def __init__(self, interpreter: Any, names: list[str]) -> None:
        """`names` are those of the inputs, in the order in which the program takes them."""
        self._interpreter = interpreter
        (signature,) = interpreter.get_signature_list()
        runner = interpreter.get_signature_runner(signature)
        taken, answered = runner.get_input_details(), runner.get_output_details()
        self._taken = {name: taken[f"args_{place}"]["index"] for place, name in enumerate(names)}
        self._answered = [answered[f"output_{place}"]["index"] for place in range(len(answered))]

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        for name, index in self._taken.items():
            self._interpreter.set_tensor(index, inputs[name])
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._answered]
