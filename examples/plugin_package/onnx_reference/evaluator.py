"""ONNX's own reference evaluator: every operator in NumPy, slow, and right by definition."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from tuner.errors import CandidateError
from tuner.forms.onnx import ONNX
from tuner.model import Form, Model
from tuner.plugin import Backend, Session, missing
from tuner.target import Target
from tuner.tensors import Arrays, TensorSpec


@dataclass(frozen=True)
class Evaluator(Backend):
    """No compilation, and no parameters."""

    accepts: ClassVar[tuple[Form, ...]] = (ONNX,)
    libraries: ClassVar[tuple[str, ...]] = ("onnx",)
    devices: ClassVar[tuple[str, ...] | None] = ("cpu",)

    @property
    def label(self) -> str:
        return "reference"

    def unavailable(self, target: Target) -> str | None:
        return missing("onnx.reference", "onnx")

    def compile(self, model: Model, batch_size: int, target: Target, out: Path, cache: Path) -> None:
        try:
            _evaluator(model.path)
        except NotImplementedError as error:
            raise CandidateError("unsupported_op", f"the reference evaluator lacks an operator: {error}") from error
        shutil.copyfile(model.path, out / ONNX.file)

    def load(self, folder: Path, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target) -> Session:
        return _Session(_evaluator(folder / ONNX.file))


def _evaluator(path: Path) -> Any:
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(str(path))


class _Session(Session):
    def __init__(self, evaluator: Any) -> None:
        self._evaluator = evaluator

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        outputs: list[NDArray[Any]] = self._evaluator.run(None, inputs)
        return outputs
