"""What is mended before layers stay in float: SmoothQuant, rounding and biases that are learned."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from tests import graphs
from tuner.fidelity import unlikeness
from tuner.forms.onnx import ONNX
from tuner.forms.onnx_constants import array, attributes, stored
from tuner.model import Model, fed
from tuner.plugins.transforms.equalising import equalised
from tuner.plugins.transforms.layer_patches import patches, rows, weights_of
from tuner.plugins.transforms.learned_rounding import rounded_together
from tuner.plugins.transforms.onnx_quantizing import Quantizing, prepare
from tuner.plugins.transforms.onnx_ranges import Ranges
from tuner.plugins.transforms.onnx_static_int8 import OnnxStaticInt8
from tuner.plugins.transforms.smoothing import smoothed
from tuner.testing.networks import IMAGE, Patterns, Shelf

Array = np.ndarray[Any, Any]
CONVOLUTIONS: list[dict[str, Any]] = [
    {},
    {"pads": [1, 1, 1, 1]},
    {"pads": [0, 1, 2, 1], "strides": [2, 1]},
    {"group": 2, "dilations": [2, 1]},
    {"group": 4, "strides": [2, 3], "pads": [1, 1, 1, 1]},
    {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    {"auto_pad": "SAME_LOWER"},
    {"auto_pad": "VALID"},
]
PRODUCTS: list[tuple[str, dict[str, Any]]] = [("MatMul", {}), ("Gemm", {}), ("Gemm", {"transB": 1})]


def _answers(proto: Any, *batches: Array) -> list[list[Array]]:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return [session.run(None, {session.get_inputs()[0].name: batch}) for batch in batches]


def _layer(kind: str, said: dict[str, Any], weights: Array, shape: list[Any]) -> Any:
    node = helper.make_node(kind, ["x", "w"], ["y"], "layer", **said)
    given, answered = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
        for name, dims in (("x", shape), ("y", list("abcd")[: len(shape)]))
    )
    return graphs.model([node], {"w": weights}, given, [answered])


def test_an_answer_that_is_no_number_is_infinitely_far() -> None:
    right = [[np.array([[1.0, -np.inf], [2.0, -np.inf]], np.float32)]]
    assert unlikeness(right, right) == 0, "infinite as the float model is"
    assert unlikeness([[np.full((2, 2), np.nan, np.float32)]], right) == np.inf
    assert unlikeness([[np.array([[1.0, 0], [2, 0]], np.float32)]], right) == np.inf
    large = [[np.array([[200.0], [-200.0]], np.float16)] for _ in range(9)]
    assert unlikeness([[outputs[0] / 2] for outputs in large], large) == pytest.approx(0.5), "beyond float16"


def test_nodes_without_a_name_or_with_the_same_get_names(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", [a, "w"], [b], name) for a, b, name in (("x", "m", ""), ("m", "y", ""))]
    nodes.append(helper.make_node("MatMul", ["y", "w"], ["z"], "same"))
    nodes.append(helper.make_node("MatMul", ["z", "w"], ["end"], "same"))
    given, answered = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 3]) for n in ("x", "end"))
    onnx.save(graphs.model(nodes, {"w": np.ones((3, 3), np.float32)}, given, [answered]), tmp_path / "net.onnx")
    prepare(tmp_path / "net.onnx", tmp_path / "prepared.onnx")
    names = [node.name for node in onnx.load(tmp_path / "prepared.onnx").graph.node]
    assert len({*names}) == len(names) == 4 and "" not in names


@pytest.mark.parametrize(
    ("kind", "said"), [*(("Conv", said) for said in CONVOLUTIONS), *PRODUCTS], ids=lambda value: str(value)
)
def test_patches_times_rows_of_weights_are_what_the_layer_gives(kind: str, said: dict[str, Any]) -> None:
    random = np.random.default_rng(0)
    given = random.normal(size=(3, 4, 7, 8) if kind == "Conv" else (9, 6)).astype(np.float32)
    shape = (8, 4 // said.get("group", 1), 3, 2) if kind == "Conv" else (5, 6) if said else (6, 5)
    weights = random.normal(size=shape).astype(np.float32)
    proto = _layer(kind, said, weights, list(given.shape))
    ((right,),) = _answers(proto, given)
    told = attributes(proto.graph.node[0])
    taken = patches(given, shape, kind, told, 10**6, random)
    products = np.einsum("pgi,goi->pgo", taken, rows(weights, kind, told)).reshape(len(taken), -1)
    outputs = np.moveaxis(right, 1, -1).reshape(-1, right.shape[1])
    np.testing.assert_allclose(np.sort(products, 0), np.sort(outputs, 0), atol=1e-4)  # the places come in any order
    assert len(patches(given, shape, kind, told, 5, random)) == 5
    np.testing.assert_array_equal(weights_of(rows(weights, kind, told), weights, kind, told), weights)


def test_weights_make_up_for_one_another_where_their_inputs_go_together() -> None:
    random = np.random.default_rng(0)
    weights = random.uniform(-7, 7, size=(2, 5, 24))
    mixed = random.normal(size=(2, 500, 6)) @ random.normal(size=(2, 6, 24)) + 0.1 * random.normal(size=(2, 500, 24))
    moments = mixed.transpose(0, 2, 1) @ mixed / 500

    def error(steps: Array) -> float:
        return float(np.square(mixed @ (steps - weights).transpose(0, 2, 1)).mean())

    learned = rounded_together(weights, moments, -8, 8)
    assert np.array_equal(learned, np.round(learned))
    assert np.abs(learned).max() <= 8
    assert error(learned) < 0.3 * error(np.round(weights))


def test_weights_whose_inputs_have_nothing_in_common_go_to_the_nearest_step() -> None:
    weights = np.random.default_rng(0).uniform(-9, 9, size=(1, 4, 10))
    np.testing.assert_array_equal(rounded_together(weights, np.eye(10)[None], -8, 8), np.clip(np.round(weights), -8, 8))


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Convolutions, every second of them depthwise, and a matrix product."""
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=groups), nn.ReLU()) for groups in (1, 8, 1, 8)]
    module = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), *blocks, nn.Flatten(), nn.Linear(512, 4))
    return Shelf.of(module, IMAGE, tmp_path_factory.mktemp("net") / "net").take([ONNX])


