"""What quantizers leave in float, and what they mend before."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from tuner.errors import CandidateError
from tuner.forms.onnx import ONNX
from tuner.model import Model
from tuner.plugins.transforms.nncf_int8 import NncfInt8
from tuner.plugins.transforms.onnx_static_int8 import OnnxStaticInt8
from tuner.tables import read_tables
from tuner.tensors import TensorSpec
from tuner.testing.networks import IMAGE, Patterns, Shelf
from tuner.testing.workbench import applied, need

LAYERS = {"first", "second", "third"}


Layers = dict[str, np.ndarray[Any, Any]]


def _three(kind: str, layers: Layers, folder: Path) -> Model:
    """Three layers in a row. A Gemm has a bias, too, which is quantized by another rule."""
    rank = 2 if "row" in kind else 1
    nodes = [helper.make_node("Flatten", ["image"], ["flat"], "flatten")]
    flowing = "flat"
    for name in layers:
        taken = [flowing, f"{name}_weights", f"{name}_bias"][: 2 if kind == "MatMul" else 3]
        nodes.append(helper.make_node(kind.split()[0], taken, [f"{name}_out"], name))
        flowing = f"{name}_out"
    graph = helper.make_graph(
        nodes,
        "three",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("third_out", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(array.astype(np.float32), f"{name}_weights") for name, array in layers.items()]
        + [
            numpy_helper.from_array(np.ones((1, a.shape[1])[-rank:], np.float32), f"{name}_bias")
            for name, a in layers.items()
        ],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(proto, folder / ONNX.file)
    return Model(ONNX, folder, (TensorSpec("image", (1, 8, 8), "float32"),))


@pytest.fixture(params=["MatMul", "Gemm", "Gemm with a matrix of one row"])
def uneven(request: pytest.FixtureRequest, tmp_path: Path) -> Model:
    """The first layer adds to all channels the same, a hundred times as large, and the second takes it away again: no
    scale and no rounding makes up for it."""
    random = np.random.default_rng(0)
    second = random.normal(size=(16, 16))
    layers = {
        "first": random.normal(size=(64, 16)) + 100 * random.normal(size=(64, 1)),
        "second": second - second.mean(0),
        "third": random.normal(size=(16, 4)),
    }
    (folder := tmp_path / "uneven").mkdir()
    return _three(request.param, layers, folder)


@pytest.fixture(params=["MatMul", "Gemm"])
def outlying(request: pytest.FixtureRequest, tmp_path: Path) -> Model:
    """The first layer makes one channel a hundred times as large, the second makes it small again."""
    random, scale = np.random.default_rng(0), np.array([100.0] + [1.0] * 15)
    layers = {
        "first": random.normal(size=(64, 16)) * scale,
        "second": random.normal(size=(16, 16)) / scale[:, None],
        "third": random.normal(size=(16, 4)),
    }
    (folder := tmp_path / "outlying").mkdir()
    return _three(request.param, layers, folder)


def _error(model: Model, quantized: Model) -> float:
    images = Patterns().load("evaluation").inputs
    (right,), (mine,) = (
        onnxruntime.InferenceSession(which.path, providers=["CPUExecutionProvider"]).run(None, images)
        for which in (model, quantized)
    )
    return float(np.linalg.norm(mine - right) / np.linalg.norm(right - right.mean(0)))


def _in_float(quantized: Model) -> set[str]:
    """The layers that are given what no DequantizeLinear made."""
    graph = onnx.load(quantized.path).graph
    dequantized = {output for node in graph.node if node.op_type == "DequantizeLinear" for output in node.output}
    return {node.name for node in graph.node if node.name in LAYERS and node.input[0] not in dequantized}


def test_the_layers_that_do_most_harm_stay_in_float(uneven: Model, tmp_path: Path) -> None:
    for name in ("all", "careful"):
        (tmp_path / name).mkdir()
    everything = applied(OnnxStaticInt8(), uneven, tmp_path / "all")
    careful = applied(OnnxStaticInt8(max_error=0.1), uneven, tmp_path / "careful")
    assert _error(uneven, everything) > 0.2
    assert _error(uneven, careful) < 0.15
    assert _in_float(everything) == set()
    assert _in_float(careful) == {"first", "second"}


def test_what_is_near_enough_is_quantized_throughout(uneven: Model, tmp_path: Path) -> None:
    assert _in_float(applied(OnnxStaticInt8(max_error=0.99), uneven, tmp_path)) == set()


def test_where_no_layer_bears_int8_the_candidate_is_none(uneven: Model, tmp_path: Path) -> None:
    with pytest.raises(CandidateError, match=r"one layer alone has an error above 0\.001"):
        applied(OnnxStaticInt8(max_error=1e-3), uneven, tmp_path)


def _tried(folder: Path) -> dict[str, float]:
    """The errors that the table of the ladder tells, of what has no layer in float."""
    (table,) = read_tables(folder / "stage0")
    return {str(told): float(error) for told, error, in_float in table.rows if in_float == 0 and error is not None}


def test_smooth_quant_moves_outliers_of_activations_into_weights(outlying: Model, tmp_path: Path) -> None:
    careful = applied(OnnxStaticInt8(max_error=0.1), outlying, tmp_path)
    tried = _tried(tmp_path)
    smooth = next(error for told, error in tried.items() if "SmoothQuant" in told)
    assert smooth <= 0.1 < 0.3 < min(error for told, error in tried.items() if "SmoothQuant" not in told)
    assert _error(outlying, careful) < 0.15
    assert _in_float(careful) == set()


@pytest.fixture(scope="module")
def attending(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A network with attention."""

    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.last = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(64, 4)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            rows = image[:, 0]
            scores = self.query(rows) @ self.key(rows).transpose(1, 2)
            return self.last((torch.softmax(scores / 8**0.5, 2) @ rows).flatten(1))

    torch.manual_seed(0)
    return Shelf.of(Attending(), IMAGE, tmp_path_factory.mktemp("attending") / "net").take([ONNX])


def _quantized(transform: NncfInt8, model: Model, folder: Path) -> tuple[int, Model]:
    """How many tensors are quantized, and the model."""
    import openvino

    folder.mkdir()
    quantized = applied(transform, model, folder)
    graph = openvino.Core().read_model(quantized.path)
    return sum(node.get_type_name() == "FakeQuantize" for node in graph.get_ops()), quantized


def test_nncf_is_told_of_attention(attending: Model, uneven: Model, tmp_path: Path) -> None:
    need(NncfInt8())
    for model, is_transformer in ((attending, True), (uneven, False)):
        counts = {
            transformer: _quantized(
                NncfInt8(transformer=transformer), model, tmp_path / f"{is_transformer}{transformer}"
            )[0]
            for transformer in (None, True, False)
        }
        assert counts[None] == counts[is_transformer]
        if is_transformer:
            assert counts[True] != counts[False]


def test_nncf_leaves_in_float_what_does_most_harm(outlying: Model, tmp_path: Path) -> None:
    need(NncfInt8())
    everything, _ = _quantized(NncfInt8(), outlying, tmp_path / "all")
    some, _ = _quantized(NncfInt8(max_error=0.1), outlying, tmp_path / "careful")
    assert 0 < some < everything
