"""Runs in a process that has seen nothing else: does a packaged artifact load, and answer what it answered?"""

import sys
from pathlib import Path

import numpy as np

from tuner import artifact
from tuner.errors import CandidateError

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
