"""A model, samples and plugins that need no library but NumPy, and whose calls take no time.

A study of them is over in seconds and says nothing of the machine.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tuner.dataset import ArraySamples, Dataset, Role
from tuner.forms.onnx import ONNX
from tuner.model import Form, Model, ModelSource
from tuner.plugin import Backend, Session, Transform
from tuner.system.worker import Progress
from tuner.tables import Table
from tuner.target import Target
from tuner.tensors import Arrays, TensorSpec

CLASSES, FEATURES = 3, 4
CENTRES = 4.0 * np.eye(CLASSES, FEATURES, dtype=np.float32)
INPUTS = (TensorSpec("x", (FEATURES,), "float32"),)
WEIGHTS = "weights.npy"


@dataclass(frozen=True)
class Points(Dataset):
    """Points around three centres, far enough apart that `Linear` finds them all."""

    training: int = 0

    def load(self, role: Role) -> ArraySamples | None:
        count = {"evaluation": 120, "calibration": 16, "training": self.training}[role]
        if not count:
            return None
        random = np.random.default_rng([len(role), count])
        labels = np.arange(count) % CLASSES
        points = CENTRES[labels] + random.uniform(-1, 1, (count, FEATURES))
        return ArraySamples({"x": points.astype(np.float32)}, labels)


@dataclass(frozen=True)
class Linear(ModelSource):
    """One matrix product, as a real ONNX graph and, for the fakes, as an array beside it."""

    form: ClassVar[Form] = ONNX

    @property
    def name(self) -> str:
        return "linear"

    def write(self, dataset: Dataset, out: Path, progress: Progress) -> None:
        write_linear(out, CENTRES.T)


def write_linear(out: Path, weights: NDArray[Any], *, input_name: str = "x") -> None:
    """`weights` as `model.onnx`, its batch axis free, and as `weights.npy`."""
    from onnx import TensorProto, helper, numpy_helper, save

    graph = helper.make_graph(
        [helper.make_node("MatMul", [input_name, "w"], ["scores"])],
        "linear",
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, ["batch", len(weights)])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", weights.shape[1]])],
        [numpy_helper.from_array(np.ascontiguousarray(weights, dtype=np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    save(model, str(out / ONNX.file))
    np.save(out / WEIGHTS, weights)


@dataclass(frozen=True)
class Null(Backend):
    """Answers rightly; a call takes `ms`, whatever the batch."""

    ms: float = 2.0

    accepts: ClassVar[tuple[Form, ...]] = (ONNX,)
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)

    @property
    def label(self) -> str:
        return f"null-{self.ms:g}"

    def compile(self, model: Model, batch_size: int, target: Target, out: Path, cache: Path) -> None:
        shutil.copyfile(model.directory / WEIGHTS, out / WEIGHTS)

    def load(self, folder: Path, inputs: tuple[TensorSpec, ...], batch_size: int, target: Target) -> Session:
        return Product(np.load(folder / WEIGHTS), self.ms)


class Product(Session):
    """Takes no time: its clock moves by `ms` with each call, and up to a thousandth more: no two calls are alike."""

    def __init__(self, weights: NDArray[Any], ms: float) -> None:
        self._weights = weights
        self._seconds = ms / 1e3
        self._now = 0.0
        self._random = np.random.default_rng()

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        self._now += self._seconds * (1 + 1e-3 * self._random.random())
        return [inputs["x"] @ self._weights]

    def now(self) -> float:
        return self._now


@dataclass(frozen=True)
class Rounding(Transform):
    """Compression that costs no accuracy."""

    decimals: int = 1

    takes: ClassVar[Form] = ONNX
    gives: ClassVar[Form] = ONNX
    libraries: ClassVar[tuple[str, ...]] = ("numpy", "onnx")

    def apply(self, model: Model, dataset: Dataset, target: Target, out: Path) -> None:
        write_linear(out, np.round(np.load(model.directory / WEIGHTS), self.decimals))


@dataclass(frozen=True)
class Recovery(Rounding):
    """Compression that wants samples to train on."""

    role: ClassVar[Role | None] = "training"


@dataclass(frozen=True)
class Scrambling(Rounding):
    """Compression that costs all accuracy: every class is taken for the next."""

    def apply(self, model: Model, dataset: Dataset, target: Target, out: Path) -> None:
        write_linear(out, np.roll(np.load(model.directory / WEIGHTS), 1, axis=1))


@dataclass(frozen=True)
class Itemised(Rounding):
    """Compression that tells what it rounded, in a table for people."""

    def apply(self, model: Model, dataset: Dataset, target: Target, out: Path) -> None:
        super().apply(model, dataset, target, out)
        before, after = np.load(model.directory / WEIGHTS), np.load(out / WEIGHTS)
        rows = tuple((f"x{i}", float(abs(before[i] - after[i]).max()), None) for i in range(len(before)))
        Table("What was rounded", ("input", "most", "least"), rows).write(out, "rounded")


@dataclass(frozen=True)
class Telling(Null):
    """A backend that tells what it compiled, in a table for people."""

    @property
    def label(self) -> str:
        return f"telling-{self.ms:g}"

    def compile(self, model: Model, batch_size: int, target: Target, out: Path, cache: Path) -> None:
        super().compile(model, batch_size, target, out, cache)
        rows = (("MatMul", batch_size, self.ms),) * 20
        Table("What was compiled", ("operator", "samples", "ms"), rows).write(out, "compiled")
