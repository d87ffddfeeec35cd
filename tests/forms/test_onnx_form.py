"""The ONNX form: how a user's own graph is let in, and what is refused with which mend."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from tuner.artifact import Artifact
from tuner.candidate import Candidate
from tuner.dataset import ArraySamples
from tuner.errors import CandidateError, RequestError
from tuner.forms import onnx as onnx_form
from tuner.forms import onnx_entry
from tuner.forms.onnx import ONNX, declared
from tuner.forms.onnx_read import require_usable
from tuner.model import Model
from tuner.plugin import Backend
from tuner.plugins.backends.iree import IREE
from tuner.plugins.backends.onnxruntime import OnnxRuntime
from tuner.plugins.backends.openvino import OpenVINO
from tuner.plugins.models.onnx_file import OnnxModel
from tuner.request.compose import request
from tuner.tensors import TensorSpec
from tuner.testing import networks
from tuner.testing.networks import CLASSES, IMAGE, Patterns, Shelf, trained
from tuner.testing.workbench import TARGET, loaded, need, runner


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


def let_in(user: Path, samples: ArraySamples, out: Path, **declared: int) -> Model:
    """The user's graph as a study has it."""
    out.mkdir()
    onnx_entry.let_in(user, out / ONNX.file, samples, declared)
    specs = tuple(TensorSpec(n, value.shape, value.dtype.name) for n, value in samples[0][0].items())
    model = ONNX.described(Model(ONNX, out, specs), samples)
    ONNX.check(model)
    return model


_RUNNER = OnnxRuntime()


def answers(model: Model, samples: ArraySamples, folder: Path, size: int = 4, backend: Backend = _RUNNER) -> list[Any]:
    """What an artifact of that batch size answers to the first samples, samples first."""
    session = loaded(backend, model, size, folder)
    deployed = Artifact(Candidate((), backend, size), TARGET, model.inputs, session, model.outputs)
    return deployed.answer({name: array[:size] for name, array in samples.inputs.items()})


def images(count: int = 12) -> ArraySamples:
    return ArraySamples({"image": Patterns().load("evaluation").inputs["image"][:count]}, np.arange(count))


def test_a_fixed_batch_is_freed_and_external_data_drawn_in(graph: Path, tmp_path: Path) -> None:
    proto = onnx.load_from_string(_edited(graph, _fix_batch))
    onnx.save(proto, str(tmp_path / "user.onnx"), save_as_external_data=True, size_threshold=0, location="weights")
    model = let_in(tmp_path / "user.onnx", images(), tmp_path / "out")
    assert [path.name for path in model.directory.iterdir()] == [ONNX.file]
    assert (model.inputs, model.outputs, model.batch_size) == (IMAGE, (0,), None)
    assert answers(model, images(), tmp_path, 3)[0].shape == (3, CLASSES)


@pytest.mark.parametrize("edit", [_fix_batch, _flatten_to_one])
def test_a_graph_for_one_batch_size_is_freed_where_its_answers_stay(edit: Any, graph: Path, tmp_path: Path) -> None:
    (tmp_path / "user.onnx").write_bytes(_edited(graph, edit))
    model = let_in(tmp_path / "user.onnx", images(), tmp_path / "out")
    assert model.batch_size is None
    expected = networks.answers(trained(), {"image": images().inputs["image"][:4]}).numpy()
    np.testing.assert_allclose(answers(model, images(), tmp_path)[0], expected, rtol=1e-3, atol=1e-3)


def user_graph(path: Path, nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, Any], **weights: Any) -> Path:
    """A graph of float32 inputs and outputs with those axes, as somebody exported it."""
    make = onnx.helper.make_tensor_value_info
    declared = [[make(n, onnx.TensorProto.FLOAT, dims) for n, dims in each.items()] for each in (inputs, outputs)]
    constants = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    opset = [onnx.helper.make_opsetid("", 17)]
    proto = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "user", *declared, constants), opset_imports=opset, ir_version=8
    )
    onnx.save(proto, str(path))
    return path


def recurrent(path: Path, batch: Any, state: str = "h0") -> Path:
    """torch.nn.GRU as it is: time first, the batch on axis 1, a state in and out."""
    rng = np.random.default_rng(0)
    w, r, b = (rng.normal(size=size).astype("f4") for size in ((1, 12, 3), (1, 12, 4), (1, 24)))
    nodes = [
        onnx.helper.make_node("GRU", ["x", "w", "r", "b", "", state], ["all", "hn"], hidden_size=4),
        onnx.helper.make_node("Squeeze", ["all", "one"], ["y"]),
    ]
    inputs = {"x": [5, batch, 3], "h0": [1, batch, 4]}
    outputs = {"y": [5, batch, 4], "hn": [1, batch, 4]}
    return user_graph(path, nodes, inputs, outputs, w=w, r=r, b=b, one=np.array([1]))


