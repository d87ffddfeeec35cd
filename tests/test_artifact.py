"""What an artifact takes and gives: no input is cast, and an answer belongs to whoever asked."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.artifact import FILES, Artifact, buckets, load, write_manifest
from tuner.build.samples import Kept, keep
from tuner.candidate import Candidate
from tuner.dataset import ArraySamples, Dataset, Role, shaped
from tuner.forms.onnx import ONNX
from tuner.forms.torch import TorchSession
from tuner.model import Model
from tuner.plugin import Backend, Session
from tuner.plugins.backends.onnxruntime import OnnxRuntime
from tuner.plugins.backends.openvino import OpenVINO
from tuner.pool import Pool
from tuner.target import Target
from tuner.tensors import Arrays, Shape, TensorSpec
from tuner.testing.fakes import Null
from tuner.testing.workbench import TARGET, need

BATCH = 4
DTYPES = ("float32", "float64", "float16", "int64", "int32", "uint8", "bool")


class First(Session):
    """Answers with the first number of each sample, twice."""

    def run(self, inputs: Arrays) -> list[Any]:
        return [np.repeat(inputs["x"].reshape(BATCH, -1)[:, :1], 2, 1).astype(np.float32)]


def deployed(dtype: str = "float32", shape: tuple[int, ...] = (2,)) -> Artifact:
    specs = (TensorSpec("x", shape, dtype), TensorSpec("other", (), "int64"))
    return Artifact(Candidate((), Null(), BATCH), Target("cpu", "cpu"), specs, First())


def inputs(count: int, dtype: str = "float32", shape: tuple[int, ...] = (2,)) -> Arrays:
    return {"x": np.ones((count, *shape), dtype), "other": np.zeros(count, np.int64)}


def test_a_state_that_a_module_keeps_is_not_handed_out() -> None:
    import torch

    state = torch.zeros(BATCH, 2)
    session = TorchSession(lambda x: state.add_(x), ["x"], "f32", TARGET)
    (first,) = session.run({"x": np.ones((BATCH, 2), np.float32)})
    session.run({"x": np.ones((BATCH, 2), np.float32)})
    assert (first == 1).all()


def test_each_replica_answers_with_its_own_session() -> None:
    pooled = replace(deployed(), session=Pool([First(), First()]))
    one, other = pooled.replicas
    assert {one.session, other.session} == set(pooled.session.sessions)
    np.testing.assert_array_equal(one.run(inputs(1))[0], pooled.run(inputs(1))[0])


@pytest.mark.parametrize("count", [1, BATCH])
def test_bytes_in_another_order_are_the_same_numbers(count: int) -> None:
    (answer,) = deployed().run({**inputs(count), "x": np.ones((count, 2), ">f4")})
    assert (answer == 1).all()


@given(takes=st.sampled_from(DTYPES), gets=st.sampled_from(DTYPES), count=st.integers(1, BATCH))
def test_another_dtype_is_refused_and_never_cast(takes: str, gets: str, count: int) -> None:
    artifact = deployed(takes)
    if takes == gets:
        assert artifact.run(inputs(count, gets))[0].shape == (count, 2)
        return
    with pytest.raises(ValueError, match=rf"'x' is {gets}; .* {takes}$"):
        artifact.run(inputs(count, gets))


shapes = st.lists(st.integers(0, 6), max_size=3).map(tuple)


@given(takes=st.lists(st.integers(1, 4), min_size=1, max_size=2).map(tuple), gets=shapes)
def test_another_shape_is_refused(takes: tuple[int, ...], gets: tuple[int, ...]) -> None:
    artifact, given_inputs = deployed(shape=takes), inputs(1)
    given_inputs["x"] = np.zeros(gets, np.float32)
    if gets[:1] == (1,) and gets[1:] == takes:
        artifact.run(given_inputs)
        return
    with pytest.raises(ValueError, match=r"'(x|other)' has shape \(.*\); this artifact takes \(1…4"):
        artifact.run(given_inputs)


@pytest.mark.parametrize(
    ("given_inputs", "complaint"),
    [
        ({}, "inputs are .*this artifact takes"),
        ({"x": np.ones((1, 2), np.float32)}, "'other'"),
        (inputs(1) | {"more": np.ones(1)}, "'more'"),
        (inputs(1) | {"x": [[1.0, 2.0]]}, "'x' is list"),
        (inputs(1) | {"x": np.float32(1)}, "'x' is float32"),
        (inputs(1) | {"other": np.zeros(2, np.int64)}, "'other' has shape"),
    ],
)
def test_an_input_that_is_missing_or_no_array_is_named(given_inputs: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        deployed().run(given_inputs)


class Several(Dataset):
    names: tuple[str, ...] = ()

    def load(self, role: Role) -> ArraySamples | None:
        if role != "evaluation":
            return None
        return ArraySamples({name: np.full(3, n) for n, name in enumerate(self.names)}, np.arange(3))

    def key(self) -> dict[str, Any]:
        return {"names": list(self.names)}


@given(names=st.lists(st.text(min_size=1, max_size=8).filter(lambda name: name != "label"), min_size=1, unique=True))
def test_kept_samples_have_their_inputs_in_their_own_order(
    names: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder: Path = tmp_path_factory.mktemp("kept")
    dataset = Several()
    dataset.names = tuple(names)
    keep(lambda *_: None, dataset, folder)
    kept = Kept(folder, "{}")
    samples = kept.load("evaluation")
    assert samples is not None and len(samples) == 3
    sample, label = samples[2]
    assert (list(sample), [int(value) for value in sample.values()], label) == (names, list(range(len(names))), 2)
    assert kept.load("training") is None


LENGTHS = tuple(
    Shape((TensorSpec("ids", (n,), "int64"), TensorSpec("mask", (n,), "float32")), calls)
    for n, calls in ((4, 3), (8, 1))
)


def encoder(folder: Path) -> None:
    """The masked mean of embedded tokens, for sequences of any length."""
    import onnx
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["tokens"]),
        helper.make_node("Unsqueeze", ["mask", "last"], ["kept"]),
        helper.make_node("Mul", ["tokens", "kept"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "time"], ["y"], keepdims=0),
    ]
    axes = ["batch", "sequence"]
    inputs = [
        helper.make_tensor_value_info("ids", TensorProto.INT64, axes),
        helper.make_tensor_value_info("mask", TensorProto.FLOAT, axes),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])]
    weights = {"table": TABLE, "last": np.array([2]), "time": np.array([1])}
    constants = [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "encoder", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / "model.onnx"))


TABLE = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)


@pytest.mark.parametrize("backend", [OnnxRuntime(), OpenVINO()], ids=lambda backend: backend.label)
def test_inputs_of_several_lengths_get_the_models_own_answers(backend: Backend, tmp_path: Path) -> None:
    need(backend)
    encoder(tmp_path)
    model = Model(ONNX, tmp_path, LENGTHS[-1].inputs, shapes=LENGTHS)
    folder, candidate = tmp_path / "champion", Candidate((), backend, BATCH)
    places = buckets(folder / FILES, backend, model)
    assert len(places) == (1 if backend.variable else 2)
    for place, specs in places:
        place.mkdir(parents=True)
        (tmp_path / "cache").mkdir(exist_ok=True)
        backend.compile(Model(ONNX, tmp_path, specs), BATCH, TARGET, place, tmp_path / "cache")
    shapes = [shape.to_json() for shape in LENGTHS]
    write_manifest(folder, candidate, TARGET, model.inputs, {}, outputs=(0,), shapes=shapes)
    artifact, random = load(folder), np.random.default_rng(1)
    for count, length in ((1, 4), (BATCH, 8), (3, 4)):
        ids, mask = random.integers(0, 9, (count, length)), (random.random((count, length)) < 0.7).astype("f4")
        (y,) = artifact.run({"ids": ids, "mask": mask})
        np.testing.assert_allclose(y, (TABLE[ids] * mask[..., None]).sum(1), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"'ids' has shape \(1, 6\); this artifact takes \(1…4, 4\) or \(1…4, 8\)"):
        artifact.run({"ids": np.zeros((1, 6), np.int64), "mask": np.zeros((1, 6), np.float32)})


def test_a_whole_batch_of_any_declared_length_is_handed_on_as_it_is() -> None:
    """Copies and checks of what needs none took 15 % of the calls of the shorter lengths."""

    class Seen(Session):
        def run(self, inputs: Arrays) -> list[Any]:
            self.inputs = inputs
            return [np.zeros((BATCH, 3), np.float32)]

    seen = Seen()
    specs = LENGTHS[-1].inputs
    artifact = Artifact(Candidate((), Null(), BATCH), Target("cpu", "cpu"), specs, seen, shapes=LENGTHS)
    for length in (4, 8):
        whole = {"ids": np.zeros((BATCH, length), np.int64), "mask": np.zeros((BATCH, length), np.float32)}
        artifact.run(whole)
        assert seen.inputs is whole
        artifact.run({name: array[:, ::-1] for name, array in whole.items()})
        assert seen.inputs["ids"].flags.c_contiguous, "a view that runs backwards is laid out first"


@given(count=st.integers(1, 30), sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)), calls=st.integers(1, 4))
def test_every_sample_is_judged_once_whatever_the_batch_size(count: int, sizes: tuple[int, int], calls: int) -> None:
    samples = ArraySamples({"ids": np.arange(count * 8).reshape(count, 8)}, np.arange(count))
    shapes = [Shape((TensorSpec("ids", (n,), "int64"),), c) for n, c in ((4, calls), (8, 1))]
    orders = []
    for size in sizes:
        labels = []
        for inputs, given_labels in shaped(samples, shapes, size):
            assert len(given_labels) <= size and inputs["ids"].shape[1] in (4, 8)
            np.testing.assert_array_equal(inputs["ids"][:, 0], given_labels * 8)
            labels += list(given_labels)
        orders.append(labels)
    assert orders[0] == orders[1] and sorted(orders[0]) == list(range(count))
