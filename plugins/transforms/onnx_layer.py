"""One layer of a quantized ONNX graph alone."""

from copy import deepcopy
from typing import Any

_ROUNDING = ("QuantizeLinear", "DequantizeLinear")


def alone(layer: str, whole: Any, plain: Any) -> Any:
    """The plain graph, in which the inputs and the output of that layer are rounded as they are where all are."""
    graph = deepcopy(plain)
    graph.ClearField("opset_import")
    graph.opset_import.extend(whole.opset_import)
    nodes = graph.graph.node
    here = next(n for n, node in enumerate(nodes) if node.name == layer)
    rounded = next(node for node in whole.graph.node if node.name == layer)
    before, after = list(map(deepcopy, _before(rounded, whole))), _after(rounded.output[0], whole)
    nodes[here].input[:] = rounded.input
    there = {constant.name for constant in plain.graph.initializer}
    for step in before:
        if (name := step.output[0]) in there:  # what is rounded may keep the name of what is not, a bias does
            step.output[0] = f"{name}_rounded"
            nodes[here].input[list(nodes[here].input).index(name)] = step.output[0]
    if after:  # what follows the layer keeps asking for its name
        name, nodes[here].output[0] = nodes[here].output[0], f"{layer}_before_rounding"
        after[0].input[0], after[-1].output[0] = nodes[here].output[0], name
    for step in reversed(after):
        nodes.insert(here + 1, step)
    for step in reversed(before):
        nodes.insert(here, step)
    needed = {name for step in (*before, *after) for name in step.input} - there
    graph.graph.initializer.extend(constant for constant in whole.graph.initializer if constant.name in needed)
    return graph


def _before(layer: Any, whole: Any) -> list[Any]:
    """The nodes that round what a layer is given, in order."""
    makes = {output: node for node in whole.graph.node if node.op_type in _ROUNDING for output in node.output}
    steps: list[Any] = []
    for name in layer.input:
        made: list[Any] = []
        while name in makes:
            made.insert(0, makes[name])
            name = makes[name].input[0]
        steps += made
    return steps


def _after(name: str, whole: Any) -> list[Any]:
    """Copies of the nodes that round what a layer gives, in order; nothing where it stays as it is."""
    steps: list[Any] = []
    while taker := next((n for n in whole.graph.node if n.op_type in _ROUNDING and n.input[0] == name), None):
        steps.append(deepcopy(taker))
        steps[-1].name = f"{taker.name}_after"
        name = taker.output[0]
        steps[-1].output[0] = f"{name}_after"
        if len(steps) > 1:
            steps[-1].input[0] = steps[-2].output[0]
    return steps