def sequences(count: int = 12) -> ArraySamples:
    rng = np.random.default_rng(1)
    inputs = {"x": rng.normal(size=(count, 5, 3)).astype("f4"), "h0": rng.normal(size=(count, 1, 4)).astype("f4")}
    return ArraySamples(inputs, np.arange(count))


@pytest.mark.parametrize("batch", ["batch", "anything", 1, 5])
def test_a_batch_axis_that_is_not_the_first_is_found_by_trying(batch: Any, tmp_path: Path) -> None:
    samples = sequences()
    model = let_in(recurrent(tmp_path / "user.onnx", batch), samples, tmp_path / "out")
    assert [spec.batch_axis for spec in model.inputs] == [1, 1]
    assert (model.outputs, model.batch_size) == ((1, 1), None)
    y, hn = answers(model, samples, tmp_path)
    (tmp_path / "alone").mkdir()
    alone = answers(model, samples, tmp_path / "alone", 1)
    assert (y.shape, hn.shape) == ((4, 5, 4), (4, 1, 4))
    np.testing.assert_allclose(y[:1], alone[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(y[2, -1], hn[2, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", [IREE(), OpenVINO(), OnnxRuntime()], ids=lambda backend: backend.label)
def test_answers_are_the_callers_when_the_session_is_gone(backend: Backend, tmp_path: Path) -> None:
    need(backend)
    samples = sequences()
    model = let_in(recurrent(tmp_path / "user.onnx", "batch"), samples, tmp_path / "out")
    folders = [tmp_path / str(number) for number in range(8)]
    for folder in folders:
        folder.mkdir()
    # each session takes memory that is free again
    answered = [answers(model, samples, folder, 4 - number % 4, backend) for number, folder in enumerate(folders)]
    for y, hn in answered:
        np.testing.assert_allclose(y[0], answered[-1][0][0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(y[:, -1], hn[:, 0], rtol=1e-4, atol=1e-5)


def test_a_batch_axis_that_is_declared_wrongly_is_refused(tmp_path: Path) -> None:
    user = recurrent(tmp_path / "user.onnx", "batch")
    with pytest.raises(RequestError, match=r"model.inputs.h0.batch_axis=2: .* may be axis \[1, 0\]"):
        let_in(user, sequences(), tmp_path / "out", h0=2)
    with pytest.raises(RequestError, match=r"model.inputs.x.batch_axis=2: .* may be axis \[1\]"):
        let_in(user, sequences(), tmp_path / "other", x=2)
    with pytest.raises(RequestError, match=r"model.inputs.h1: the model has no such input"):
        let_in(user, sequences(), tmp_path / "again", h1=1)


def test_an_axis_along_which_samples_change_one_another_is_no_batch(tmp_path: Path) -> None:
    """Time, though it is the first axis and free."""
    node = onnx.helper.make_node("CumSum", ["x", "axis"], ["y"])
    user = user_graph(tmp_path / "user.onnx", [node], {"x": ["T", 3]}, {"y": ["T", 3]}, axis=np.array(0))
    rows = ArraySamples({"x": np.random.default_rng(0).normal(size=(9, 3)).astype("f4")}, np.arange(9))
    model = let_in(user, rows, tmp_path / "out")
    assert model.batch_size == 1
    assert "change one another" in model.fixed
    whole = ArraySamples({"x": np.random.default_rng(0).normal(size=(9, 5, 3)).astype("f4")}, np.arange(9))
    model = let_in(user, whole, tmp_path / "whole")
    assert (model.batch_size, model.inputs[0].batch_axis) == (1, None)
    (y,) = answers(model, whole, tmp_path, 1)
    np.testing.assert_allclose(y, whole.inputs["x"][0].cumsum(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("over", [{"y": [4, 3]}, {"y": [1, 3]}])
def test_a_graph_whose_samples_influence_each_other_is_refused(over: dict[str, Any], tmp_path: Path) -> None:
    """Whatever their order: less the mean of the batch, or that mean itself."""
    mean = onnx.helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0])
    node = onnx.helper.make_node("Sub", ["x", "mean"], ["y"])
    if over["y"] == [1, 3]:
        node = onnx.helper.make_node("Identity", ["mean"], ["y"])
    user = user_graph(tmp_path / "user.onnx", [mean, node], {"x": [4, 3]}, over)
    rows = ArraySamples({"x": np.random.default_rng(0).normal(size=(9, 3)).astype("f4")}, np.arange(9))
    with pytest.raises(RequestError, match=r"user\.onnx: the samples of one batch influence each other"):
        let_in(user, rows, tmp_path / "out")


def test_a_graph_of_one_batch_size_whose_samples_are_each_answered_alone_is_taken(tmp_path: Path) -> None:
    nodes = [
        onnx.helper.make_node("Reshape", ["x", "four"], ["rows"]),
        onnx.helper.make_node("Split", ["rows"], list("abcd"), axis=0),
        onnx.helper.make_node("Concat", list("abcd"), ["y"], axis=0),
    ]
    user = user_graph(tmp_path / "user.onnx", nodes, {"x": [4, 3]}, {"y": [4, 3]}, four=np.array([4, 3]))
    rows = ArraySamples({"x": np.random.default_rng(0).normal(size=(9, 3)).astype("f4")}, np.arange(9))
    model = let_in(user, rows, tmp_path / "out")
    assert (model.batch_size, model.outputs) == (4, (0,))


def test_an_output_without_a_batch_axis_is_kept_as_it_is(tmp_path: Path) -> None:
    nodes = [
        onnx.helper.make_node("Add", ["x", "grid"], ["y"]),
        onnx.helper.make_node("Identity", ["grid"], ["anchors"]),
    ]
    outputs = {"y": ["n", 3], "anchors": [3]}
    grid = np.arange(3, dtype="f4")
    user = user_graph(tmp_path / "user.onnx", nodes, {"x": ["n", 3]}, outputs, grid=grid)
    rows = ArraySamples({"x": np.random.default_rng(0).normal(size=(9, 3)).astype("f4")}, np.arange(9))
    model = let_in(user, rows, tmp_path / "out")
    assert (model.outputs, model.batch_size) == ((0, None), None)
    y, anchors = answers(model, rows, tmp_path)
    np.testing.assert_allclose(y, rows.inputs["x"][:4] + grid)
    np.testing.assert_array_equal(anchors, grid)


@pytest.mark.parametrize(("rates", "size"), [([8000.0] * 9, None), ([8000.0] * 8 + [16000.0], 1)])
def test_an_input_without_a_batch_is_shared_where_it_is_the_same_for_all(
    rates: list[float], size: int | None, tmp_path: Path
) -> None:
    """The sampling rate of a voice detector."""
    node = onnx.helper.make_node("Mul", ["x", "rate"], ["y"])
    user = user_graph(tmp_path / "user.onnx", [node], {"x": ["n", 3], "rate": []}, {"y": ["n", 3]})
    x = np.random.default_rng(0).normal(size=(9, 3)).astype("f4")
    samples = ArraySamples({"x": x, "rate": np.array(rates, "f4")}, np.arange(9))
    model = let_in(user, samples, tmp_path / "out")
    assert [spec.batch_axis for spec in model.inputs] == [0, None]
    assert (model.outputs, model.batch_size) == ((0,), size)
    session = loaded(runner(ONNX), model, size or 4, tmp_path)
    deployed = Artifact(Candidate((), runner(ONNX), size or 4), TARGET, model.inputs, session, model.outputs)
    (y,) = deployed.run({"x": x[: size or 3], "rate": np.array(2, "f4")})
    np.testing.assert_allclose(y, 2 * x[: size or 3])


def test_detections_as_many_as_there_are_come_whole_one_sample_at_a_time(tmp_path: Path) -> None:
    """What a graph with its non-maximum suppression inside gives."""
    nodes = [
        onnx.helper.make_node("Greater", ["x", "zero"], ["above"]),
        onnx.helper.make_node("NonZero", ["above"], ["places"]),
        onnx.helper.make_node("Transpose", ["places"], ["rows"]),
        onnx.helper.make_node("Cast", ["rows"], ["y"], to=onnx.TensorProto.FLOAT),
    ]
    user = user_graph(tmp_path / "user.onnx", nodes, {"x": ["n", 6]}, {"y": ["found", 2]}, zero=np.float32(0))
    rows = ArraySamples({"x": np.random.default_rng(3).normal(size=(9, 6)).astype("f4")}, np.arange(9))
    model = let_in(user, rows, tmp_path / "out")
    assert (model.batch_size, model.outputs) == (1, (None,))
    session = loaded(runner(ONNX), model, 1, tmp_path)
    deployed = Artifact(Candidate((), runner(ONNX), 1), TARGET, model.inputs, session, model.outputs)
    for row in rows.inputs["x"]:
        assert len(deployed.run({"x": row[None]})[0]) == (row > 0).sum()


@pytest.mark.parametrize("batch", ["n", -1])  # the latter as Paddle exports it
def test_an_old_opset_is_raised_to_what_quantizers_take(batch: str | int, tmp_path: Path) -> None:
    node = onnx.helper.make_node("Softmax", ["x"], ["y"], axis=1)  # it means something else since opset 13
    user = user_graph(tmp_path / "user.onnx", [node], {"x": [batch, 2, 3]}, {"y": [batch, 2, 3]})
    proto = onnx.load(str(user))
    proto.opset_import[0].version = 11
    onnx.save(proto, str(user))
    rows = ArraySamples({"x": np.random.default_rng(0).normal(size=(9, 2, 3)).astype("f4")}, np.arange(9))
    model = let_in(user, rows, tmp_path / "out")
    assert onnx.load(str(model.path)).opset_import[0].version >= 13
    (y,) = answers(model, rows, tmp_path)
    np.testing.assert_allclose(y.sum((1, 2)), 1, rtol=1e-4)


def _first_value(graph: Any) -> Any:
    return graph.input[0].type.tensor_type


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "no such file"),
        (lambda path: b"not a graph", "not a valid ONNX model"),
        (lambda path: path.read_bytes()[:200], "not a valid ONNX model"),
        (lambda path: _edited(path, lambda graph: setattr(_first_value(graph), "elem_type", 8)), "holds strings"),
    ],
)
def test_a_users_graph_is_refused_with_the_mend(content: Any, complaint: str, graph: Path, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "user.onnx").write_bytes(content(graph))
    with pytest.raises(RequestError, match=complaint) as caught:
        let_in(tmp_path / "user.onnx", images(), tmp_path / "out")
    assert str(caught.value).startswith("model.path=")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "out").iterdir())


def _custom(graph: Any) -> None:
    graph.node.add(op_type="Mine", domain="com.mine", input=[graph.input[0].name], output=["mine"])


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda model: setattr(model.opset_import[0], "version", 999), "its opset 999 is newer than"),
        (lambda model: _custom(model.graph), "operator com.mine:Mine is none of ONNX or ONNX Runtime"),
        (lambda model: model.graph.ClearField("output"), "has no outputs"),
        (lambda model: setattr(_first_value(model.graph), "elem_type", 8), "holds strings"),
        (lambda model: model.graph.node[0].ClearField("op_type"), "is not a valid ONNX model"),
    ],
)
def test_what_the_file_alone_tells_is_told_before_any_sample_is_read(
    edit: Any, complaint: str, graph: Path, tmp_path: Path
) -> None:
    model = onnx.load(str(graph))
    require_usable(graph, "model.path=user.onnx")
    edit(model)
    model.opset_import.add(domain="com.mine", version=1)
    (tmp_path / "user.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(RequestError, match=complaint) as caught:
        require_usable(tmp_path / "user.onnx", "model.path=user.onnx")
    assert str(caught.value).startswith("model.path=user.onnx") and "\n" not in str(caught.value)


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
    onnx_form.check_inputs(onnx_form.graph_inputs(graph), IMAGE)
    with pytest.raises(RequestError, match=complaint):
        onnx_form.check_inputs(onnx_form.graph_inputs(graph), (spec,))


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


def test_trees_that_shape_inference_cannot_follow_are_taken(tmp_path: Path) -> None:
    """As LightGBM and scikit-learn leave them: outputs declared for one sample, a domain of their own."""
    leaf = {"nodes_truenodeids": [1, 0, 0], "nodes_falsenodeids": [2, 0, 0], "nodes_values": [0.0, 0.0, 0.0]}
    trees = onnx.helper.make_node(
        "TreeEnsembleRegressor", ["x"], ["raw"], domain="ai.onnx.ml", n_targets=1, nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2], nodes_featureids=[1, 0, 0], nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"], **leaf,
        target_treeids=[0, 0], target_nodeids=[1, 2], target_ids=[0, 0], target_weights=[-1.0, 1.0],
    )  # fmt: skip
    double = onnx.helper.make_node("Concat", ["raw", "raw"], ["y"], axis=1)
    user = user_graph(tmp_path / "user.onnx", [trees, double], {"x": [None, 3]}, {"y": [1, 1]})
    proto = onnx.load(str(user))
    proto.opset_import.append(onnx.helper.make_opsetid("ai.onnx.ml", 3))
    onnx.save(proto, str(user))
    rows = ArraySamples({"x": np.random.default_rng(0).normal(size=(9, 3)).astype("f4")}, np.arange(9))
    model = let_in(user, rows, tmp_path / "out")
    assert (model.outputs, model.batch_size) == ((0,), None)
    (y,) = answers(model, rows, tmp_path)
    np.testing.assert_array_equal(y, np.sign(rows.inputs["x"][:4, 1:2]).repeat(2, 1))


