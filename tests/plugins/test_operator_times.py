"""Backends whose runtimes tell where the time of a call goes."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from tuner.forms.onnx import ONNX
from tuner.model import Model
from tuner.operators import OperatorTime
from tuner.plugin import Backend, Transform
from tuner.plugins.backends.onnxruntime import OnnxRuntime
from tuner.plugins.backends.openvino import OpenVINO
from tuner.plugins.backends.tvm import TVM
from tuner.plugins.transforms.nncf_int8 import NncfInt8
from tuner.plugins.transforms.onnx_static_int8 import OnnxStaticInt8
from tuner.testing.networks import IMAGE, Shelf
from tuner.testing.workbench import TARGET, applied, loaded, need


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Model:
    layers = (nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Flatten())
    return Shelf.of(nn.Sequential(*layers, nn.Linear(512, 10)), IMAGE, tmp_path_factory.mktemp("network") / "net").take(
        [ONNX]
    )


def kernels(network: Model, folder: Path) -> list[OperatorTime]:
    loaded(TVM(), network, 2, folder)
    batch = {"image": np.zeros((2, 1, 8, 8), np.float32)}
    return TVM().operator_times(folder / "artifact", network.inputs, TARGET, batch)


def test_tvm_tells_each_kernel_by_what_is_fused_in_it(network: Model, tmp_path: Path) -> None:
    need(TVM())
    with ProcessPoolExecutor(1, get_context("spawn")) as process:  # it installs signal handlers
        times = process.submit(kernels, network, tmp_path).result()
    layers = [time for time in times if time.kind == "layer"]
    assert len(layers) == 3 and all("conv2d" in layer.name for layer in layers[:2])
    assert {time.computes_in for time in layers} == {"f32"}
    assert all(time.ms > 0 for time in times)


@pytest.mark.parametrize(("backend", "transform"), [(OnnxRuntime(), OnnxStaticInt8()), (OpenVINO(), NncfInt8())])
def test_every_layer_is_told_in_its_order_with_its_arithmetic(
    backend: Backend, transform: Transform, network: Model, tmp_path: Path
) -> None:
    need(backend)
    need(transform)
    (tmp_path / "quantized").mkdir()
    computed = {}
    for name, model in {"float": network, "int8": applied(transform, network, tmp_path / "quantized")}.items():
        (tmp_path / name).mkdir()
        loaded(backend, model, 2, tmp_path / name)
        batch = {"image": np.random.default_rng(0).normal(size=(2, 1, 8, 8)).astype(np.float32)}
        times = backend.operator_times(tmp_path / name / "artifact", model.inputs, TARGET, batch)
        assert all(time.ms >= 0 for time in times)
        computed[name] = [time.computes_in for time in times if time.kind == "layer"]
    assert computed["float"] == ["f32"] * 3
    assert len(computed["int8"]) == 3
    assert "int8" in computed["int8"]
