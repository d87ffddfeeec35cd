"""Static int8 of ONNX Runtime: scales of activations are fixed beforehand, from calibration samples."""

import tempfile
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from numpy.typing import NDArray

from tuner.dataset import Dataset, Role
from tuner.errors import CandidateError
from tuner.fidelity import unlikeness
from tuner.forms.onnx import ONNX
from tuner.model import Form, Model, fed
from tuner.plugin import Quantized, Transform, missing
from tuner.system.fields import AtLeast, Below
from tuner.target import Target
from tuner.tensors import Arrays

_BATCH_SIZE = 32
_MOST_BATCHES = 16  # histograms hold every activation of these in memory
_JUDGED = 32  # samples by which an error is told
_LAYERS = ("Conv", "ConvTranspose", "MatMul", "Gemm")


@dataclass(frozen=True)
class OnnxStaticInt8(Transform):
    """Weights and activations in int8, as QuantizeLinear/DequantizeLinear pairs that a runtime fuses.

    `per_channel` scales each output channel of a weight by itself. `calibration` decides what range of activations is
    kept: all that occurs, or what loses least information, or 99.999 % of it. At most 512 samples are used.
    The usual first choice for convolutional networks on a CPU with VNNI instructions.

    `max_error` leaves layers in float until the outputs are so near those of the float model
    (`tuner.fidelity.unlikeness`, on 32 of the calibration samples). The layers that do most harm alone are the first;
    how many it takes is found by bisection.
    """

    per_channel: bool = True
    calibration: Literal["minmax", "entropy", "percentile"] = "minmax"
    activation: Literal["uint8", "int8"] = "uint8"
    max_error: Annotated[float, AtLeast(1e-3), Below(1)] | None = None

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
        judged = batches[: -(-_JUDGED // (model.batch_size or size))]
        with tempfile.TemporaryDirectory() as scratch:
            prepared = Path(scratch) / "prepared.onnx"
            # folds BatchNorm and constants; symbolic shapes add nothing here and fail on some models
            quant_pre_process(model.path, prepared, skip_symbolic_shape=True)
            work = _Quantizing(self, prepared, batches, target.cores)
            left_in_float = () if self.max_error is None else work.harmful(self.max_error, judged)
            work.quantize(out / model.path.name, without=left_in_float)
        graph = onnx.load(str(out / model.path.name)).graph
        if not any(node.op_type == "QuantizeLinear" for node in graph.node):
            raise CandidateError("unsupported_op", "static int8 found no operator to quantize in this model")


class _Quantizing:
    """The quantization of one prepared graph, several times over: its activations are looked at once."""

    def __init__(self, plugin: OnnxStaticInt8, prepared: Path, batches: Sequence[Arrays], threads: int) -> None:
        self._plugin = plugin
        self._prepared = prepared
        self._batches = batches
        self._threads = threads

    def quantize(self, out: Path, *, only: Sequence[str] = (), without: Sequence[str] = ()) -> None:
        """Writes the graph with those nodes quantized, or all that can be but those."""
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

        methods = {
            "minmax": CalibrationMethod.MinMax,
            "entropy": CalibrationMethod.Entropy,
            "percentile": CalibrationMethod.Percentile,
        }
        activations = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
        quantize_static(
            self._prepared,
            out,
            _reader(self._batches),
            quant_format=QuantFormat.QDQ,
            per_channel=self._plugin.per_channel,
            activation_type=activations[self._plugin.activation],
            weight_type=QuantType.QInt8,
            nodes_to_quantize=list(only),
            nodes_to_exclude=list(without),
            calibrate_method=methods[self._plugin.calibration],
            calibration_cache_path=self._prepared.with_name("ranges.json"),
        )

    def harmful(self, max_error: float, judged: Sequence[Arrays]) -> list[str]:
        """The fewest layers, those that do most harm alone first, without which the error on those batches is within
        that. Raises CandidateError where it is not even with a single layer quantized."""
        import onnx

        graph = onnx.load(str(self._prepared), load_external_data=False).graph
        layers = [node.name for node in graph.node if node.op_type in _LAYERS]
        right = self._answers(self._prepared, judged)
        trial = self._prepared.with_name("trial.onnx")

        def error(only: Sequence[str] = (), without: Sequence[str] = ()) -> float:
            self.quantize(trial, only=only, without=without)
            return unlikeness(self._answers(trial, judged), right)

        if error() <= max_error:
            return []
        layers.sort(key=lambda layer: -error(only=[layer]))
        count = bisect_left(
            range(len(layers)), True, lo=1, key=lambda count: error(without=layers[:count]) <= max_error
        )
        if count == len(layers):
            raise CandidateError("numerics", f"static int8 of one layer alone has an error above {max_error:g} already")
        return layers[:count]

    def _answers(self, graph: Path, judged: Sequence[Arrays]) -> list[list[NDArray[Any]]]:
        """The outputs for those batches."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return [session.run(None, batch) for batch in judged]


def _reader(batches: Sequence[Arrays]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, left: Iterator[Arrays]) -> None:
            self._left = left

        def get_next(self) -> Arrays | None:
            return next(self._left, None)

    return Reader(iter(batches))
