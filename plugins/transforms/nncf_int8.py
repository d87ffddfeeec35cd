"""Post-training int8 of NNCF, for OpenVINO: calibrated scales, then biases corrected for what rounding shifted."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from tuner.dataset import Dataset, Role
from tuner.errors import CandidateError
from tuner.fidelity import unlikeness
from tuner.forms.onnx import ONNX
from tuner.forms.openvino import OPENVINO
from tuner.model import Form, Model, fed
from tuner.plugin import Quantized, Transform, missing
from tuner.system.fields import AtLeast, Below
from tuner.target import Target
from tuner.tensors import Arrays

_MOST_SAMPLES = 300  # NNCF's own default
_JUDGED = 32  # samples by which an error is told
_BETWEEN = {"Add", "Convert", "Divide", "Multiply", "Reshape", "Select", "Transpose"}  # scores and their Softmax


@dataclass(frozen=True)
class NncfInt8(Transform):
    """Weights and activations in int8; what NNCF leaves in float runs in the backend's own precision.

    `preset` performance is symmetric throughout; mixed makes activations asymmetric, which helps where they are not
    centred (GELU, Swish) and costs a little speed. `fast_bias_correction` off is slower to apply and may be more
    accurate. `transformer` treats attention as such (SmoothQuant, and what must stay in float); null: where there is
    any. At most 300 samples are used.

    `max_error` leaves layers in float, those whose return to it helps most first, until the outputs are so near those
    of the float model (`tuner.fidelity.unlikeness`, on 32 of the calibration samples).
    Side effect: NNCF's usage reports over the network are switched off in the process.
    """

    preset: Literal["performance", "mixed"] = "performance"
    fast_bias_correction: bool = True
    transformer: bool | None = None
    max_error: Annotated[float, AtLeast(1e-3), Below(1)] | None = None

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
        parts += [] if self.transformer is None else ["attn" if self.transformer else "plain"]
        parts += [] if self.max_error is None else [f"e{self.max_error:.2g}"]
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

        graph = openvino.Core().read_model(model.path)
        inputs = list(islice(fed(samples, model, 1), _MOST_SAMPLES))
        attends = _attends(graph) if self.transformer is None else self.transformer
        settings: dict[str, Any] = {
            "preset": nncf.QuantizationPreset(self.preset),
            "target_device": nncf.TargetDevice.CPU,
            "subset_size": len(inputs),
            "fast_bias_correction": self.fast_bias_correction,
            "model_type": nncf.ModelType.TRANSFORMER if attends else None,
        }
        if self.max_error is None:
            quantized = nncf.quantize(graph, nncf.Dataset(inputs), **settings)
        else:
            judged = nncf.Dataset(_with_answers(graph, inputs[:_JUDGED]), lambda pair: pair[0])
            quantized = nncf.quantize_with_accuracy_control(
                graph, nncf.Dataset(inputs), judged, _likeness, max_drop=self.max_error, **settings
            )
        if not any(node.get_type_name() == "FakeQuantize" for node in quantized.get_ops()):
            raise CandidateError("unsupported_op", "nncf found no operator to quantize in this model")
        openvino.save_model(quantized, out / OPENVINO.file, compress_to_fp16=False)


def _attends(graph: Any) -> bool:
    """Whether a softmax is taken of the product of two tensors, as attention does."""
    for node in graph.get_ops():
        if node.get_type_name() == "Softmax":
            node = node.input_value(0).get_node()
            while node.get_type_name() in _BETWEEN:
                node = node.input_value(0).get_node()
            if node.get_type_name() == "MatMul" and not _is_constant(node.input_value(1).get_node()):
                return True
    return False


def _is_constant(node: Any) -> bool:
    while node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Constant")


def _with_answers(graph: Any, inputs: Sequence[Arrays]) -> list[tuple[Arrays, Any]]:
    """The inputs, each with the outputs that it gets."""
    import openvino

    compiled = openvino.compile_model(graph, "CPU")
    return [(each, list(compiled(each).values())) for each in inputs]


def _likeness(compiled: Any, judged: Iterable[tuple[Arrays, Any]]) -> tuple[float, None]:
    """What NNCF is to keep."""
    answers, true = zip(*((list(compiled(inputs).values()), answers) for inputs, answers in judged), strict=True)
    return 1 - unlikeness(answers, true), None


def _without_reports() -> None:
    """Switches NNCF's telemetry off: it reads this when it is imported."""
    os.environ.setdefault("NNCF_CI", "1")
