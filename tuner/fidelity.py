"""Fidelity: how like the float model's own outputs others are, where no labels tell what is right.

Each gives one score a sample: 1 where nothing differs, or 0 where it is an error. The labels are the float model's
outputs. An answer of another shape than the float model's to that sample, such as fewer boxes, is not like it at all.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.errors import RequestError
from tuner.metrics import metric, one_each
from tuner.truth import Truth

_ONE = 1e-3  # probabilities add up to one within this


@metric(against="float", within=(0, 1))
def fidelity(outputs: Sequence[NDArray[Any]], truth: Truth) -> NDArray[Any]:
    """Of several outputs the least alike, each by what suits its shape."""
    per_output = []
    for n, (output, true) in enumerate(zip(outputs, truth, strict=True)):
        if true is not None:
            function = _FUNCTIONS[suiting(true)]
            score = function([output], truth.only(n))
            per_output.append(score if function.better == "more" else 1 - score)
    return np.asarray(np.min(per_output, axis=0))


@metric(against="float", single=True, within=(0, 1), graded=True)
def cosine(outputs: Sequence[NDArray[Any]], truth: Truth) -> NDArray[Any]:
    """The cosine of all numbers of a sample, 0 where it is less, and where one is infinite that should not be."""
    _refuse_single_numbers(truth)
    return _each(outputs, truth, _cosines)


def _cosines(output: NDArray[Any], true: NDArray[Any]) -> NDArray[Any]:
    one, other = _rows(output), _rows(true)
    alike = np.isinf(other) & (one == other)
    one, other = np.where(alike, 0, one), np.where(alike, 0, other)
    with np.errstate(all="ignore"):
        norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        cosines = (one * other).sum(axis=1) / norms
    cosines = np.where((one == other).all(axis=1), 1.0, cosines)
    cosines = np.where((norms == 0) & ~(one == other).all(axis=1), 0.0, cosines)
    return np.asarray(np.clip(np.where(np.isfinite(cosines), cosines, 0.0), 0, 1))


@metric(against="float", single=True, within=(0, 1))
def agreement(outputs: Sequence[NDArray[Any]], truth: Truth) -> NDArray[Any]:
    """1 where the largest of (n, classes) is the same; of whole numbers the share that is equal."""
    if _whole(truth).dtype.kind in "biu":
        return _each(outputs, truth, lambda output, true: (_rows(output) == _rows(true)).mean(axis=1))
    _refuse_single_numbers(truth)
    return _each(outputs, truth, _same_largest)


def _same_largest(output: NDArray[Any], true: NDArray[Any]) -> NDArray[Any]:
    return np.asarray((output.argmax(axis=1) == true.argmax(axis=1)).reshape(len(true), -1).mean(axis=1))


@metric(against="float", single=True, better="less", within=(0, 1), graded=True)
def relative_error(outputs: Sequence[NDArray[Any]], truth: Truth) -> NDArray[Any]:
    """How far the numbers of a sample are off, as a share of how far the float model's are spread; at most 1."""

    def off(output: NDArray[Any], true: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(np.clip(np.abs(_rows(output) - _rows(true)).mean(axis=1) / truth.spread(), 0, 1))

    return _each(outputs, truth, off, same=0.0, other=1.0)


_FUNCTIONS = {"cosine": cosine, "agreement": agreement, "relative_error": relative_error}


def suiting(true: NDArray[Any]) -> str:
    """The name of the metric that suits an output of that shape: classes agree, one number is near, the rest points in
    the same direction."""
    if true.dtype.kind in "biu":
        return "agreement"
    if one_each(true):
        return "relative_error"
    shares = true.ndim == 2 and bool((true >= 0).all() and (np.abs(true.sum(axis=1) - 1) < _ONE).all())
    return "agreement" if shares else "cosine"


Outputs = Sequence[NDArray[Any]]


def unlikeness(answers: Sequence[Outputs], true: Sequence[Outputs]) -> float:
    """How far the outputs for some batches, all of one size, are from the float model's: the root mean square of the
    difference over that of the float model's about their mean over the samples. The largest of any output of
    floating-point numbers; what is the same for all samples counts for nothing. Infinite where an answer is NaN or
    infinite and the float model's is not the same."""
    largest = 0.0
    for n, first in enumerate(true[0]):
        if first.dtype.kind == "f":
            mine, theirs = (np.stack([o[n] for o in batches]).astype(np.float64) for batches in (answers, true))
            same = ~np.isfinite(theirs) & ((mine == theirs) | (np.isnan(mine) & np.isnan(theirs)))
            mine, theirs = np.where(same, 0, mine), np.where(same, 0, theirs)
            if not (np.isfinite(mine).all() and np.isfinite(theirs).all()):
                return math.inf
            spread = np.square(theirs - theirs.mean(axis=(0, 1)[: theirs.ndim])).sum()  # of batches, then of samples
            if spread > 0:
                largest = max(largest, float(np.sqrt(np.square(mine - theirs).sum() / spread)))
    return largest


def _each(
    outputs: Sequence[NDArray[Any]],
    truth: Truth,
    score: Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]],
    same: float = 1.0,
    other: float = 0.0,
) -> NDArray[Any]:
    """The score of each sample, as `score` has it of answers that have the shape of the float model's; `other` where
    they have another, `same` where both have no number at all."""
    output, true, shapes = outputs[0], _whole(truth), truth.shapes[0]
    scores = np.full(len(true), other)
    if output.ndim == true.ndim:
        of_that = np.full(len(true), output.shape == true.shape)
        if shapes is not None:  # a shorter answer was filled up
            of_that = (shapes == output.shape[1:]).all(axis=1)
        right = true[of_that][(slice(None), *map(slice, output.shape[1:]))]
        if len(right):
            scores[of_that] = score(output[of_that], right) if right.size else same
    return scores


def _whole(truth: Truth) -> NDArray[Any]:
    assert truth[0] is not None, "a single output is judged only where it has samples"
    return truth[0]


def _refuse_single_numbers(truth: Truth) -> None:
    """Raises RequestError where an answer is one number: every positive one points where any other does."""
    if one_each(_whole(truth)):
        raise RequestError("it gives one number a sample; metric=relative_error compares those")


def _rows(array: NDArray[Any]) -> NDArray[Any]:
    rows: NDArray[Any] = array.reshape(len(array), -1).astype(np.float64)
    return rows
