"""The samples that all experts have; and how like the float model's answers others are: the mean over the samples, of
several outputs of the least alike."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Answers = Sequence[Sequence[NDArray[Any]]]  # by sample, then by output


def likeness(answers: Answers, right: Answers) -> float:
    """Classes that agree, where an output is shares of classes; the cosine of all its numbers, where it is not."""
    return float(np.mean([min(map(_alike, mine, true)) for mine, true in zip(answers, right, strict=True)]))


def samples(data: str, role: str) -> list[dict[str, NDArray[Any]]]:
    """Batches of one sample each, by input, of a file with `ROLE:INPUT` for each. An array is read once for all."""
    with np.load(data) as file:
        arrays = {name.partition(":")[2]: file[name] for name in file.files if name.startswith(f"{role}:")}
    count = len(next(iter(arrays.values())))
    return [{name: array[i : i + 1] for name, array in arrays.items()} for i in range(count)]


def _alike(mine: NDArray[Any], true: NDArray[Any]) -> float:
    if true.dtype.kind in "biu":
        return float((mine == true).mean())
    if true.ndim == 2 and true.min() >= 0 and abs(true.sum() - 1) < 1e-3:
        return float(mine.argmax() == true.argmax())
    one, other = mine.ravel().astype(np.float64), true.ravel().astype(np.float64)
    norms = float(np.linalg.norm(one)) * float(np.linalg.norm(other))
    return min(1.0, max(0.0, float(one @ other) / norms)) if norms else float(np.array_equal(one, other))
