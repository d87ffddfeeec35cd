"""An ONNX file."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from tuner.errors import RequestError
from tuner.forms.onnx import ONNX, declared
from tuner.forms.onnx_entry import let_in
from tuner.system.worker import Progress
from tuner.workload import Dataset, Form, FreeSpec, ModelSource, evaluation


@dataclass(frozen=True)
class OnnxModel(ModelSource):
    """An ONNX file. Where the batch stands in its inputs and outputs is tried; `inputs` says it where it is known
    (`model.inputs.h0.batch_axis=1`)."""

    path: str
    label: str | None = None
    inputs: dict[str, Any] = field(default_factory=dict)

    form: ClassVar[Form] = ONNX

    def __post_init__(self) -> None:
        super().__post_init__()
        if not Path(self.path).is_file():
            raise RequestError(f"model.path={self.path}: no such file")
        for name, given in self.inputs.items():
            axis = given.get("batch_axis") if isinstance(given, dict) and len(given) == 1 else None
            if type(axis) is not int or axis < 0:
                raise RequestError(f"model.inputs.{name}={given}: it takes batch_axis=, a whole number of 0 or more")

    @property
    def name(self) -> str:
        return self.label or Path(self.path).stem

    def key(self, dataset: Dataset) -> dict[str, Any] | None:
        return None

    def declares(self) -> tuple[FreeSpec, ...]:
        return declared(Path(self.path), self._batch_axes)

    @property
    def _batch_axes(self) -> dict[str, int]:
        return {name: given["batch_axis"] for name, given in self.inputs.items()}

    def write(self, dataset: Dataset, out: Path, progress: Progress) -> None:
        let_in(Path(self.path), out / self.form.file, evaluation(dataset), self._batch_axes)
