"""Cross-layer equalisation of an ONNX graph: the channels between two convolutions are brought to like sizes.

Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.1: what one
convolution gives is divided by s, the weights of the next are multiplied by it, channel by channel; a Relu between them
lets that pass. s = sqrt(max|weights that make it| / max|weights that take it|). One scale for all channels of an
activation then loses less on the small ones.
"""

from copy import deepcopy
from typing import Any

import numpy as np

from tuner.forms.onnx_constants import array, attributes, put, sole, stored
from tuner.plugins.transforms.layer_patches import Array, Range, Seen, ends_of

_ROUNDS = 20  # a layer in the middle has a share in two


def equalised(plain: Any, seen: Seen) -> tuple[Any, dict[str, Range]] | None:
    """The graph, in float as it was but for the last digits, and the new range of each tensor that is another in it.
    None where no two convolutions follow one another. `seen` looks at a graph."""
    graph = deepcopy(plain)
    pairs = _pairs(graph.graph)
    if not pairs:
        return None
    constants = stored(graph.graph)
    for _ in range(_ROUNDS):
        for first, _, second in pairs:
            _balance(first, second, constants)
    changed = {name for _, between, _ in pairs for name in between}
    ends = ends_of(seen(graph, sorted(changed)), axis=1)
    return graph, {name: (float(low.min()), float(high.max())) for name, (low, high) in ends.items()}


def _pairs(graph: Any) -> list[tuple[Any, list[str], Any]]:
    """Convolutions of which one takes all that the other gives, and the tensors between."""
    alone, constants = sole(graph) - {value.name for value in graph.output}, stored(graph)
    takes = {node.input[0]: node for node in graph.node if node.input}
    pairs = []
    for first in graph.node:
        if not _own(first, alone, constants):
            continue
        between = [first.output[0]]
        second = takes.get(between[-1]) if between[-1] in alone else None
        if second is not None and second.op_type == "Relu":
            between.append(second.output[0])
            second = takes.get(between[-1]) if between[-1] in alone else None
        if second is not None and _own(second, alone, constants):
            pairs.append((first, between, second))
    return pairs


def _own(node: Any, alone: set[str], constants: dict[str, Any]) -> bool:
    """Whether it is a convolution whose weights and bias are stored, and nobody else's."""
    return node.op_type == "Conv" and all(name in alone and name in constants for name in node.input[1:])


def _balance(first: Any, second: Any, constants: dict[str, Any]) -> None:
    made, taken = array(constants[first.input[1]]), array(constants[second.input[1]])
    groups = attributes(second).get("group", 1)
    split = taken.reshape(groups, len(taken) // groups, taken.shape[1], -1)
    gives, takes = np.abs(made).reshape(len(made), -1).max(1), np.abs(split).max((1, 3)).reshape(-1)
    both = (gives > 0) & (takes > 0)
    share = np.where(both, np.sqrt(gives / np.where(both, takes, 1)), 1).astype(np.float32)

    def divided(whole: Array) -> Array:
        return (whole / share.reshape(-1, *[1] * (whole.ndim - 1))).astype(whole.dtype)

    for name in first.input[1:]:
        put(constants[name], divided(array(constants[name])))
    equal = (split * share.reshape(groups, 1, -1, 1)).reshape(taken.shape)
    put(constants[second.input[1]], equal.astype(taken.dtype))
