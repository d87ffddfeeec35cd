"""An ONNX file."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from tuner.dataset import Dataset, evaluation
from tuner.errors import RequestError
from tuner.forms import lengths
from tuner.forms.onnx import ONNX, declared
from tuner.forms.onnx_entry import let_in
from tuner.forms.onnx_read import require_usable
from tuner.model import Form, ModelSource
from tuner.system.files import require_file
from tuner.system.worker import Progress
from tuner.tensors import FreeSpec


@dataclass(frozen=True)
class OnnxModel(ModelSource):
    """An ONNX file. Where the batch stands in its inputs and outputs is tried; `inputs` says it where it is known
    (`model.inputs.h0.batch_axis=1`). `axes` has the sizes of those of variable length, and as a mapping how often each
    occurs (`model.axes.sequence={32:7,128:2,512:1}`)."""

    path: str
    label: str | None = None
    inputs: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, Any] = field(default_factory=dict)

    form: ClassVar[Form] = ONNX
    files: ClassVar[Mapping[str, str]] = {".onnx": "onnx"}

    def __post_init__(self) -> None:
        super().__post_init__()
        require_file(self.path, "model.path")
        for name, given in self.inputs.items():
            axis = given.get("batch_axis") if isinstance(given, dict) and len(given) == 1 else None
            if type(axis) is not int or axis < 0:
                raise RequestError(f"model.inputs.{name}={given}: it takes batch_axis=, a whole number of 0 or more")
        lengths.declared(self.axes)

    @property
    def name(self) -> str:
        return self.label or Path(self.path).stem

    def declares(self) -> tuple[FreeSpec, ...]:
        require_usable(Path(self.path), f"model.path={self.path}")
        largest = {name: max(sizes) for name, sizes in lengths.declared(self.axes).items()}
        return tuple(
            replace(spec, axes=tuple(largest.get(str(axis), axis) for axis in spec.axes))
            for spec in declared(Path(self.path), self._batch_axes)
        )

    @property
    def _batch_axes(self) -> dict[str, int]:
        return {name: given["batch_axis"] for name, given in self.inputs.items()}

    def write(self, dataset: Dataset, out: Path, progress: Progress) -> None:
        axes = lengths.declared(self.axes)
        let_in(Path(self.path), out / self.form.file, evaluation(dataset), self._batch_axes, axes)
