"""Where the batch stands: on made-up models, which answer arrays."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tuner.errors import RequestError
from tuner.forms.batch_axis import placed
from tuner.forms.onnx import ONNX
from tuner.model import Model
from tuner.tensors import Arrays, TensorSpec

SAMPLES: list[Arrays] = [{"x": value} for value in np.random.default_rng(0).normal(size=(3, 4)).astype("f4")]


def of(forward: Callable[[Any], Any]) -> Model:
    """The model that answers so, as it is let in."""
    return placed(
        Model(ONNX, Path(), (TensorSpec("x", (4,), "float32"),)), lambda inputs: forward(inputs["x"]), SAMPLES
    )


def kept(x: Any) -> list[Any]:
    """Of each picture as many boxes as it has, one after the other, without an axis for the batch."""
    boxes = [np.outer(row[row > 0], np.ones(4)) for row in x]
    return [np.concatenate(boxes), np.concatenate(boxes)[:, 0]]


def each(x: Any) -> list[Any]:
    """Boxes and scores of every picture apart, as a list of dicts has them."""
    return [array for row in x for array in kept(row[None])]


def test_a_batch_that_is_free_is_the_first_axis() -> None:
    model = of(lambda x: [x.sum(axis=1, keepdims=True)])
    assert (model.batch_size, model.outputs) == (None, (0,))


@pytest.mark.parametrize("shape", [(-1, 1), (-1, 1, 4), (-1, 4, 1)])
def test_a_squeeze_that_takes_the_batch_of_one_is_refused(shape: tuple[int, ...]) -> None:
    def forward(x: Any) -> list[Any]:
        return [(x.sum(axis=1) if shape == (-1, 1) else x).reshape(shape).squeeze()]

    with pytest.raises(RequestError, match=r"output 0 loses its batch axis at batch 1 .*; write .squeeze\(-1\)"):
        of(forward)


@pytest.mark.parametrize("forward", [kept, each])
def test_outputs_without_a_batch_have_none_where_it_is_of_one(forward: Any) -> None:
    model = of(forward)
    assert (model.batch_size, model.outputs) == (1, (None, None)) and model.fixed


def test_of_a_batch_of_one_the_outputs_that_have_it_keep_it() -> None:
    model = of(lambda x: [(x - x.mean(axis=0))[None, 0] + x[:1], x.mean(axis=0)[x.mean(axis=0) > 0]])
    assert (model.batch_size, model.outputs) == (1, (0, None))


def test_as_many_tensors_as_the_sample_says_are_refused() -> None:
    with pytest.raises(RequestError, match="it gives 1 or 2 tensors, by the sample"):
        of(lambda x: [x[:1]] * (1 + int(x[0, 0] > 0)))
