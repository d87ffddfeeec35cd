"""Post-training int8 of NNCF, for OpenVINO: calibrated scales, then biases corrected for what rounding shifted."""

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from numpy.typing import NDArray

from tuner.dataset import Dataset, Role
from tuner.errors import CandidateError
from tuner.fidelity import unlikeness
from tuner.forms.onnx import ONNX
from tuner.forms.openvino import OPENVINO
from tuner.model import Form, Model, fed
from tuner.plugin import Quantized, Transform, missing
from tuner.plugins.transforms.keep_float import kept_in_float
from tuner.system.fields import AtLeast, Below
from tuner.system.machine import saturates_int8
from tuner.target import Target
from tuner.tensors import Arrays

_MOST_SAMPLES = 300  # NNCF's own default
_JUDGED = 32  # samples by which an error is told
_FEW = 8  # of them, by which layers are ranked
_LAYERS = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul")
_PASSING = ("Reshape", "Transpose", "Squeeze", "Unsqueeze")  # through which a layer may get what is rounded
_BETWEEN = {"Add", "Convert", "Divide", "Multiply", "Reshape", "Select", "Transpose"}  # scores and their Softmax


@dataclass(frozen=True)
class NncfInt8(Transform):
    """Weights and activations in int8; what NNCF leaves in float runs in the backend's own precision.

    `preset` performance is symmetric throughout; mixed makes activations asymmetric, which helps where they are not
    centred (GELU, Swish) and costs a little speed. `fast_bias_correction` off is slower to apply and may be more
    accurate. `transformer` treats attention as such (SmoothQuant, and what must stay in float); null: where there is
    any. At most 300 samples are used.

    `max_error` climbs a ladder until the outputs are so near those of the float model (`tuner.fidelity.unlikeness`, on
    32 of the calibration samples): these fields as they are, then the preset mixed; from the better of them, layers
    that stay in float, those that do most harm alone first, as many as a bisection finds.
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
    bound: ClassVar[str | None] = "max_error"
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
        from openvino._offline_transformations import compress_quantize_weights_transformation

        graph = openvino.Core().read_model(model.path)
        inputs = list(islice(fed(samples, model, 1), _MOST_SAMPLES))
        attends = _attends(graph) if self.transformer is None else self.transformer
        settings: dict[str, Any] = {
            "target_device": nncf.TargetDevice.CPU,
            "subset_size": len(inputs),
            "fast_bias_correction": self.fast_bias_correction,
            "model_type": nncf.ModelType.TRANSFORMER if attends else None,
            "advanced_parameters": nncf.AdvancedQuantizationParameters(
                overflow_fix=nncf.OverflowFix.ENABLE if saturates_int8() else None,
                # weights stay as they are, to be rounded, for some may yet be spared
                backend_params={"compress_weights": False},
            ),
        }

        def quantized(preset: str) -> Any:
            kind = nncf.QuantizationPreset(preset)
            return nncf.quantize(graph.clone(), nncf.Dataset(inputs), preset=kind, **settings)

        if self.max_error is None:
            quantized_graph = quantized(self.preset)
        else:
            quantized_graph = _climbed(
                map(quantized, dict.fromkeys((self.preset, "mixed"))), graph, inputs, self.max_error
            )
        if not any(node.get_type_name() == "FakeQuantize" for node in quantized_graph.get_ops()):
            raise CandidateError("unsupported_op", "nncf found no operator to quantize in this model")
        compress_quantize_weights_transformation(quantized_graph)
        openvino.save_model(quantized_graph, out / OPENVINO.file, compress_to_fp16=False)


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


def _climbed(rungs: Iterable[Any], graph: Any, inputs: Sequence[Arrays], max_error: float) -> Any:
    """The first of the quantized graphs that is within that error of the float one; else the best, with what is no
    layer, and as many layers as it takes, in float again."""
    judged = inputs[:_JUDGED]
    right = _answers(graph, judged)

    def error(quantized: Any, first: int = _JUDGED) -> float:
        return unlikeness(_answers(quantized, judged[:first]), right[:first])

    errors = []
    for quantized in rungs:
        errors.append((error(quantized), quantized))
        if errors[-1][0] <= max_error:
            return quantized
    _, best = min(errors, key=lambda pair: pair[0])
    layers = [node.get_friendly_name() for node in graph.get_ops() if node.get_type_name() in _LAYERS]
    kept = kept_in_float(
        layers,
        lambda layer: error(_in_float(best, set(layers) - {layer}, others=True), _FEW),
        lambda some: error(_in_float(best, some, others=True)),  # else none in int8 might still be too far off
        max_error,
        "nncf int8",
    )
    return _in_float(best, kept, others=True)


def _in_float(quantized: Any, layers: Collection[str], *, others: bool = False) -> Any:
    """The graph with the inputs of those layers as they were before they were rounded; with `others`, also those of
    what is no layer."""
    graph = quantized.clone()
    for rounding in graph.get_ops():
        if rounding.get_type_name() == "FakeQuantize":
            for taker in rounding.output(0).get_target_inputs():
                node = taker.get_node()
                is_layer = node.get_type_name() in (*_LAYERS, *_PASSING)
                if node.get_friendly_name() in layers or (others and not is_layer):
                    taker.replace_source_output(rounding.input_value(0))
    return graph


def _answers(graph: Any, judged: Sequence[Arrays]) -> list[list[NDArray[Any]]]:
    """The outputs for each, in float where nothing is rounded."""
    import openvino

    compiled = openvino.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [[array.copy() for array in compiled(inputs).values()] for inputs in judged]


def _without_reports() -> None:
    """Switches NNCF's telemetry off: it reads this when it is imported."""
    os.environ.setdefault("NNCF_CI", "1")
