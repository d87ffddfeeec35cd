"""ONNX: a graph in one file, and beside it the files of its weights where they are too many for one.

The batch axis of every input and output is called "batch"; where it is not the first, or of one size only, the graph's
own metadata say so (`Layout`).
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from tuner.dataset import Samples
from tuner.errors import RequestError
from tuner.model import Form, Model, Work
from tuner.system.digests import digest
from tuner.tensors import FreeSpec, Shape, TensorSpec

BATCH = "batch"
_LARGEST_BYTES = 2**31 - 1  # protobuf's limit for one file
_PROBE = 3  # a batch size no exporter picks by itself
_QUANTIZED = {"QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "MatMulInteger", "ConvInteger"}
INLINE_BYTES = 1_900_000_000  # of weights within the graph: protobuf refuses a file of 2 GiB
_LAYOUT = "inference_tuner.layout"  # the key of `Layout` among a graph's metadata
_BATCH_NAMES = ("b", "n", "bs")  # what exporters and people call a batch axis, besides "batch…"


@dataclass(frozen=True)
class OnnxForm(Form):
    counted: ClassVar[bool] = True

    def check(self, model: Model) -> None:
        check_inputs(graph_inputs(model.path), model.inputs)

    def described(self, model: Model, samples: Samples) -> Model:
        return Layout.described(model)

    def output_names(self, model: Model) -> tuple[str, ...]:
        import onnx

        return tuple(value.name for value in onnx.load(str(model.path), load_external_data=False).graph.output)

    def work(self, model: Model) -> Work | None:
        from tuner.forms.onnx_work import work

        # what is said of float32 would not be true of a graph that came as int8
        known = not model.quantized and not model.shapes and model.batch_size in (None, 1)
        return work(model.path, model.inputs) if known else None


ONNX = OnnxForm("onnx", "model.onnx")


@dataclass(frozen=True)
class GraphInput:
    """One input as the graph declares it: its axes (a name, or None, where free) and its numpy dtype. `dims` is None
    where the graph does not say."""

    name: str
    dims: tuple[int | str | None, ...] | None
    dtype: str

    def places(self, shape: tuple[int, ...]) -> list[int | None]:
        """Where the batch may stand so that samples of that shape fit, the likeliest first: an axis of a fixed size
        above one only where none is free. [None] where a sample fits as it is, and nothing where it does not."""
        if self.dims is None:
            return [0]
        dims = self.dims
        if len(dims) == len(shape):
            return [None] if _fits(dims, shape) else []
        fitting = [axis for axis in range(len(dims)) if _fits((*dims[:axis], *dims[axis + 1 :]), shape)]
        if any(map(_called_batch, dims)) and all(isinstance(dims[axis], int) for axis in fitting):
            return []  # a graph that names its batch has it nowhere else by chance
        if any(not isinstance(dims[axis], int) for axis in fitting):
            fitting = [axis for axis in fitting if dims[axis] == 1 or not isinstance(dims[axis], int)]
        fitting.sort(key=lambda axis: (not _called_batch(dims[axis]), axis > 0, isinstance(dims[axis], int)))
        return [*fitting]

    @property
    def axes(self) -> tuple[int | str, ...]:
        """`dims`, where a free axis without a name is called by its place."""
        return tuple(f"axis {place}" if dim is None else dim for place, dim in enumerate(self.dims or ()))

    def __str__(self) -> str:
        dims = "any" if self.dims is None else ", ".join("any" if d is None else str(d) for d in self.dims)
        return f"({dims})"


def _fits(dims: Sequence[int | str | None], shape: Sequence[int]) -> bool:
    return len(dims) == len(shape) and all(
        not isinstance(want, int) or want == have for want, have in zip(dims, shape, strict=True)
    )


def _called_batch(dim: int | str | None) -> bool:
    return isinstance(dim, str) and (dim.lower().startswith(BATCH) or dim.lower() in _BATCH_NAMES)


@dataclass(frozen=True)
class Layout:
    """Where a graph has its batch: `inputs` with their axes, the axes of its outputs, and the only size that it takes,
    with the reason in a line. `shapes` are those of its variable lengths; `inputs` then have the largest."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[int | None, ...]
    size: int | None = None
    why: str = ""
    shapes: tuple[Shape, ...] = ()

    def write(self, proto: Any, former: str) -> None:
        """Into the graph's metadata, with its `former_identity`."""
        from onnx.helper import set_model_props

        kept = {entry.key: entry.value for entry in proto.metadata_props}
        said: dict[str, Any] = {"inputs": [spec.to_json() for spec in self.inputs], "outputs": self.outputs}
        said |= {
            "former": former,
            "size": self.size,
            "why": self.why,
            "shapes": [shape.to_json() for shape in self.shapes],
        }
        set_model_props(proto, kept | {_LAYOUT: json.dumps(said)})

    @classmethod
    def described(cls, model: Model) -> Model:
        """The model with what its graph says; as it is, where that says nothing."""
        import onnx

        proto = onnx.load(str(model.path), load_external_data=False)
        model = replace(model, quantized=any(node.op_type in _QUANTIZED for node in proto.graph.node))
        said = next((json.loads(entry.value) for entry in proto.metadata_props if entry.key == _LAYOUT), None)
        if said is None:
            return model
        return replace(
            model,
            inputs=tuple(map(TensorSpec.from_json, said["inputs"])),
            outputs=tuple(said["outputs"]),
            batch_size=said["size"],
            fixed=said["why"],
            shapes=tuple(map(Shape.from_json, said["shapes"])),
            former=said.get("former", ""),
        )


