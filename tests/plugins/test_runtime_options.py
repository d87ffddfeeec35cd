"""The options of ONNX Runtime and OpenVINO reach their sessions, and change no answer."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx.reference
import pytest

from tests import graphs
from tuner.errors import RequestError
from tuner.forms.onnx import ONNX
from tuner.model import Model
from tuner.plugin import Backend, Session
from tuner.plugins.backends.onnxruntime import OnnxRuntime
from tuner.plugins.backends.openvino import OpenVINO
from tuner.system.loader import build
from tuner.target import Target
from tuner.tensors import TensorSpec
from tuner.testing.workbench import need

FOUR = Target("cpu", "cpu", threads=4)
SPECS = (TensorSpec("x", (3, 8, 8), "float32"),)
BATCH = {"x": np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)}


def compiled(backend: Backend, folder: Path) -> tuple[Session, dict[str, Any]]:
    """Its session, and what its plain loader, which needs nothing of the tuner, leaves behind."""
    need(backend)
    model = folder / "model"
    for place in (model, out := folder / "out", cache := folder / "cache"):
        place.mkdir()
    onnx.save(graphs.images(), str(model / ONNX.file))
    backend.compile(Model(ONNX, model, SPECS), 2, FOUR, out, cache)
    scope: dict[str, Any] = {"files": out}
    exec(backend.loader(SPECS, 2, FOUR) or "", scope)
    return backend.load(out, SPECS, 2, FOUR), scope


@pytest.mark.parametrize(
    ("options", "label", "set_to"),
    [
        ({}, "onnxruntime", {"intra_op_num_threads": 4, "enable_cpu_mem_arena": True}),
        ({"threads": 1}, "onnxruntime-1t", {"intra_op_num_threads": 1}),
        ({"threads": 9}, "onnxruntime-9t", {"intra_op_num_threads": 4}),
        ({"parallel": True}, "onnxruntime-par", {"inter_op_num_threads": 4, "intra_op_num_threads": 1}),
        ({"parallel": True, "threads": 2}, "onnxruntime-par-2t", {"inter_op_num_threads": 2}),
        ({"arena": False, "spinning": False}, "onnxruntime-noarena-nospin", {"enable_cpu_mem_arena": False}),
        ({"graph": "basic"}, "onnxruntime-g1", {"graph_optimization_level": 1}),
    ],
)
def test_of_onnxruntime(options: dict[str, Any], label: str, set_to: dict[str, Any], tmp_path: Path) -> None:
    backend = replace(OnnxRuntime(), **options)
    session, scope = compiled(backend, tmp_path)
    assert backend.label == label
    found = scope["session"].get_session_options()
    assert {name: int(getattr(found, name)) for name in set_to} == {name: int(value) for name, value in set_to.items()}
    expected = onnx.reference.ReferenceEvaluator(graphs.images()).run(None, BATCH)
    np.testing.assert_allclose(session.run(BATCH)[0], expected[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(scope["run"](BATCH)[0], session.run(BATCH)[0])


@pytest.mark.parametrize(
    ("options", "label", "set_to"),
    [
        ({}, "openvino", {"NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": "4"}),
        ({"threads": 1}, "openvino-1t", {"INFERENCE_NUM_THREADS": "1"}),
        ({"threads": 9}, "openvino-9t", {"INFERENCE_NUM_THREADS": "4"}),
        ({"hint": "throughput"}, "openvino-throughput", {"PERFORMANCE_HINT": "THROUGHPUT"}),
        ({"pinning": False}, "openvino-unpinned", {"ENABLE_CPU_PINNING": "NO"}),
    ],
)
def test_of_openvino(options: dict[str, Any], label: str, set_to: dict[str, str], tmp_path: Path) -> None:
    backend = replace(OpenVINO(), **options)
    session, scope = compiled(backend, tmp_path)
    assert backend.label == label
    assert set_to.items() <= scope["config"].items()
    expected = onnx.reference.ReferenceEvaluator(graphs.images()).run(None, BATCH)
    np.testing.assert_allclose(session.run(BATCH)[0], expected[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(scope["run"](BATCH)[0], session.run(BATCH)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", ["onnxruntime.OnnxRuntime", "openvino.OpenVINO"])
def test_no_thread_is_refused(backend: str) -> None:
    spec = {"_target_": f"tuner.plugins.backends.{backend}", "threads": 0}
    with pytest.raises(RequestError, match="threads"):
        build(spec, Backend, "search_space")
