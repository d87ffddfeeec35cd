"""Dynamic int8 of ONNX Runtime: scales of activations are computed at every call, so no calibration is needed."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tuner.dataset import Dataset
from tuner.errors import CandidateError
from tuner.forms.onnx import ONNX
from tuner.model import Form, Model
from tuner.plugin import Quantized, Transform, missing
from tuner.system.machine import saturates_int8
from tuner.target import Target


@dataclass(frozen=True)
class OnnxDynamicInt8(Transform):
    """Matrix products (MatMul and Gemm) in int8; convolutions stay in float, as they run slower this way.

    For transformers and wide fully connected layers. `per_channel` scales each output column by itself. On an x86
    without VNNI weights have 7 bits, for sums would saturate.
    """

    per_channel: bool = True

    takes: ClassVar[Form] = ONNX
    gives: ClassVar[Form] = ONNX
    weights: ClassVar[Quantized | None] = "int8"
    activations: ClassVar[Quantized | None] = "int8"
    libraries: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnx")
    devices: ClassVar[tuple[str, ...] | None] = ("cpu",)  # where onnxruntime has kernels for it

    @property
    def label(self) -> str:
        return "int8-dynamic" if self.per_channel else "int8-dynamic-tensor"

    def unavailable(self, target: Target) -> str | None:
        return missing("onnxruntime.quantization", "onnxruntime")

    def apply(self, model: Model, dataset: Dataset, target: Target, out: Path) -> None:
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic
        from onnxruntime.quantization.shape_inference import quant_pre_process

        with tempfile.TemporaryDirectory() as scratch:
            prepared = Path(scratch) / "prepared.onnx"
            # folds constants, so that weights are found; symbolic shapes add nothing here and fail on some models
            quant_pre_process(model.path, prepared, skip_symbolic_shape=True)
            quantize_dynamic(
                prepared,
                out / model.path.name,
                op_types_to_quantize=["MatMul", "Gemm"],
                per_channel=self.per_channel,
                weight_type=QuantType.QInt8,
                reduce_range=saturates_int8(),
            )
        graph = onnx.load(str(out / model.path.name)).graph
        if not any(node.op_type == "MatMulInteger" for node in graph.node):
            raise CandidateError(
                "unsupported_op", "dynamic int8 found no matrix product with constant weights in this model"
            )
