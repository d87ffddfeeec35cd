"""The ONNX form: how a user's own graph is let in, and what is refused with which mend."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from tuner.errors import CandidateError, RequestError
from tuner.forms import onnx as onnx_form
from tuner.forms.onnx import ONNX
from tuner.testing.networks import CLASSES, IMAGE, Shelf, trained
from tuner.testing.workbench import loaded, runner
from tuner.workload import Model, TensorSpec


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network as an ONNX file."""
    return Shelf.of(trained(), IMAGE, tmp_path_factory.mktemp("net") / "net").take((ONNX,)).path


def _edited(path: Path, edit: Any) -> bytes:
    proto = onnx.load(str(path))
    edit(proto.graph)
    return bytes(proto.SerializeToString())


def _fix_batch(graph: Any) -> None:
    for value in [*graph.input, *graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = 1


def _flatten_to_one(graph: Any) -> None:
    """As exporters leave a graph written for a batch of one: a constant shape in its middle."""
    _fix_batch(graph)
    reshape = next(node for node in graph.node if node.op_type in ("Reshape", "Flatten"))
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 512]), "to_one"))
    reshape.CopyFrom(onnx.helper.make_node("Reshape", [reshape.input[0], "to_one"], list(reshape.output)))


def test_a_fixed_batch_is_freed_and_external_data_drawn_in(graph: Path, tmp_path: Path) -> None:
    proto = onnx.load_from_string(_edited(graph, _fix_batch))
    onnx.save(proto, str(tmp_path / "user.onnx"), save_as_external_data=True, size_threshold=0, location="weights")
    (tmp_path / "out").mkdir()
    onnx_form.copy_checked(tmp_path / "user.onnx", tmp_path / "out/model.onnx")
    assert onnx_form.graph_inputs(tmp_path / "out/model.onnx") == (onnx_form.GraphInput("image", (1, 8, 8), "float32"),)
    session = loaded(runner(ONNX), Model(ONNX, tmp_path / "out", IMAGE), 3, tmp_path)
    assert session.run({"image": np.zeros((3, 1, 8, 8), np.float32)})[0].shape == (3, CLASSES)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "no such file"),
        (lambda path: b"not a graph", "not a valid ONNX model"),
        (lambda path: path.read_bytes()[:200], "not a valid ONNX model"),
        (lambda path: _edited(path, _flatten_to_one), "dynamic first axis"),
        (lambda path: _edited(path, lambda graph: graph.output[0].type.tensor_type.shape.ClearField("dim")), "scalar"),
    ],
)
def test_a_users_graph_is_refused_with_the_mend(content: Any, complaint: str, graph: Path, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "user.onnx").write_bytes(content(graph))
    with pytest.raises(RequestError, match=complaint) as caught:
        onnx_form.copy_checked(tmp_path / "user.onnx", tmp_path / "model.onnx")
    assert str(caught.value).startswith("model.path=")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        (TensorSpec("picture", (1, 8, 8), "float32"), "picture"),
        (TensorSpec("image", (1, 8, 8), "float64"), "float64"),
        (TensorSpec("image", (1, 9, 8), "float32"), "9"),
        (TensorSpec("image", (64,), "float32"), "64"),
    ],
)
def test_samples_that_do_not_fit_the_graph_are_refused(spec: TensorSpec, complaint: str, graph: Path) -> None:
    onnx_form.check_inputs(graph, IMAGE)
    with pytest.raises(RequestError, match=complaint):
        onnx_form.check_inputs(graph, (spec,))


class _Branch(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


class _Sum(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum()


class _Eigen(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvals(x).real


@pytest.mark.parametrize(("kind", "complaint"), [(_Branch, "data-dependent"), (_Sum, "batch"), (_Eigen, "eig")])
def test_what_torch_cannot_export_is_named(kind: type[torch.nn.Module], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(CandidateError, match=complaint) as caught:
        Shelf.of(kind(), IMAGE, tmp_path / "net").take((ONNX,))
    assert caught.value.kind == "unsupported_op"
    assert "\n" not in caught.value.sentence
