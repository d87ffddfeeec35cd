"""Static int8 of ONNX Runtime: scales of activations are fixed beforehand, from calibration samples."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import ClassVar, Literal

from tuner.dataset import Dataset, Role
from tuner.errors import CandidateError
from tuner.forms.onnx import ONNX
from tuner.model import Form, Model, fed
from tuner.plugin import Quantized, Transform, missing
from tuner.target import Target
from tuner.tensors import Arrays

_BATCH_SIZE = 32
_MOST_BATCHES = 16  # histograms hold every activation of these in memory


@dataclass(frozen=True)
class OnnxStaticInt8(Transform):
    """Weights and activations in int8, as QuantizeLinear/DequantizeLinear pairs that a runtime fuses.

    `per_channel` scales each output channel of a weight by itself. `calibration` decides what range of activations is
    kept: all that occurs, or what loses least information, or 99.999 % of it. At most 512 samples are used.
    The usual first choice for convolutional networks on a CPU with VNNI instructions.
    """

    per_channel: bool = True
    calibration: Literal["minmax", "entropy", "percentile"] = "minmax"
    activation: Literal["uint8", "int8"] = "uint8"

    takes: ClassVar[Form] = ONNX
    gives: ClassVar[Form] = ONNX
    role: ClassVar[Role | None] = "calibration"
    weights: ClassVar[Quantized | None] = "int8"
    activations: ClassVar[Quantized | None] = "int8"
    libraries: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnx")

    @property
    def label(self) -> str:
        parts = ["int8-static"]
        parts += ["tensor"] * (not self.per_channel)
        parts += [self.calibration] * (self.calibration != "minmax")
        parts += ["s8"] * (self.activation == "int8")
        return "-".join(parts)

    def unavailable(self, target: Target) -> str | None:
        if reason := missing("onnxruntime.quantization", "onnxruntime"):
            return reason
        if not target.hardware.host and "TensorrtExecutionProvider" not in target.onnxruntime_providers:
            return (
                "onnxruntime has int8 kernels for CPUs and TensorRT only; put TensorrtExecutionProvider in the target"
            )
        return None

    def apply(self, model: Model, dataset: Dataset, target: Target, out: Path) -> None:
        import onnx
        from onnxruntime.quantization import (
            CalibrationDataReader,
            CalibrationMethod,
            QuantFormat,
            QuantType,
            quantize_static,
        )
        from onnxruntime.quantization.shape_inference import quant_pre_process

        samples = dataset.load("calibration")
        if not samples:
            raise CandidateError("error", "static int8 needs calibration samples, and the dataset has none")

        class Reader(CalibrationDataReader):  # type: ignore[misc]
            def __init__(self, left: Iterator[Arrays]) -> None:
                self._left = left

            def get_next(self) -> Arrays | None:
                return next(self._left, None)

        methods = {
            "minmax": CalibrationMethod.MinMax,
            "entropy": CalibrationMethod.Entropy,
            "percentile": CalibrationMethod.Percentile,
        }
        activations = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
        size = min(_BATCH_SIZE, len(samples))
        inputs = islice(fed(samples, model, size), _MOST_BATCHES)  # whole ones: histograms refuse a short one
        with tempfile.TemporaryDirectory() as scratch:
            prepared = Path(scratch) / "prepared.onnx"
            # folds BatchNorm and constants; symbolic shapes add nothing here and fail on some models
            quant_pre_process(model.path, prepared, skip_symbolic_shape=True)
            quantize_static(
                prepared,
                out / model.path.name,
                Reader(inputs),
                quant_format=QuantFormat.QDQ,
                per_channel=self.per_channel,
                activation_type=activations[self.activation],
                weight_type=QuantType.QInt8,
                calibrate_method=methods[self.calibration],
            )
        graph = onnx.load(str(out / model.path.name)).graph
        if not any(node.op_type == "QuantizeLinear" for node in graph.node):
            raise CandidateError("unsupported_op", "static int8 found no operator to quantize in this model")
