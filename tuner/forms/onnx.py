"""ONNX: a graph in one file without external data, whose inputs and outputs all begin with a symbolic axis "batch"."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tuner.errors import RequestError
from tuner.system.said import first_line
from tuner.workload import Form, Model, TensorSpec, Work

BATCH = "batch"
_LARGEST_BYTES = 2**31 - 1  # protobuf's limit for one file
_PROBE = 3  # a batch size no exporter picks by itself


@dataclass(frozen=True)
class OnnxForm(Form):
    counted: ClassVar[bool] = True

    def check(self, model: Model) -> None:
        check_inputs(model.path, model.inputs)

    def work(self, model: Model) -> Work | None:
        from tuner.forms.onnx_work import work

        return work(model.path, model.inputs)


ONNX = OnnxForm("onnx", "model.onnx")


@dataclass(frozen=True)
class GraphInput:
    """One input as the graph declares it: its axes after the batch (None where free) and its numpy dtype."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


def copy_checked(source: Path, destination: Path) -> None:
    """Copies a user's ONNX file, weights and all, its batch axis freed where it was a fixed number.

    Raises RequestError naming `model.path` where the file is missing, malformed, too large, or written for one
    batch size only.
    """
    import onnx

    where = f"model.path={source}"
    if not source.is_file():
        raise RequestError(f"{where}: no such file")
    try:
        onnx.checker.check_model(str(source))
        proto = onnx.load(str(source), format="protobuf")
    except (onnx.checker.ValidationError, OSError) as error:
        said = first_line(error, lines=2)
        raise RequestError(
            f"{where} is not a valid ONNX model: {said}; export it again, its external data files beside it"
        ) from error
    inputs = _real_inputs(proto)
    if not inputs:
        raise RequestError(f"{where} has no inputs; export it again with its weights as initializers")
    for value in [*inputs, *proto.graph.output]:
        if not value.type.HasField("tensor_type") or not value.type.tensor_type.shape.dim:
            raise RequestError(
                f"{where}: {value.name!r} is a scalar or not a tensor; the first axis of every input and output "
                "must be the batch"
            )
    try:
        fixed = fixed_outputs(proto)
    except onnx.shape_inference.InferenceError as error:
        said = first_line(error, lines=2)
        raise RequestError(
            f"{where} works for one batch size only ({said}); export it again with a dynamic first axis"
        ) from error
    if fixed:
        raise RequestError(
            f"{where}: the first axis of output {fixed[0]!r} does not follow the batch; "
            "export it again with a dynamic first axis"
        )
    save(free_batch(proto), destination, where)


def graph_inputs(path: Path) -> tuple[GraphInput, ...]:
    """The inputs of an ONNX file in the order of its graph."""
    import onnx
    from onnx.helper import tensor_dtype_to_np_dtype

    proto = onnx.load(str(path), load_external_data=False)
    return tuple(
        GraphInput(
            value.name,
            tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim[1:]),
            tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name,
        )
        for value in _real_inputs(proto)
    )


def check_inputs(path: Path, inputs: tuple[TensorSpec, ...]) -> None:
    """Raises RequestError unless the samples' inputs are those of the graph, in name, dtype and shape."""
    graph = {declared.name: declared for declared in graph_inputs(path)}
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
                f'store it with .astype("{declared.dtype}")'
            )
        fits = len(spec.shape) == len(declared.shape) and all(
            want in (None, have) for want, have in zip(declared.shape, spec.shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if axis is None else str(axis) for axis in declared.shape)
            raise RequestError(
                f"input {spec.name!r} has shape ({wanted}) per sample in the model, but {spec.shape} in the dataset"
            )


def _real_inputs(proto: Any) -> list[Any]:
    weights = {tensor.name for tensor in proto.graph.initializer}
    return [value for value in proto.graph.input if value.name not in weights]


def free_batch(proto: Any) -> Any:
    """Names the first axis of every input and output; what other shapes say of the old batch size is dropped."""
    for value in [*_real_inputs(proto), *proto.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    del proto.graph.value_info[:]
    return proto


def fixed_outputs(proto: Any) -> list[str]:
    """The outputs whose first axis is known to differ from the inputs', judged at a batch size of `_PROBE`.

    Raises onnx's InferenceError where an operator contradicts that batch size.
    """
    import onnx

    probe = onnx.ModelProto()
    probe.CopyFrom(proto)
    del probe.graph.value_info[:]
    for value in _real_inputs(probe):
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