def test_a_graph_that_came_quantized_is_told_from_one_in_float(tmp_path: Path) -> None:
    q, dq = (
        onnx.helper.make_node(f"{kind}Linear", [given, "scale", "zero"], [gives])
        for kind, given, gives in (("Quantize", "x", "q"), ("Dequantize", "q", "y"))
    )
    user = user_graph(
        tmp_path / "user.onnx", [q, dq], {"x": ["n", 3]}, {"y": ["n", 3]}, scale=np.float32(0.1), zero=np.uint8(128)
    )
    rows = ArraySamples({"x": np.random.default_rng(0).normal(size=(9, 3)).astype("f4")}, np.arange(9))
    model = let_in(user, rows, tmp_path / "out")
    assert model.quantized
    assert ONNX.work(model) is None, "nothing is said of it in float32"
    assert not let_in(recurrent(tmp_path / "other.onnx", "n"), sequences(), tmp_path / "float").quantized


def summed(path: Path, batch: str | None = "n", time: str | None = "T") -> Path:
    """A graph for sequences of any length."""
    node = onnx.helper.make_node("ReduceSum", ["x", "time"], ["y"], keepdims=0)
    return user_graph(path, [node], {"x": [batch, time, 3]}, {"y": [batch, 3]}, time=np.array([1]))


