"""Nodes and stored tensors of an ONNX graph as values of Python."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def array(tensor: Any) -> NDArray[Any]:
    """An initializer's numbers."""
    from onnx.numpy_helper import to_array

    return np.asarray(to_array(tensor))


def put(tensor: Any, numbers: NDArray[Any]) -> None:
    """Replaces an initializer's numbers; its name stays."""
    tensor.CopyFrom(named(tensor.name, numbers))


def named(name: str, numbers: NDArray[Any]) -> Any:
    """A new initializer."""
    from onnx.numpy_helper import from_array

    return from_array(np.ascontiguousarray(numbers), name)


def made(operator: str, inputs: Sequence[str], output: str) -> Any:
    """A new node of one output, which it is called after."""
    from onnx.helper import make_node

    return make_node(operator, list(inputs), [output], output)


def stored(graph: Any) -> dict[str, Any]:
    """The initializers by name."""
    return {tensor.name: tensor for tensor in graph.initializer}


def attributes(node: Any) -> dict[str, Any]:
    from onnx.helper import get_attribute_value

    return {attribute.name: get_attribute_value(attribute) for attribute in node.attribute}


def taken(graph: Any) -> Iterator[str]:
    """The tensors that the nodes of a graph take, and those of graphs within it: each as often as it is."""
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from taken(inner)
                yield from (value.name for value in inner.output)


def sole(graph: Any) -> set[str]:
    """The tensors that a single node takes, once, those of graphs within it counted."""
    return {name for name, count in Counter(taken(graph)).items() if count == 1}
