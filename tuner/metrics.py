"""Metrics: outputs and labels of a batch -> one score per sample, more is better."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def top1(outputs: Sequence[NDArray[Any]], labels: NDArray[Any]) -> NDArray[Any]:
    """1 where the largest of `outputs[0]`, shape (batch, classes), is the label, else 0."""
    return np.asarray(outputs[0].argmax(axis=-1) == labels, dtype=np.float64)
