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
    example = np.load(folder / artifact.EXAMPLE)
    outputs = loaded.run({spec.name: example[f"input:{spec.name}"] for spec in loaded.inputs})
    for i, output in enumerate(outputs):
        if not np.allclose(output, example[f"output:{i}"], rtol=1e-4, atol=1e-4, equal_nan=True):
            gap = float(np.max(np.abs(output.astype(np.float64) - example[f"output:{i}"])))
            raise CandidateError("numerics", f"output {i} of its example differs by {gap:.3g}")
    if foreign := _FOREIGN & sys.modules.keys():
        raise CandidateError("error", f"loading it imported {', '.join(sorted(foreign))}")
