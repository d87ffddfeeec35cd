"""Who takes which tensor of an ONNX graph."""

from collections import Counter
from typing import Any

from onnx import TensorProto, helper

from tuner.forms.onnx_constants import sole, taken


def branch(*inputs: str, output: str) -> Any:
    """A graph within a node: it takes what lies outside it."""
    node = helper.make_node("Sum", list(inputs), [f"{output}_inner"])
    given = helper.make_tensor_value_info(f"{output}_inner", TensorProto.FLOAT, None)
    return helper.make_graph([node], output, [], [given])


def test_what_graphs_within_a_graph_take_counts_as_taken() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Tanh", ["a"], ["b"]),
        helper.make_node("Neg", ["b"], ["c"]),
        helper.make_node(
            "If", ["flag"], ["y"], then_branch=branch("a", "w", output="then"), else_branch=branch("c", output="else")
        ),
    ]
    graph = helper.make_graph(nodes, "net", [], [])
    counted = Counter(taken(graph))
    assert counted["a"] == 2, "by the Tanh and by a branch"
    assert {"b", "c", "w", "flag", "x", "then_inner", "else_inner"} <= sole(graph)
    assert "a" not in sole(graph)