def graph_inputs(path: Path) -> dict[str, GraphInput]:
    """The inputs of an ONNX file, by name, in the order of its graph."""
    import onnx

    return declared_inputs(onnx.load(str(path), load_external_data=False))


def declared_inputs(proto: Any) -> dict[str, GraphInput]:
    from onnx.helper import tensor_dtype_to_np_dtype

    inputs = {}
    for value in real_inputs(proto):
        tensor = value.type.tensor_type
        # Paddle writes -1 for what is free
        dims = [dim.dim_value if dim.dim_value > 0 else dim.dim_param or None for dim in tensor.shape.dim]
        shape = tuple(dims) if tensor.HasField("shape") else None
        inputs[value.name] = GraphInput(value.name, shape, tensor_dtype_to_np_dtype(tensor.elem_type).name)
    return inputs


def declared(path: Path, batch_axes: Mapping[str, int]) -> tuple[FreeSpec, ...]:
    """What a sample is for an ONNX file; nothing where it is no such file. An input's batch axis is that of
    `batch_axes`, the one that is called so, or the first."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        graph = graph_inputs(path)
    except (DecodeError, OSError, KeyError):
        return ()
    specs = []
    for name, given in graph.items():
        called = next((axis for axis, dim in enumerate(given.axes) if _called_batch(dim)), 0)
        batch = batch_axes.get(name, called)
        specs.append(FreeSpec(name, (*given.axes[:batch], *given.axes[batch + 1 :]), given.dtype))
    return tuple(specs)


def check_inputs(graph: Mapping[str, GraphInput], inputs: tuple[TensorSpec, ...]) -> None:
    """Raises RequestError unless the samples' inputs are those of the graph, in name, dtype and shape."""
    if set(graph) != {spec.name for spec in inputs}:
        raise RequestError(
            f"the model takes {_names(graph)}, but the dataset's samples give {_names(spec.name for spec in inputs)}; "
            "name the dataset's inputs after the model's"
        )
    for spec in inputs:
        declared = graph[spec.name]
        if declared.dtype != spec.dtype:
            raise RequestError(
                f"input {spec.name!r} is {declared.dtype} in the model, but {spec.dtype} in the dataset; "
                f"store it as {declared.dtype}, in the range that the model takes"
            )
        if not declared.places(spec.shape):
            raise RequestError(
                f"input {spec.name!r} has shape {declared} in the model, the batch among its axes, but {spec.shape} "
                "per sample in the dataset"
            )


def copy(model: Path, out: Path) -> None:
    """The files of an ONNX model's folder into another: the graph, and those of its weights where it has any. No links:
    the onnx library refuses weights in a file that has several."""
    for file in sorted(path for path in model.rglob("*") if path.is_file() and not path.name.startswith(".")):
        place = out / file.relative_to(model)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)


def real_inputs(proto: Any) -> list[Any]:
    """The inputs of a graph that are no weights."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    return [value for value in proto.graph.input if value.name not in weights]


def name_batch(proto: Any, model: Model) -> None:
    """Names the batch axis of every input and output; what other shapes say of the batch size is dropped."""
    axes = {spec.name: spec.batch_axis for spec in model.inputs}
    places = [(value, axes[value.name]) for value in real_inputs(proto)]
    places += zip(proto.graph.output, model.outputs or (0,) * len(proto.graph.output), strict=True)
    for value, axis in places:
        if axis is not None:
            value.type.tensor_type.shape.dim[axis].dim_param = BATCH
    del proto.graph.value_info[:]


def former_identity(proto: Any) -> str:
    """What the version before, which took the first axis of everything for the batch, called this graph as a user's
    file has it: champions are registered with that. Empty where it took no such graph."""
    import onnx

    if proto.ByteSize() > INLINE_BYTES:
        return ""
    plain = onnx.ModelProto()
    plain.CopyFrom(proto)
    for value in [*real_inputs(plain), *plain.graph.output]:
        dims = value.type.tensor_type.shape.dim
        if not dims:
            return ""
        dims[0].dim_param = BATCH
    del plain.graph.value_info[:]
    content = hashlib.sha256(plain.SerializeToString()).hexdigest()
    return digest({ONNX.file: digest({ONNX.file: content})})


def fixed_outputs(proto: Any) -> list[str]:
    """The outputs whose first axis is known to differ from the inputs', judged at a batch size of `_PROBE`.

    Raises onnx's InferenceError where an operator contradicts that batch size.
    """
    import onnx

    probe = onnx.ModelProto()
    probe.CopyFrom(proto)
    del probe.graph.value_info[:]
    for value in real_inputs(probe):
        value.type.tensor_type.shape.dim[0].dim_value = _PROBE
    for value in probe.graph.output:
        value.type.tensor_type.ClearField("shape")
    probe = onnx.shape_inference.infer_shapes(probe, strict_mode=True, data_prop=True)
    fixed = []
    for value in probe.graph.output:
        tensor = value.type.tensor_type
        if tensor.HasField("shape"):
            first = tensor.shape.dim[0] if tensor.shape.dim else None
            if first is None or (first.HasField("dim_value") and first.dim_value != _PROBE):
                fixed.append(value.name)
    return fixed


def save(proto: Any, path: Path, where: str = "this model") -> None:
    import onnx

    if proto.ByteSize() > _LARGEST_BYTES:
        raise RequestError(f"{where} is {proto.ByteSize() / 1e9:.1f} GB; an ONNX file of up to 2 GB can be tuned")
    onnx.save(proto, str(path))


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"
