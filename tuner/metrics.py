"""Metrics: outputs and labels of a batch -> one score per sample, more is better."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.errors import RequestError


def top1(outputs: Sequence[NDArray[Any]], labels: NDArray[Any]) -> NDArray[Any]:
    """1 where the largest of `outputs[0]`, shape (batch, classes), is the label, else 0.

    Raises RequestError for labels that are not class numbers, and for outputs that are not one score a class.
    """
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise RequestError(
            f"dataset: metric top1 needs labels that are class numbers, one a sample; 'label' has dtype {labels.dtype} "
            f"and shape {labels.shape[1:]} a sample; make it one (label.argmax(1) of one-hot labels), or name a metric "
            "of your own with metric=package.module:function"
        )
    if outputs[0].ndim != 2:
        raise RequestError(
            f"metric top1 needs outputs of shape (batch, classes); the model's first has {outputs[0].shape}: "
            "name a metric of your own with metric=package.module:function"
        )
    return np.asarray(outputs[0].argmax(axis=-1) == labels, dtype=np.float64)
