"""A model, samples and a backend that cost next to nothing: what is left is the engine's own work."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tuner.dataset import ArraySamples, Dataset, Role
from tuner.forms.onnx import ONNX
from tuner.model import Form, Model, ModelSource
from tuner.plugin import Backend, Session
from tuner.system.worker import Progress
from tuner.target import Target
from tuner.tensors import Arrays, TensorSpec


@dataclass(frozen=True)
class NullDataset(Dataset):
    """Sixty-four samples of one number, which is also its class."""

    def load(self, role: Role) -> ArraySamples | None:
        labels = np.arange(64) % 2
        return ArraySamples({"x": labels.astype(np.float32)[:, None]}, labels) if role == "evaluation" else None


@dataclass(frozen=True)
class NullModel(ModelSource):
    """A file that no backend here reads."""

    form: ClassVar[Form] = ONNX

    @property
    def name(self) -> str:
        return "null"

    def key(self, dataset: Dataset) -> dict[str, Any] | None:
        return {"model": "null"}

    def write(self, dataset: Dataset, out: Path, progress: Progress) -> None:
        import onnx
        from onnx import TensorProto, helper

        x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 1]) for n in ("x", "y"))
        graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "null", [x], [y])
        onnx.save(helper.make_model(graph), str(out / ONNX.file))


@dataclass(frozen=True)
class NullBackend(Backend):
    """Answers at once; `point` tells candidates apart."""

    point: float = 0.0

    accepts: ClassVar[tuple[Form, ...]] = (ONNX,)

    def compile(self, model: Model, batch_size: int, target: Target, out: Path, cache: Path) -> None:
        (out / "point.json").write_text(json.dumps(self.point))

    def load(self, folder: Path, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target) -> Session:
        return _Session()


class _Session(Session):
    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        x = inputs["x"]
        return [np.hstack([1 - x, x])]
