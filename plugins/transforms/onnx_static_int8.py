"""Static int8 of ONNX Runtime: scales of activations are fixed beforehand, from calibration samples."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from tuner.dataset import Dataset, Role
from tuner.errors import CandidateError
from tuner.fidelity import Outputs, unlikeness
from tuner.forms.onnx import ONNX
from tuner.model import Form, Model, fed
from tuner.plugin import Quantized, Transform, later, missing
from tuner.plugins.transforms.keep_float import kept_in_float
from tuner.plugins.transforms.onnx_layer import alone
from tuner.system.fields import AtLeast, Below
from tuner.system.machine import saturates_int8
from tuner.target import Target
from tuner.tensors import Arrays

_BATCH_SIZE = 32
_MOST_BATCHES = 16
_JUDGED = 32  # samples by which an error is told
_FEW = 8  # of them, by which layers are ranked
_LAYERS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
_PARTS = np.linspace(1, 0.2, 41).astype(np.float32)  # of a range, that may be enough


@dataclass(frozen=True)
class OnnxStaticInt8(Transform):
    """Weights and activations in int8, as QuantizeLinear/DequantizeLinear pairs that a runtime fuses.

    `per_channel` scales each output channel of a weight by itself. `calibration` decides what range of activations is
    kept: all that occurs, what loses least information, 99.999 % of it, or what gives the least mean squared error. At
    most 512 samples are used. `layers_only`: what lies between convolutions and matrix products stays in float, which
    is where the gates of an attention or a mask of minus infinity lose most.
    The usual first choice for convolutional networks on a CPU with VNNI instructions; on an x86 without them weights
    have 7 bits, for sums would saturate.

    `max_error` climbs a ladder until the outputs are so near those of the float model (`tuner.fidelity.unlikeness`, on
    32 of the calibration samples): these fields as they are, then `layers_only`, then the other ranges; from the best
    of them, layers that stay in float. Those that do most harm alone are the first; how many it takes is found by
    bisection.
    """

    per_channel: bool = True
    calibration: Literal["minmax", "entropy", "percentile", "mse"] = "minmax"
    activation: Literal["uint8", "int8"] = "uint8"
    layers_only: bool = later(False)
    max_error: Annotated[float, AtLeast(1e-3), Below(1)] | None = None

    takes: ClassVar[Form] = ONNX
    gives: ClassVar[Form] = ONNX
    role: ClassVar[Role | None] = "calibration"
    weights: ClassVar[Quantized | None] = "int8"
    activations: ClassVar[Quantized | None] = "int8"
    bound: ClassVar[str | None] = "max_error"
    libraries: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnx")

    @property
    def label(self) -> str:
        parts = ["int8-layers" if self.layers_only else "int8-static"]
        parts += ["tensor"] * (not self.per_channel)
        parts += [self.calibration] * (self.calibration != "minmax")
        parts += ["s8"] * (self.activation == "int8")
        parts += [] if self.max_error is None else [f"e{self.max_error:.2g}"]
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
        from onnxruntime.quantization.shape_inference import quant_pre_process

        samples = dataset.load("calibration")
        if not samples:
            raise CandidateError("error", "static int8 needs calibration samples, and the dataset has none")
        size = min(_BATCH_SIZE, len(samples))
        batches = list(islice(fed(samples, model, size), _MOST_BATCHES))  # whole ones: histograms refuse a short one
        few = min(_FEW, len(samples))
        judged = list(islice(fed(samples, model, few), -(-_JUDGED // (model.batch_size or few))))
        with tempfile.TemporaryDirectory() as scratch:
            prepared = Path(scratch) / "prepared.onnx"
            # folds BatchNorm and constants; symbolic shapes add nothing here and fail on some models
            quant_pre_process(model.path, prepared, skip_symbolic_shape=True)
            _flatten_biases(prepared)
            work = _Quantizing(prepared, batches, target.cores)
            if self.max_error is None:
                work.quantize(self, out / model.path.name)
            else:
                best, left_in_float = _climbed(work, self, self.max_error, judged)
                work.quantize(best, out / model.path.name, left_in_float)
        graph = onnx.load(str(out / model.path.name)).graph
        if not any(node.op_type == "QuantizeLinear" for node in graph.node):
            raise CandidateError("unsupported_op", "static int8 found no operator to quantize in this model")


def _flatten_biases(file: Path) -> None:
    """Biases of a Gemm as rows of numbers, where they are matrices of one row: ONNX Runtime's tools know no others."""
    import onnx

    proto = onnx.load(str(file))
    biases = {node.input[2] for node in proto.graph.node if node.op_type == "Gemm" and len(node.input) > 2}
    for constant in proto.graph.initializer:
        if constant.name in biases and len(constant.dims) == 2 and constant.dims[0] == 1:
            constant.dims[:] = constant.dims[1:]
    onnx.save(proto, str(file))


