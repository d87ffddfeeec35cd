"""An ONNX graph for one batch size: what compilers begin with that know no free axes."""

from typing import Any

from tuner.forms.onnx import real_inputs
from tuner.model import Model


def sized(model: Model, batch_size: int) -> tuple[Any, list[str]]:
    """The graph with every axis of its inputs fixed and all shapes inferred, and the names of its inputs in order."""
    import onnx

    proto = onnx.load(str(model.path))
    specs = {spec.name: spec for spec in model.inputs}
    taken = list(real_inputs(proto))
    for value in taken:
        for place, size in enumerate(specs[value.name].full(batch_size)):
            value.type.tensor_type.shape.dim[place].dim_value = size
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    del proto.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(proto, data_prop=True), [value.name for value in taken]
