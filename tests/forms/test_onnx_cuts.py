"""Cuts of ONNX graphs: what goes between head and tail, and that the two answer as the whole does."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from onnx import TensorProto, checker, helper
from onnx.reference import ReferenceEvaluator

from tests.graphs import images, model
from tuner.errors import RequestError
from tuner.forms.onnx_cuts import Cut, Cuts, find, parts
from tuner.tensors import TensorSpec

VECTOR = (TensorSpec("x", (6,), "float32"),)
IMAGE = (TensorSpec("x", (3, 8, 8), "float32"),)
Steps = list[tuple[str, int, int]]


def residual(steps: Steps, width: int = 6) -> Any:
    """A graph of vectors: each step is a layer of an earlier tensor, to which another earlier one is added or not. What
    nobody uses is added up in the end, so that the graph has no dead ends."""
    random = np.random.default_rng(len(steps))
    names, nodes, weights, unused = ["x"], [], {}, {"x"}
    for number, (kind, source, other) in enumerate(steps):
        one, two, out = names[source % len(names)], names[other % len(names)], f"t{number}"
        if kind == "layer":
            weights[f"w{number}"] = random.normal(size=(width, width)).astype(np.float32) / 3
            nodes.append(helper.make_node("MatMul", [one, f"w{number}"], [out]))
        elif kind == "tanh":
            nodes.append(helper.make_node("Tanh", [one], [out]))
        else:
            nodes.append(helper.make_node("Add", [one, two], [out]))
        unused -= {one, two} if kind == "add" else {one}
        unused.add(out)
        names.append(out)
    nodes.append(helper.make_node("Sum", sorted(unused), ["y"]))
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", width])
    return model(nodes, weights, given, [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", width])])


def together(proto: Any, cut: Cut, inputs: dict[str, Any], batch_size: int | None = None) -> Any:
    """What head and tail answer, one after the other."""
    head, tail = parts(proto, cut, batch_size)
    for part in (head, tail):
        checker.check_model(part)
    sent = ReferenceEvaluator(head).run(None, inputs)
    assert [tensor.shape[1:] for tensor in sent] == [spec.shape for spec in cut.tensors]
    assert sum(tensor.nbytes for tensor in sent) == cut.sent_bytes * len(inputs["x"])
    return ReferenceEvaluator(tail).run(None, dict(zip((s.name for s in cut.tensors), sent, strict=True)))


STEP = some.tuples(some.sampled_from(["layer", "tanh", "add"]), some.integers(0, 99), some.integers(0, 99))


@settings(max_examples=40)
@given(some.lists(STEP, min_size=1, max_size=12))
def test_head_and_tail_answer_as_the_whole_does(steps: Steps) -> None:
    proto = residual(steps)
    inputs = {"x": np.random.default_rng(1).normal(size=(3, 6)).astype(np.float32)}
    expected = ReferenceEvaluator(proto).run(None, inputs)
    for cut in find(proto, VECTOR).cuts:
        np.testing.assert_allclose(together(proto, cut, inputs)[0], expected[0], rtol=1e-5)


@settings(max_examples=40)
@given(some.lists(STEP, min_size=1, max_size=12))
def test_a_single_tensor_is_a_cut_where_every_path_goes_through_it(steps: Steps) -> None:
    proto = residual(steps)

    def reached(without: str) -> bool:
        known = {"x"}
        for node in proto.graph.node:
            if node.output[0] != without and known.intersection(node.input):
                known.add(node.output[0])
        return "y" in known

    narrow = {node.output[0] for node in proto.graph.node[:-1] if not reached(node.output[0])}
    assert narrow == {cut.name for cut in find(proto, VECTOR).cuts if len(cut.tensors) == 1}


def test_work_and_bytes_are_counted() -> None:
    found = find(images(), IMAGE)
    assert (found.given_bytes, found.answer_bytes) == (3 * 64 * 4, 4 * 4)
    by_name = {cut.name: cut for cut in found.cuts}
    assert list(by_name) == ["c1", "r1", "p1", "c2", "f", "f, m", "a"]
    assert by_name["p1"].sent_bytes == 16 * 2 * 2 * 4 and by_name["f, m"].sent_bytes == 2 * 32 * 4
    first, second, layer, last = 64 * 16 * 27, 4 * 8 * 144, 32 * 32, 32 * 4  # multiply-adds
    assert by_name["p1"].share == pytest.approx(first / (first + second + layer + last))


def test_those_worth_a_link_send_less_and_less() -> None:
    found = find(images(), IMAGE)
    assert [cut.name for cut in found.worthwhile(9)] == ["p1", "f"]
    assert [cut.name for cut in found.worthwhile(1)] == ["p1"], (
        "256 bytes of 768, then 128 of 256: the larger fall stays"
    )
    assert found.worthwhile(0) == ()


@given(some.lists(some.integers(1, 400), max_size=20), some.integers(0, 6))
def test_what_is_worthwhile_is_always_smaller_than_what_came_before(widths: list[int], most: int) -> None:
    cuts = tuple(
        Cut((TensorSpec(f"t{number}", (width,), "float32"),), (number + 1) / (len(widths) + 1))
        for number, width in enumerate(widths)
    )
    kept = Cuts(cuts, 4 * 200, 4).worthwhile(most)
    sizes = [4 * 200, *(cut.sent_bytes for cut in kept)]
    assert len(kept) <= most and sizes == sorted(set(sizes), reverse=True)
    assert [cut for cut in cuts if cut in kept] == list(kept)


def test_a_graph_of_one_batch_size_is_cut_at_it() -> None:
    proto = images(1)
    inputs = {"x": np.random.default_rng(1).normal(size=(1, 3, 8, 8)).astype(np.float32)}
    expected = ReferenceEvaluator(proto).run(None, inputs)
    found = find(proto, IMAGE, 1).worthwhile(4)
    assert [cut.name for cut in found] == ["p1", "f"]
    for cut in found:
        np.testing.assert_allclose(together(proto, cut, inputs, 1)[0], expected[0], rtol=1e-4)


def test_a_graph_with_a_branch_is_refused() -> None:
    def branch(op: str) -> Any:
        node = helper.make_node(op, ["x"], [f"{op}_out"])
        return helper.make_graph([node], op, [], [helper.make_tensor_value_info(f"{op}_out", TensorProto.FLOAT, None)])

    nodes = [helper.make_node("If", ["true"], ["y"], then_branch=branch("Tanh"), else_branch=branch("Relu"))]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 6])
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 6])
    proto = model(nodes, {"true": np.array(True)}, given, [answer])
    with pytest.raises(RequestError, match=r"branch or a loop \(If\)"):
        find(proto, VECTOR)


def test_an_answer_of_the_whole_is_not_sent() -> None:
    """A second answer that the head has already would go through the tail unchanged."""
    weight = np.eye(6, dtype=np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["early"]),
        helper.make_node("Tanh", ["early"], ["t"]),
        helper.make_node("MatMul", ["t", "w"], ["y"]),
    ]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 6])
    answers = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 6]) for name in ("early", "y")]
    assert find(model(nodes, {"w": weight}, given, answers), VECTOR).cuts == ()