def _climbed(
    work: "_Quantizing", plugin: OnnxStaticInt8, max_error: float, judged: Sequence[Arrays]
) -> tuple[OnnxStaticInt8, Sequence[str]]:
    """The first rung that is within that error on those batches; else the best, and the layers that it leaves in float.

    Raises CandidateError where the error is above it even with a single layer quantized."""
    right = work.answers(work.prepared, judged)

    def error(rung: OnnxStaticInt8, without: Sequence[str] = ()) -> float:
        trial = work.prepared.with_name("trial.onnx")
        work.quantize(rung, trial, without)
        return unlikeness(work.answers(trial, judged), right)

    errors: dict[OnnxStaticInt8, float] = {}
    for rung in _rungs(plugin):
        errors[rung] = error(rung)
        if errors[rung] <= max_error:
            return rung, []
    best = min(errors, key=lambda rung: errors[rung])
    harm = work.harm(best, judged[:1], right[:1])
    return best, kept_in_float(work.layers(), harm, lambda layers: error(best, layers), max_error, "static int8")


def _rungs(plugin: OnnxStaticInt8) -> Iterator[OnnxStaticInt8]:
    """The cheapest to find first: what was seen of the activations serves two of them."""
    layers = replace(plugin, layers_only=True)
    fewer = (replace(layers, calibration="percentile"), replace(layers, calibration="mse"))
    yield from dict.fromkeys((plugin, layers, *fewer))


class _Quantizing:
    """The quantization of one prepared graph, several times over: its activations are looked at once for each kind of
    range."""

    def __init__(self, prepared: Path, batches: Sequence[Arrays], threads: int) -> None:
        self.prepared = prepared
        self._batches = batches
        self._threads = threads
        self._seen: dict[Any, Any] = {}

    def layers(self) -> list[str]:
        import onnx

        graph = onnx.load(str(self.prepared), load_external_data=False).graph
        return [node.name for node in graph.node if node.op_type in _LAYERS]

    def harm(
        self, plugin: OnnxStaticInt8, judged: Sequence[Arrays], right: Sequence[Outputs]
    ) -> Callable[[str], float]:
        """The error on those batches with one layer quantized, of which the name is given."""
        import onnx

        trial = self.prepared.with_name("trial.onnx")
        self.quantize(plugin, trial)
        whole, plain = onnx.load(str(trial)), onnx.load(str(self.prepared))

        def error(layer: str) -> float:
            onnx.save(alone(layer, whole, plain), str(trial))
            return unlikeness(self.answers(trial, judged), right)

        return error

    def quantize(self, plugin: OnnxStaticInt8, out: Path, without: Sequence[str] = ()) -> None:
        """Writes the graph with all quantized that the plugin quantizes, but those nodes."""
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

        activations = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
        quantize_static(
            self.prepared,
            out,
            None,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_LAYERS) if plugin.layers_only else None,
            per_channel=plugin.per_channel,
            activation_type=activations[plugin.activation],
            weight_type=QuantType.QInt8,
            reduce_range=saturates_int8(),
            nodes_to_exclude=list(without),
            calibrate_method=CalibrationMethod.MinMax,  # what is kept are a least and a greatest, however they came
            calibration_cache_path=self._ranges(plugin.calibration),
        )

    def answers(self, graph: Path, judged: Sequence[Arrays]) -> list[list[NDArray[Any]]]:
        """The outputs for those batches."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return [session.run(None, batch) for batch in judged]

    def _ranges(self, kind: str) -> Path:
        """The file that says what range of every tensor is kept."""
        from onnxruntime.quantization import CalibrationMethod
        from onnxruntime.quantization.calibrate import TensorsData, save_tensors_data

        file = self.prepared.with_name(f"{kind}.json")
        if file.exists():
            return file
        methods = {"minmax": CalibrationMethod.MinMax, "entropy": CalibrationMethod.Entropy}
        calibrator = self._calibrator(methods.get(kind, CalibrationMethod.Percentile))
        if kind == "mse":
            ranges = {name: _least_squares(*kept[:4]) for name, kept in calibrator.collector.histogram_dict.items()}
        else:
            ranges = {name: data.range_value for name, data in calibrator.compute_data().items()}
        save_tensors_data(TensorsData(CalibrationMethod.MinMax, ranges), file)
        return file

    def _calibrator(self, method: Any) -> Any:
        """ONNX Runtime's, which has looked at the activations: once for each method."""
        from onnxruntime.quantization.calibrate import create_calibrator

        if method not in self._seen:
            augmented = self.prepared.with_name(f"{method.name}.onnx")
            calibrator = create_calibrator(
                self.prepared,
                augmented_model_path=str(augmented),
                calibrate_method=method,
                extra_options={"symmetric": False},
            )
            for batch in self._batches:  # one by one: all their activations do not fit into memory
                calibrator.collect_data(_reader([batch]))
            self._seen[method] = calibrator
        return self._seen[method]


def _least_squares(
    counts: NDArray[Any], edges: NDArray[Any], least: NDArray[Any], greatest: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The part of a tensor's range, both ends cut alike, whose 256 steps give the least squared error: a step's square
    over twelve for what is inside, the distance for what is cut off."""
    values = (edges[:-1] + edges[1:]) / 2

    def error(ends: tuple[NDArray[Any], NDArray[Any]]) -> float:
        low, high = ends
        outside = np.square(values - np.clip(values, low, high))
        return float((counts * (outside + ((high - low) / 255) ** 2 / 12)).sum())

    return min(((least * part, greatest * part) for part in _PARTS), key=error)


def _reader(batches: Sequence[Arrays]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, left: Iterator[Arrays]) -> None:
            self._left = left

        def get_next(self) -> Arrays | None:
            return next(self._left, None)

    return Reader(iter(batches))
