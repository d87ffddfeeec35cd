"""Weights rounded to a few bits, as a quantizer for weights alone would leave them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np

from tuner.dataset import Dataset
from tuner.errors import CandidateError
from tuner.forms.onnx import ONNX
from tuner.model import Form, Model
from tuner.plugin import Transform, missing
from tuner.system.fields import AtLeast, AtMost
from tuner.target import Target


@dataclass(frozen=True)
class RoundedWeights(Transform):
    """Each matrix or kernel of weights keeps `bits` bits, scaled by its largest. They are stored as float32 still: it
    says what accuracy they would cost, and makes nothing faster.
    """

    bits: Annotated[int, AtLeast(2), AtMost(16)] = 8

    takes: ClassVar[Form] = ONNX
    gives: ClassVar[Form] = ONNX
    libraries: ClassVar[tuple[str, ...]] = ("onnx", "numpy")
    hardest: ClassVar[Mapping[str, Literal["low", "high"]]] = {"bits": "low"}

    @property
    def label(self) -> str:
        return f"rounded{self.bits}"

    def unavailable(self, target: Target) -> str | None:
        return missing("onnx")

    def apply(self, model: Model, dataset: Dataset, target: Target, out: Path) -> None:
        import onnx
        from onnx import numpy_helper

        graph = onnx.load(str(model.path))
        weights = [w for w in graph.graph.initializer if len(w.dims) > 1 and w.data_type == onnx.TensorProto.FLOAT]
        if not weights:
            raise CandidateError("unsupported_op", "this model has no matrix of float32 weights to round")
        levels = 2 ** (self.bits - 1) - 1
        for weight in weights:
            array = numpy_helper.to_array(weight)
            step = np.abs(array).max() / levels
            rounded = array if step == 0 else np.round(array / step) * step
            weight.CopyFrom(numpy_helper.from_array(rounded.astype(np.float32), weight.name))
        onnx.save(graph, str(out / ONNX.file))
