"""The static quantization of one ONNX graph by ONNX Runtime's tools, several times over."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from tuner.fidelity import Outputs, unlikeness
from tuner.forms.onnx_constants import put
from tuner.plugins.transforms.layer_patches import Range, Seen
from tuner.plugins.transforms.learned_rounding import learned
from tuner.plugins.transforms.onnx_layer import alone
from tuner.plugins.transforms.onnx_ranges import Ranges
from tuner.system.machine import saturates_int8
from tuner.tensors import Arrays

if TYPE_CHECKING:
    from tuner.plugins.transforms.onnx_static_int8 import OnnxStaticInt8

_LAYERS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
_ABSORBED = ("Clip", "Relu")  # by the layer before, whose range is cut off where they cut it
_PRODUCTS = ("MatMul", "Gemm")  # whose sums a runtime may give in float


def prepare(model: Path, out: Path) -> None:
    """Writes the graph with BatchNorm and constants folded, and a name for each node, as ONNX Runtime's tools want
    it."""
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    # symbolic shapes add nothing here and fail on some models
    quant_pre_process(model, out, skip_symbolic_shape=True)
    proto = onnx.load(str(out))
    # biases of a Gemm as rows of numbers, where they are matrices of one row: the tools know no others
    biases = {node.input[2] for node in proto.graph.node if node.op_type == "Gemm" and len(node.input) > 2}
    for constant in proto.graph.initializer:
        if constant.name in biases and len(constant.dims) == 2 and constant.dims[0] == 1:
            constant.dims[:] = constant.dims[1:]
    named: set[str] = set()
    for number, node in enumerate(proto.graph.node):
        if not node.name or node.name in named:
            node.name = f"{node.op_type}_{number}_of_{len(proto.graph.node)}"
        named.add(node.name)
    onnx.save(proto, str(out))


@dataclass(frozen=True)
class Quantizing:
    """The quantization of the graph `prepared`, by `ranges`, and `more` of tensors that were rewritten in it.

    `every` gives all calibration samples one by one, for many activations of more do not fit into memory; `samples` are
    those that it learns from. `better` are numbers of the quantized graph's initializers that are others than the tools
    make them.
    """

    prepared: Path
    ranges: Ranges
    every: Callable[[], Iterable[Arrays]]
    samples: Sequence[Arrays]
    threads: int
    more: Mapping[str, Range] = field(default_factory=dict)
    better: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def layers(self) -> list[str]:
        import onnx

        graph = onnx.load(str(self.prepared), load_external_data=False).graph
        return [node.name for node in graph.node if node.op_type in _LAYERS]

    def harm(
        self, plugin: "OnnxStaticInt8", judged: Sequence[Arrays], right: Sequence[Outputs]
    ) -> Callable[[str], float]:
        """The error on those batches with one layer quantized, of which the name is given."""
        import onnx

        plain, whole = self._both(plugin)
        trial = self.trial

        def error(layer: str) -> float:
            onnx.save(alone(layer, whole, plain), str(trial))
            return unlikeness(self.answers(trial, judged), right)

        return error

    def quantize(self, plugin: "OnnxStaticInt8", out: Path, without: Sequence[str] = ()) -> bool:
        """Writes the graph with all quantized that the plugin quantizes, but those nodes; whether that is anything."""
        import onnx
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

        operators = [*_LAYERS, *_ABSORBED] if plugin.layers_only else None
        activations = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
        quantize_static(
            self.prepared,
            out,
            None,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=operators,
            per_channel=plugin.per_channel,
            activation_type=activations[plugin.activation],
            weight_type=QuantType.QInt8,
            reduce_range=saturates_int8(),
            nodes_to_exclude=list(without),
            calibrate_method=CalibrationMethod.MinMax,  # what is kept are a least and a greatest, however they came
            calibration_cache_path=self.ranges.file(plugin.calibration, operators, self.more),
            extra_options={"OpTypesToExcludeOutputQuantization": list(_PRODUCTS)} if plugin.layers_only else None,
        )
        proto = onnx.load(str(out))
        for constant in proto.graph.initializer:
            if constant.name in self.better:
                put(constant, self.better[constant.name])
        if self.better:
            onnx.save(proto, str(out))
        return any(node.op_type == "QuantizeLinear" for node in proto.graph.node)

    def answers(self, graph: Path, judged: Sequence[Arrays]) -> list[list[NDArray[Any]]]:
        """The outputs for those batches."""
        session = self._session(graph)
        return [session.run(None, batch) for batch in judged]

    def rewritten(self, how: Callable[[Any, Seen], tuple[Any, dict[str, Range]] | None]) -> "Quantizing | None":
        """That of another graph, which is the same in float (`equalised`, `smoothed`); None where there is none."""
        import onnx

        found = how(onnx.load(str(self.prepared)), partial(self._seen, self.every()))
        if found is None:
            return None
        onnx.save(found[0], str(out := self.prepared.with_name(f"{how.__name__}.onnx")))
        return replace(self, prepared=out, more={**self.more, **found[1]})

    def learned(self, plugin: "OnnxStaticInt8") -> "Quantizing":
        """With weights and biases learned for what the plugin quantizes."""
        return replace(self, better=learned(*self._both(plugin), partial(self._seen, self.samples)))

    @property
    def trial(self) -> Path:
        """Where a graph stands that is only to be looked at."""
        return self.prepared.with_name("trial.onnx")

    def _both(self, plugin: "OnnxStaticInt8") -> tuple[Any, Any]:
        """The graph before it is quantized and after."""
        import onnx

        self.quantize(plugin, self.trial)
        return onnx.load(str(self.prepared)), onnx.load(str(self.trial))

    def _seen(self, batches: Iterable[Arrays], graph: Any, names: Sequence[str]) -> Iterator[Arrays]:
        import onnx

        proto = onnx.ModelProto()
        proto.CopyFrom(graph)
        del proto.graph.output[:]
        proto.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
        onnx.save(proto, str(told := self.prepared.with_name("told.onnx")))
        session = self._session(told)
        for batch in batches:
            yield dict(zip(names, session.run(list(names), batch), strict=True))

    def _session(self, graph: Path) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