def _work(model: Model, folder: Path) -> Quantizing:
    prepare(model.path, prepared := folder / "prepared.onnx")
    samples = Patterns().load("calibration")
    assert samples is not None
    batches = list(fed(samples, model, 8))
    return Quantizing(prepared, Ranges(prepared, batches), lambda: batches, batches, 1)


def test_what_is_learned_lowers_the_error_and_changes_no_operator(net: Model, tmp_path: Path) -> None:
    work, plugin = _work(net, tmp_path), OnnxStaticInt8(layers_only=True)
    judged = list(fed(Patterns().load("evaluation"), net, 8))  # type: ignore[arg-type]
    right = work.answers(work.prepared, judged)
    errors, operators = [], []
    for number, which in enumerate((work, work.learned(plugin))):
        out = tmp_path / f"{number}.onnx"
        assert which.quantize(plugin, out)
        errors.append(unlikeness(which.answers(out, judged), right))
        operators.append([node.op_type for node in onnx.load(out).graph.node])
    assert errors[1] < errors[0]
    assert operators[0] == operators[1]


def test_smooth_quant_leaves_the_float_graph_what_it_was(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 4))
    model = Shelf.of(module, IMAGE, tmp_path / "net").take([ONNX])
    work = _work(model, tmp_path)
    smooth = work.rewritten(smoothed)
    assert smooth is not None
    judged = list(fed(Patterns().load("evaluation"), model, 8))  # type: ignore[arg-type]
    for mine, true in zip(work.answers(smooth.prepared, judged), work.answers(work.prepared, judged), strict=True):
        np.testing.assert_allclose(mine[0], true[0], rtol=1e-4, atol=1e-5)
    graph = onnx.load(smooth.prepared).graph
    assert [node.op_type for node in graph.node].count("Mul") == len(smooth.more) == 2
    assert {array(tensor).shape for name, tensor in stored(graph).items() if name.endswith("_smoothing")} == {
        (64,),
        (16,),
    }


def test_equalisation_leaves_the_float_graph_what_it_was_and_its_channels_alike(tmp_path: Path) -> None:
    torch.manual_seed(0)
    first, deep, last = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1)
    with torch.no_grad():
        first.weight *= torch.logspace(-2, 2, 8)[:, None, None, None]
        deep.weight /= torch.logspace(-2, 2, 8)[:, None, None, None]
    model = Shelf.of(nn.Sequential(first, nn.ReLU(), deep, last, nn.Flatten()), IMAGE, tmp_path / "net").take([ONNX])
    work, plugin = _work(model, tmp_path), OnnxStaticInt8()
    equal = work.rewritten(equalised)
    assert equal is not None
    judged = list(fed(Patterns().load("evaluation"), model, 8))  # type: ignore[arg-type]
    right, errors = work.answers(work.prepared, judged), []
    assert unlikeness(work.answers(equal.prepared, judged), right) < 1e-5
    for number, which in enumerate((work, equal)):
        out = tmp_path / f"{number}.onnx"
        which.quantize(plugin, out)
        errors.append(unlikeness(which.answers(out, judged), right))
    assert errors[1] < 0.5 * errors[0]


def test_equalisation_does_nothing_where_something_else_stands_between(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sigmoid(), nn.Conv2d(4, 4, 3), nn.Flatten())
    model = Shelf.of(module, IMAGE, tmp_path / "net").take([ONNX])
    assert _work(model, tmp_path).rewritten(equalised) is None


def test_smooth_quant_does_nothing_where_convolutions_are_more(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 4))
    model = Shelf.of(module, IMAGE, tmp_path / "net").take([ONNX])
    assert _work(model, tmp_path).rewritten(smoothed) is None
