"""What of a graph is written for one batch size or an old opset, and can be said otherwise; what can be left out."""

from typing import Any

import numpy as np

from tuner.forms.onnx_constants import taken

_OPSET = 17  # since 13 quantizers may scale each channel by itself; every runtime here takes 17
_OLD = 13
_STATES = {"LSTM": (5, 6), "GRU": (5,), "RNN": (5,)}  # where the initial states are among the inputs


def raised(proto: Any) -> Any | None:
    """The model at a newer opset; None where it is new enough, and where onnx cannot convert it."""
    import onnx
    from onnx import version_converter

    versions = [opset.version for opset in proto.opset_import if opset.domain in ("", "ai.onnx")]
    if not versions or min(versions) >= _OLD:
        return None
    try:
        newer = version_converter.convert_version(proto, _OPSET)
    except Exception:  # a C++ assertion, or an operator without an adapter: it stays as it is
        return None
    newer.ir_version = max(newer.ir_version, 8)
    known = {opset.domain for opset in newer.opset_import}
    newer.opset_import.extend(opset for opset in proto.opset_import if opset.domain not in known | {"ai.onnx"})
    assert isinstance(newer, onnx.ModelProto)
    return newer


def loosened(proto: Any, size: int | None) -> Any | None:
    """A copy without what fixes the batch to `size`: constant shapes that begin with it, and initial states of zeros,
    which a recurrent layer has anyway. None where there is nothing of it."""
    import onnx

    if size is None:
        size = 1  # what exporters trace with
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    graph, changed = copy.graph, False
    for number, node in enumerate(graph.node):
        if node.op_type == "Reshape":
            shape = _constant(graph, node.input[1])
            if shape is not None and shape.size > 1 and shape[0] == size:
                free = shape.copy()
                free[0] = 0 if -1 in shape else -1
                name = f"{node.input[1]}_free{number}"
                graph.initializer.append(onnx.numpy_helper.from_array(free, name))
                node.input[1] = name
                changed = True
        for place in _STATES.get(node.op_type, ()):
            if place < len(node.input) and node.input[place]:
                state = _constant(graph, node.input[place])
                if state is not None and not np.any(state):
                    node.input[place] = ""
                    changed = True
    return copy if changed else None


def _constant(graph: Any, name: str) -> Any | None:
    """The value of a tensor that is stored in the graph, or made of a stored shape; None where it is computed."""
    from onnx.numpy_helper import to_array

    for tensor in graph.initializer:
        if tensor.name == name and not tensor.external_data:
            return to_array(tensor)
    for node in graph.node:
        if name in node.output:
            values = {attribute.name: attribute for attribute in node.attribute}
            if node.op_type == "Constant" and "value" in values:
                return to_array(values["value"].t)
            if node.op_type == "ConstantOfShape":
                shape = _constant(graph, node.input[0])
                fill = to_array(values["value"].t)[0] if "value" in values else np.float32(0)
                return None if shape is None else np.full(shape, fill)
    return None


def drop_texts(proto: Any) -> None:
    """Takes outputs that are texts off a graph where it has others, and what only they need: there are probabilities,
    or scores, of the same classes."""
    from onnx import TensorProto

    kept = [value for value in proto.graph.output if value.type.tensor_type.elem_type != TensorProto.STRING]
    if not kept or len(kept) == len(proto.graph.output):
        return
    del proto.graph.output[:]
    proto.graph.output.extend(kept)
    while True:
        used = {value.name for value in kept} | set(taken(proto.graph))
        unused = [node for node in proto.graph.node if not used.intersection(node.output)]
        if not unused:
            return
        for node in unused:
            proto.graph.node.remove(node)
