"""An ONNX file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tuner.errors import RequestError
from tuner.forms.onnx import ONNX, copy_checked
from tuner.system.worker import Progress
from tuner.workload import Dataset, Form, ModelSource


@dataclass(frozen=True)
class OnnxModel(ModelSource):
    """An ONNX file. Its first axis of every input and output is the batch."""

    path: str
    label: str | None = None

    form: ClassVar[Form] = ONNX

    def __post_init__(self) -> None:
        super().__post_init__()
        if not Path(self.path).is_file():
            raise RequestError(f"model.path={self.path}: no such file")

    @property
    def name(self) -> str:
        return self.label or Path(self.path).stem

    def key(self, dataset: Dataset) -> dict[str, Any] | None:
        return None

    def write(self, dataset: Dataset, out: Path, progress: Progress) -> None:
        copy_checked(Path(self.path), out / self.form.file)
