"""What an artifact takes and gives: no input is cast, and an answer belongs to whoever asked."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.artifact import Artifact
from tuner.build.samples import Kept, keep
from tuner.candidate import Candidate
from tuner.plugin import Session
from tuner.target import Target
from tuner.testing.fakes import Null
from tuner.workload import Arrays, ArraySamples, Dataset, Role, TensorSpec

BATCH = 4
DTYPES = ("float32", "float64", "float16", "int64", "int32", "uint8", "bool")


class Reusing(Session):
    """Answers with views of one buffer, as a runtime may."""

    def __init__(self) -> None:
        self._buffer = np.zeros((BATCH, 2), np.float32)

    def run(self, inputs: Arrays) -> list[Any]:
        self._buffer[:] = inputs["x"].reshape(BATCH, -1)[:, :1]
        return [self._buffer]


def deployed(dtype: str = "float32", shape: tuple[int, ...] = (2,)) -> Artifact:
    specs = (TensorSpec("x", shape, dtype), TensorSpec("other", (), "int64"))
    return Artifact(Candidate((), Null(), BATCH), Target("cpu", "cpu"), specs, Reusing())


def inputs(count: int, dtype: str = "float32", shape: tuple[int, ...] = (2,)) -> Arrays:
    return {"x": np.ones((count, *shape), dtype), "other": np.zeros(count, np.int64)}


def test_an_answer_is_not_changed_by_the_next_call() -> None:
    artifact = deployed()
    (first,) = artifact.run(inputs(BATCH))
    artifact.run({**inputs(BATCH), "x": np.zeros((BATCH, 2), np.float32)})
    assert (first == 1).all()
    assert first.base is None


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
