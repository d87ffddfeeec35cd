"""Runs in a process that has seen nothing else: does a packaged artifact load, and answer what it answered?"""

import sys
import traceback
from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner import artifact
from tuner.errors import CandidateError
from tuner.tensors import Arrays

_LIKE = 1e-3  # of the largest answer
_FOREIGN = {"tuner.search", "optuna", "mlflow"}


def answer_example(folder: Path) -> None:
    """Loads the artifact and has it answer its example again. Raises CandidateError where it answers otherwise, or
    where loading it took anything of the search."""
    loaded = artifact.load(folder)
    inputs, answered = artifact.read_example(folder)
    for i, output in enumerate(loaded.run(inputs)):
        if not np.allclose(output, answered[i], rtol=1e-4, atol=1e-4, equal_nan=True):
            gap = float(np.max(np.abs(output.astype(np.float64) - answered[i])))
            raise CandidateError("numerics", f"output {i} of its example differs by {gap:.3g}")
    if foreign := _FOREIGN & sys.modules.keys():
        raise CandidateError("error", f"loading it imported {', '.join(sorted(foreign))}")


def agreeing(folder: Path) -> list[int]:
    """The smaller batches of a package that give the first samples of its example the answers that a whole batch gave:
    where a quantizer takes its ranges from the batch, none may. One that does not run is none of them."""
    inputs, answered = artifact.read_example(folder)
    alike = []
    for size, _ in artifact.read_manifest(folder).smaller:
        try:
            alike += [size] * _agrees(folder, size, inputs, answered)
        except Exception:  # of whatever runtime: a champion is announced without its smaller batches, too
            traceback.print_exc()
    return alike


def _agrees(folder: Path, size: int, inputs: Arrays, answered: list[NDArray[Any]]) -> bool:
    loaded = artifact.load(folder, size)
    outputs = loaded.run(artifact.first(inputs, loaded.inputs, size))
    wanted = [artifact.cut(o, axis, 0, size) for o, axis in zip(answered, loaded.axes(answered), strict=True)]
    return all(starmap(_alike, zip(outputs, wanted, strict=True)))


def _alike(mine: NDArray[Any], theirs: NDArray[Any]) -> bool:
    """Whether they are equal, but for how other kernels add up."""
    if mine.shape != theirs.shape or theirs.dtype.kind != "f":
        return np.array_equal(mine, theirs)
    largest = float(np.abs(theirs[np.isfinite(theirs)]).max(initial=0))
    return np.allclose(mine, theirs, rtol=_LIKE, atol=_LIKE * largest, equal_nan=True)
