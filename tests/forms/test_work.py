"""The work of small graphs against arithmetic by hand, and of a network from torch against torch's own counter."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tuner.forms.onnx import ONNX
from tuner.forms.torch import TORCH
from tuner.model import Model, Work
from tuner.tensors import TensorSpec

IMAGE = (TensorSpec("x", (3, 8, 8), "float32"),)
ROW = (TensorSpec("x", (5,), "float32"),)


def saved(
    folder: Path, nodes: list[Any], constants: dict[str, Any], inputs: tuple[TensorSpec, ...], dtype: str = "FLOAT"
) -> Model:
    """An ONNX model whose output is `y`, of that type and of a shape it does not declare."""
    from onnx import TensorProto, helper, numpy_helper, save

    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info(s.name, helper.np_dtype_to_tensor_dtype(np.dtype(s.dtype)), ["n", *s.shape])
            for s in inputs
        ],
        [helper.make_tensor_value_info("y", getattr(TensorProto, dtype), None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(folder / ONNX.file))
    return Model(ONNX, folder, inputs)


def node(*args: Any, **kwargs: Any) -> Any:
    from onnx import helper

    return helper.make_node(*args, **kwargs)


def f32(*shape: int) -> Any:
    return np.zeros(shape, np.float32)


def s8(*shape: int) -> Any:
    return np.zeros(shape, np.int8)


def test_convolution(tmp_path: Path) -> None:
    """Stride 2, 3 -> 4 channels of 4x4, kernel 3x3; its bias and the activation are not counted."""
    nodes = [node("Conv", ["x", "w", "b"], ["c"], strides=[2, 2], pads=[1, 1, 1, 1]), node("Relu", ["c"], ["y"])]
    model = saved(tmp_path, nodes, {"w": f32(4, 3, 3, 3), "b": f32(4)}, IMAGE)
    assert ONNX.work(model) == Work(
        flops=2 * (4 * 4 * 4) * (3 * 9), weights=112, weight_bytes=448, activation_bytes=4 * (3 * 64 + 4 * 16)
    )


@pytest.mark.parametrize(
    ("nodes", "constants", "inputs", "dtype", "flops"),
    [
        ([node("Conv", ["x", "w"], ["y"], group=3)], {"w": f32(6, 1, 3, 3)}, IMAGE, "FLOAT", 2 * 6 * 36 * 9),
        # every one of 8x8 inputs of 3 channels meets 2 filters of 2x2
        (
            [node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2])],
            {"w": f32(3, 2, 2, 2)},
            IMAGE,
            "FLOAT",
            2 * 3 * 64 * 2 * 4,
        ),
        ([node("Gemm", ["x", "w", "b"], ["y"], transB=1)], {"w": f32(7, 5), "b": f32(7)}, ROW, "FLOAT", 2 * 7 * 5),
        ([node("MatMul", ["x", "w"], ["y"])], {"w": f32(8, 4)}, IMAGE, "FLOAT", 2 * 3 * 8 * 4 * 8),
        (  # both factors are the model's own, as in attention
            [node("Transpose", ["x"], ["t"], perm=[0, 1, 3, 2]), node("MatMul", ["x", "t"], ["y"])],
            {},
            IMAGE,
            "FLOAT",
            2 * 3 * 8 * 8 * 8,
        ),
        (
            [node("MatMulInteger", ["x", "w"], ["y"])],
            {"w": s8(5, 7)},
            (TensorSpec("x", (5,), "uint8"),),
            "INT32",
            2 * 7 * 5,
        ),
        (
            [node("ConvInteger", ["x", "w"], ["y"])],
            {"w": s8(4, 3, 3, 3)},
            (TensorSpec("x", (3, 8, 8), "uint8"),),
            "INT32",
            2 * 4 * 36 * 27,
        ),
        (
            [node("QLinearConv", ["x", "s", "z", "w", "s", "z8", "s", "z"], ["y"])],
            {"w": s8(4, 3, 3, 3), "s": np.float32(1), "z": np.uint8(0), "z8": np.int8(0)},
            (TensorSpec("x", (3, 8, 8), "uint8"),),
            "UINT8",
            2 * 4 * 36 * 27,
        ),
        (
            [node("QLinearMatMul", ["x", "s", "z", "w", "s", "z8", "s", "z"], ["y"])],
            {"w": s8(5, 7), "s": np.float32(1), "z": np.uint8(0), "z8": np.int8(0)},
            (TensorSpec("x", (5,), "uint8"),),
            "UINT8",
            2 * 7 * 5,
        ),
    ],
    ids=lambda value: value[-1].op_type if isinstance(value, list) else "",
)
def test_counted(
    tmp_path: Path, nodes: list[Any], constants: dict[str, Any], inputs: Any, dtype: str, flops: int
) -> None:
    found = ONNX.work(saved(tmp_path, nodes, constants, inputs, dtype))
    assert found is not None
    assert found.flops == flops


def test_a_table_that_is_looked_up_and_multiplied_by_is_read_as_a_whole(tmp_path: Path) -> None:
    """As tied embeddings are: 7 words of 5 numbers, of which a product takes all."""
    nodes = [
        node("Gather", ["words", "x"], ["h"]), node("Transpose", ["words"], ["t"], perm=[1, 0]),
        node("MatMul", ["h", "t"], ["y"]),
    ]  # fmt: skip
    word = (TensorSpec("x", (), "int64"),)
    work = ONNX.work(saved(tmp_path, nodes, {"words": f32(7, 5)}, word))
    assert work is not None and work.weights == 35
    work = ONNX.work(saved(tmp_path, [node("Gather", ["words", "x"], ["y"])], {"words": f32(7, 5)}, word))
    assert work is not None and work.weights == 0


def test_int8_weights_take_a_byte_each(tmp_path: Path) -> None:
    nodes = [node("DequantizeLinear", ["q", "s"], ["w"]), node("MatMul", ["x", "w"], ["y"])]
    found = ONNX.work(saved(tmp_path, nodes, {"q": s8(5, 7), "s": np.float32(1)}, ROW))
    assert found == Work(flops=70, weights=36, weight_bytes=35 + 4, activation_bytes=4 * (5 + 7))


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([node("Einsum", ["x", "w"], ["y"], equation="nk,km->nm")], {"w": f32(5, 7)}),
        ([node("FusedMatMul", ["x", "w"], ["y"], domain="com.microsoft")], {"w": f32(5, 7)}),
        (
            [node("NonZero", ["x"], ["i"]), node("Cast", ["i"], ["f"], to=1), node("MatMul", ["f", "w"], ["y"])],
            {"w": f32(2, 2)},
        ),
    ],
    ids=["product not counted", "foreign operator", "shape unknown"],
)
def test_nothing_rather_than_too_little(tmp_path: Path, nodes: list[Any], constants: dict[str, Any]) -> None:
    assert ONNX.work(saved(tmp_path, nodes, constants, ROW)) is None


def test_agrees_with_torch(tmp_path: Path) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from tuner.plugins.conversions.torch_to_onnx import TorchToOnnx
    from tuner.plugins.models.digits_networks import SmallCnn

    module = SmallCnn().eval()
    torch.save(module, tmp_path / "model.pt")
    inputs = (TensorSpec("x", (1, 8, 8), "float32"),)
    TorchToOnnx().convert(Model(TORCH, tmp_path, inputs), tmp_path)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        module(torch.zeros(1, 1, 8, 8))

    found = ONNX.work(Model(ONNX, tmp_path, inputs))
    assert found is not None
    assert found.flops == counter.get_total_flops()
    assert found.activation_bytes == 4 * (64 + 10)
    parameters = sum(p.numel() for p in module.parameters())
    assert found.weights == pytest.approx(parameters, rel=0.02)  # the exporter may fold normalisations in
    assert found.weight_bytes == pytest.approx(4 * parameters, rel=0.02)
