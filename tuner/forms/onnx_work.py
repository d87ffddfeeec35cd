"""What one sample costs a model at the least: arithmetic, weights to read, inputs and outputs to move.

It is the numerator of the roofline (`tuner.measure.roofline`), read from the graph.
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tuner.forms.onnx_constants import stored
from tuner.model import Work
from tuner.tensors import TensorSpec

_WEIGHT_AT = {
    "Conv": 1,
    "ConvTranspose": 1,
    "Gemm": 1,
    "MatMul": 1,
    "ConvInteger": 1,
    "MatMulInteger": 1,
    "QLinearConv": 3,  # x, its scale and zero point come first
    "QLinearMatMul": 3,
}
"""The operators that are counted, and where their second factor is among their inputs."""
_UNKNOWN = {"Attention", "DeformConv", "Einsum", "GRU", "LSTM", "RNN"}
"""Operators that multiply matrices too, but are not counted."""


def work(path: Path, inputs: tuple[TensorSpec, ...]) -> Work | None:
    """The work of one sample of the ONNX file, whose inputs are those; shapes come from ONNX's inference at batch 1.

    None where it would be understated: a counted operator whose shape cannot be inferred, an operator from outside
    the ONNX standard, one of `_UNKNOWN`, or a product inside a branch or a loop.
    """
    import onnx
    from onnx.inliner import inline_local_functions

    proto = onnx.load(str(path), load_external_data=False)
    if proto.functions:
        proto = inline_local_functions(proto)
    graph = proto.graph
    if not all(_countable(node) for node in graph.node):
        return None
    graph = inferred(proto, inputs).graph
    constants = _constants(graph)
    looked_up = {node.input[0] for node in graph.node if node.op_type == "Gather"}  # a row at a time, not as a whole, …
    looked_up -= {  # … unless another reads all of it
        name for node in graph.node for place, name in enumerate(node.input) if node.op_type != "Gather" or place > 0
    }
    shapes = shapes_of(graph)
    counted = [flops(node, shapes) for node in graph.node]
    given = [math.prod(spec.shape) * _item_bytes(graph, spec.name) for spec in inputs]
    answered = [_bytes(value, shapes[value.name]) for value in graph.output]
    if None in counted or None in answered:
        return None
    sizes = {name: math.prod(tensor.dims) for name, tensor in constants.items() if name not in looked_up}
    return Work(
        flops=_total(counted),
        weights=sum(sizes.values()),
        weight_bytes=sum(sizes[name] * _dtype_bytes(constants[name].data_type) for name in sizes),
        activation_bytes=sum(given) + _total(answered),
    )


def _countable(node: Any) -> bool:
    if node.domain not in ("", "ai.onnx") or node.op_type in _UNKNOWN:
        return False
    return not any(_multiplies(graph) for attribute in node.attribute for graph in [attribute.g, *attribute.graphs])


def _multiplies(graph: Any) -> bool:
    return any(node.op_type in _WEIGHT_AT or not _countable(node) for node in graph.node)


def inferred(proto: Any, inputs: tuple[TensorSpec, ...], batch_size: int = 1) -> Any:
    """The model, which is changed, with every shape that can be known of a batch of that size."""
    import onnx

    shapes = {spec.name: spec.full(batch_size) for spec in inputs}
    del proto.graph.value_info[:]
    for value in proto.graph.input:
        if value.name in shapes:
            del value.type.tensor_type.shape.dim[:]
            for size in shapes[value.name]:
                value.type.tensor_type.shape.dim.add().dim_value = size
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    return onnx.shape_inference.infer_shapes(proto, data_prop=True)


def shapes_of(graph: Any) -> dict[str, tuple[int, ...] | None]:
    """The shapes of all tensors of a graph that is `inferred`; None, or nothing, where one is not known."""
    shapes = {value.name: _shape(value) for value in [*graph.input, *graph.output, *graph.value_info]}
    return shapes | {name: tuple(tensor.dims) for name, tensor in _constants(graph).items()}


def _constants(graph: Any) -> dict[str, Any]:
    """The tensors stored in the graph, as initializers or as `Constant` nodes."""
    tensors = stored(graph)
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    tensors[node.output[0]] = attribute.t
    return tensors


def _shape(value: Any) -> tuple[int, ...] | None:
    """None where an axis, or their number, is unknown."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape") or not all(dim.HasField("dim_value") for dim in tensor.shape.dim):
        return None
    return tuple(dim.dim_value for dim in tensor.shape.dim)


def flops(node: Any, shapes: dict[str, tuple[int, ...] | None]) -> int | None:
    """Two for each multiply-add, 0 of an operator that is not counted; None where a shape is not known."""
    if node.op_type not in _WEIGHT_AT:
        return 0
    first, second = shapes.get(node.input[0]), shapes.get(node.input[_WEIGHT_AT[node.op_type]])
    result = shapes.get(node.output[0])
    if first is None or second is None or result is None:
        return None
    if node.op_type == "ConvTranspose":  # weights (in, out / groups, *kernel): each input meets its row of them
        return 2 * math.prod(first) * math.prod(second[1:])
    if "Conv" in node.op_type:  # weights (out, in / groups, *kernel): each output sums over its row of them
        return 2 * math.prod(result) * math.prod(second[1:])
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return 2 * math.prod(result) * first[0 if transposed else -1]


def _bytes(value: Any, shape: tuple[int, ...] | None) -> int | None:
    return None if shape is None else math.prod(shape) * _dtype_bytes(value.type.tensor_type.elem_type)


def _item_bytes(graph: Any, name: str) -> int:
    return next(_dtype_bytes(value.type.tensor_type.elem_type) for value in graph.input if value.name == name)


def _dtype_bytes(dtype: int) -> int:
    from onnx.helper import tensor_dtype_to_np_dtype

    return int(tensor_dtype_to_np_dtype(dtype).itemsize)


def _total(numbers: Iterable[int | None]) -> int:
    return sum(number or 0 for number in numbers)