@pytest.mark.parametrize(("batch", "time", "called"), [("n", "T", "T"), (None, None, "axis 1")])
def test_declared_lengths_are_the_shapes_that_a_graph_is_tuned_at(
    batch: str | None, time: str | None, called: str, tmp_path: Path
) -> None:
    samples, out = ArraySamples({"x": sequences().inputs["x"]}, np.arange(12)), tmp_path / "out"
    out.mkdir()
    user = summed(tmp_path / "user.onnx", batch, time)
    (spec,) = declared(user, {})
    assert called in spec.axes, "as a made-up sample's axis is called"
    onnx_entry.let_in(user, out / ONNX.file, samples, {}, {called: {2: 6, 4: 2}})
    model = ONNX.described(Model(ONNX, out, (TensorSpec("x", (5, 3), "float32"),)), samples)
    assert [(shape.inputs[0].shape, shape.calls) for shape in model.shapes] == [((2, 3), 3), ((4, 3), 1)]
    assert model.inputs == model.shapes[-1].inputs, "the largest"
    assert ONNX.work(model) is None, "nothing is said of one length alone"


@pytest.mark.parametrize(
    ("axes", "complaint"),
    [
        ({"S": {2: 1}}, r"model.axes.S: no input has an axis of that name; the free ones are \['T', 'n'\]"),
        ({"T": {2: 1, 6: 1}}, r"model.axes.T: 6 is declared, but the samples of input 'x' have 5 there"),
    ],
)
def test_lengths_that_no_sample_or_no_input_has_are_refused(axes: Any, complaint: str, tmp_path: Path) -> None:
    samples = ArraySamples({"x": sequences().inputs["x"]}, np.arange(12))
    with pytest.raises(RequestError, match=complaint):
        onnx_entry.let_in(summed(tmp_path / "user.onnx"), tmp_path / "model.onnx", samples, {}, axes)


@pytest.mark.parametrize(
    "override",
    ["axes.T=[0]", "axes.T=3", "axes.T={2:half}", "inputs.x.batch_axis=one", "inputs.x=1", "inputs.x.axis=1"],
)
def test_axes_that_are_no_numbers_are_refused_by_name(override: str, tmp_path: Path) -> None:
    user = summed(tmp_path / "user.onnx")
    key = override.partition("=")[0].removesuffix(".batch_axis").removesuffix(".axis")
    with pytest.raises(RequestError, match=f"model.{key}"):
        request(["model=onnx", f"model.path={user}", "dataset=digits", f"model.{override}"])


def test_axes_are_declared_by_names_of_ones_own(tmp_path: Path) -> None:
    user = summed(tmp_path / "user.onnx")
    overrides = ["model.axes.T={2:3,4:1}", "model.inputs.x.batch_axis=0"]
    model = request(["model=onnx", f"model.path={user}", "dataset=digits", *overrides]).workload.model
    assert isinstance(model, OnnxModel)
    assert (model.axes, model.inputs) == ({"T": {2: 3, 4: 1}}, {"x": {"batch_axis": 0}})
