"""Post-training int8 of NNCF, for OpenVINO: calibrated scales, then biases corrected for what rounding shifted."""

import os
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import ClassVar, Literal

from tuner.dataset import Dataset, Role
from tuner.errors import CandidateError
from tuner.forms.onnx import ONNX
from tuner.forms.openvino import OPENVINO
from tuner.model import Form, Model, fed
from tuner.plugin import Quantized, Transform, missing
from tuner.target import Target

_MOST_SAMPLES = 300  # NNCF's own default


@dataclass(frozen=True)
class NncfInt8(Transform):
    """Weights and activations in int8; what NNCF leaves in float runs in the backend's own precision.

    `preset` performance is symmetric throughout; mixed makes activations asymmetric, which helps where they are not
    centred (GELU, Swish) and costs a little speed. `fast_bias_correction` off is slower to apply and may be more
    accurate. `transformer` treats attention as such (SmoothQuant, and what must stay in float). At most 300 samples
    are used. Side effect: NNCF's usage reports over the network are switched off in the process.
    """

    preset: Literal["performance", "mixed"] = "performance"
    fast_bias_correction: bool = True
    transformer: bool = False

    takes: ClassVar[Form] = ONNX
    gives: ClassVar[Form] = OPENVINO
    role: ClassVar[Role | None] = "calibration"
    weights: ClassVar[Quantized | None] = "int8"
    activations: ClassVar[Quantized | None] = "int8"
    libraries: ClassVar[tuple[str, ...]] = ("nncf", "openvino")
    devices: ClassVar[tuple[str, ...] | None] = ("cpu",)  # where OpenVINO runs

    @property
    def label(self) -> str:
        parts = ["int8-nncf"]
        parts += [self.preset] * (self.preset != "performance")
        parts += ["slowbias"] * (not self.fast_bias_correction)
        parts += ["transformer"] * self.transformer
        return "-".join(parts)

    def unavailable(self, target: Target) -> str | None:
        _without_reports()
        return missing("nncf", "inference-tuner[openvino]") or missing("openvino", "inference-tuner[openvino]")

    def apply(self, model: Model, dataset: Dataset, target: Target, out: Path) -> None:
        samples = dataset.load("calibration")
        if not samples:
            raise CandidateError("error", "nncf int8 needs calibration samples, and the dataset has none")
        _without_reports()
        import nncf
        import openvino

        inputs = list(islice(fed(samples, model, 1), _MOST_SAMPLES))
        quantized = nncf.quantize(
            openvino.Core().read_model(model.path),
            nncf.Dataset(inputs),
            preset=nncf.QuantizationPreset(self.preset),
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(inputs),
            fast_bias_correction=self.fast_bias_correction,
            model_type=nncf.ModelType.TRANSFORMER if self.transformer else None,
        )
        if not any(node.get_type_name() == "FakeQuantize" for node in quantized.get_ops()):
            raise CandidateError("unsupported_op", "nncf found no operator to quantize in this model")
        openvino.save_model(quantized, out / OPENVINO.file, compress_to_fp16=False)


def _without_reports() -> None:
    """Switches NNCF's telemetry off: it reads this when it is imported."""
    os.environ.setdefault("NNCF_CI", "1")
