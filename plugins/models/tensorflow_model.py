"""What TensorFlow reads, as a graph of tf2onnx.

TensorFlow fits nobody else's libraries: what imports it here is run in a Python environment of its own.
"""

import os
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tuner.dataset import Dataset, Samples, evaluation
from tuner.errors import RequestError
from tuner.forms import batch_axis
from tuner.forms.onnx import ONNX, save
from tuner.forms.onnx_entry import let_in
from tuner.forms.onnx_read import running, unknown_operators
from tuner.model import Form, ModelSource
from tuner.system.said import first_line
from tuner.system.worker import Progress
from tuner.tensors import Arrays, FreeSpec

OPSET = 17
_COMPARED = 64  # samples on which the graph is compared with the original
_ROUNDING, _ROUNDING_INT8 = 1e-3, 0.05  # of an output's spread: how far the answers may lie apart


@dataclass(frozen=True)
class Original:
    """A model that TensorFlow has loaded: the shape of each input, the batch first and None where free, with its dtype.

    `answer` gives its outputs, called `outputs`, in order. `convert` makes its graph, in which values are called as
    `names` maps them to the model's own.
    """

    inputs: Mapping[str, tuple[tuple[int | None, ...], str]]
    outputs: Sequence[str]
    answer: Callable[[Arrays], list[NDArray[Any]]]
    convert: Callable[[], Any]
    names: Mapping[str, str] = field(default_factory=dict)
    quantized: bool = False


@dataclass(frozen=True)
class TensorFlowModel(ModelSource):
    """A file that TensorFlow reads. It is converted once, and compared with the original on evaluation samples."""

    path: str
    label: str | None = None

    form: ClassVar[Form] = ONNX
    requirements: ClassVar[tuple[str, ...]] = (
        "tensorflow-cpu==2.21.0",
        "keras==3.15.1",
        "tf2onnx==1.17.0",
        "onnx>=1.20,<2",
        "numpy>=2.2,<3",
    )

    @property
    def name(self) -> str:
        return self.label or Path(self.path).resolve().stem

    @abstractmethod
    def original(self) -> Original:
        """The model, loaded, where TensorFlow is installed. Raises RequestError."""

    def declares(self) -> tuple[FreeSpec, ...]:
        return tuple(
            FreeSpec(name, tuple(size or f"{name}_{axis}" for axis, size in enumerate(shape) if axis), dtype)
            for name, (shape, dtype) in self.original().inputs.items()
        )

    def write(self, dataset: Dataset, out: Path, progress: Progress) -> None:
        import tf2onnx

        # it goes through sets of nodes, which come in another order each time; the same file is to give the same graph
        tf2onnx.graph.Node.__hash__ = lambda node: hash(node.name)
        original, samples = self.original(), evaluation(dataset)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / self.form.file
            save(self._converted(original), file, f"model.path={self.path}")
            let_in(file, out / self.form.file, samples, self._batch_axes(original, samples), path=self.path)
            self._compare(original, file, samples)

    def _converted(self, original: Original) -> Any:
        said = ""
        try:
            proto = original.convert()
        except Exception as error:  # a converter raises whatever it likes
            said = first_line(error)
        else:
            if unknown := unknown_operators(proto):
                said = f"it does not know {', '.join(unknown)}"
        if said:
            raise RequestError(
                f"model.path={self.path}: tf2onnx cannot convert it ({said}); leave that out of the model, or convert "
                "it yourself and use model=onnx"
            )
        _rename(proto.graph, original.names)
        values = {value.name: value for value in proto.graph.output}
        ordered = [values[name] for name in original.outputs]
        del proto.graph.output[:]
        proto.graph.output.extend(ordered)
        return proto

    def _batch_axes(self, original: Original, samples: Samples) -> dict[str, int]:
        """The first of each input. Raises RequestError where a sample has other axes than the model takes."""
        inputs, _ = samples[0]
        for name, (shape, _) in original.inputs.items():
            axes = np.shape(inputs[name]) if name in inputs else shape[1:]
            if len(axes) != len(shape) - 1 or any(
                size not in (None, axis) for size, axis in zip(shape[1:], axes, strict=True)
            ):
                raise RequestError(
                    f"dataset: {name!r} has shape {axes} a sample, and model.path={self.path} takes {shape[1:]}; "
                    "store it so, images with their channels last"
                )
        return dict.fromkeys(original.inputs, 0)

    def _compare(self, original: Original, file: Path, samples: Samples) -> None:
        """Raises RequestError where the graph answers otherwise than the original."""
        answer = running(file)
        right, given = [], []
        for inputs in _fed(original, samples):
            right.append(original.answer(inputs))
            given.append(answer(inputs))  # its outputs were put in the original's order
        tolerance = _ROUNDING_INT8 if original.quantized else _ROUNDING
        try:
            batch_axis.same(_joined(right), _joined(given), tolerance)
        except batch_axis.NotFree as error:
            raise RequestError(
                f"model.path={self.path}: its graph by tf2onnx answers otherwise than TensorFlow does; convert it "
                "yourself and use model=onnx"
            ) from error


def imported_tensorflow() -> Any:
    """On the CPU, and Keras upon it."""
    os.environ |= {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2", "KERAS_BACKEND": "tensorflow"}
    import tensorflow

    return tensorflow


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    """Calls values of a graph, and of those within it, otherwise."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(name, name) for name in values]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename(attribute.g, names)


def _fed(original: Original, samples: Samples) -> Iterator[Arrays]:
    """Samples spread over all of them, in batches as the model takes them."""
    size = next((shape[0] for shape, _ in original.inputs.values() if shape and shape[0]), None)
    count = min(_COMPARED, len(samples))
    rows = batch_axis.rows(samples, count if size is None else -(-count // size) * size)
    for start in range(0, len(rows), size or count):
        part = rows[start : start + (size or count)]
        yield {name: np.stack([row[name] for row in part]) for name in original.inputs}


def _joined(answers: Sequence[Sequence[NDArray[Any]]]) -> list[NDArray[Any]]:
    """Each output of all calls, as one row of numbers."""
    return [np.concatenate([np.ravel(each) for each in output]) for output in zip(*answers, strict=True)]
