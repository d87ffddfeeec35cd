"""ONNX graphs whose cuts are known."""

from typing import Any

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper


def model(nodes: list[Any], weights: dict[str, Any], given: Any, answers: list[Any]) -> Any:
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "graph", [given], answers, stored)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(proto)
    return proto


def images(batch: str | int = "batch") -> Any:
    """A convolution, a pooling, another convolution, and two layers with a shortcut around one of them."""
    random = np.random.default_rng(0)
    weights = {
        name: random.normal(size=shape).astype(np.float32)
        for name, shape in (("k1", (16, 3, 3, 3)), ("k2", (8, 16, 3, 3)), ("w1", (32, 32)), ("w2", (32, 4)))
    }
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "k1"], ["c1"], pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"]),
        node("MaxPool", ["r1"], ["p1"], kernel_shape=[4, 4], strides=[4, 4]),
        node("Conv", ["p1", "k2"], ["c2"], pads=[1, 1, 1, 1]),
        node("Constant", [], ["flat"], value=numpy_helper.from_array(np.array([0, 32]))),
        node("Reshape", ["c2", "flat"], ["f"]),
        node("MatMul", ["f", "w1"], ["m"]),
        node("Add", ["m", "f"], ["a"]),
        node("MatMul", ["a", "w2"], ["y"]),
    ]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 8, 8])
    return model(nodes, weights, given, [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 4])])
