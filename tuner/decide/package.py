"""The deliverable: packaged, then reloaded and checked in a process that has seen nothing else."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tuner import artifact
from tuner.candidate import Candidate
from tuner.errors import CandidateError
from tuner.evaluate.evaluator import Evaluator
from tuner.measure import host
from tuner.measurement import Measurement
from tuner.system.deadline import Deadline
from tuner.system.digests import digests

_LIMIT_S = 120.0


def deliver(evaluator: Evaluator, candidate: Candidate, measured: Measurement, folder: Path) -> str | None:
    """Packages the candidate's artifact as `folder`, and checks that what lies there is what was measured.

    Returns why it must not be announced, or None. Side effect: `folder` holds it, or is gone.
    """
    shutil.rmtree(folder, ignore_errors=True)
    try:
        built = evaluator.built(candidate)
        with evaluator.hosting(built, evaluator.log(candidate), Deadline(_LIMIT_S)) as worker:
            inputs, outputs = worker.run_for(_LIMIT_S, host.example)
        draft = folder.with_name(folder.name + ".draft")
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(built, draft, ignore=shutil.ignore_patterns(".entry.json"))
        arrays: dict[str, Any] = {f"input:{name}": array for name, array in inputs.items()}
        arrays |= {f"output:{i}": array for i, array in enumerate(outputs)}
        np.savez(draft / artifact.EXAMPLE, **arrays)
        manifest = artifact.read_manifest(built)
        artifact.write_manifest(
            draft,
            candidate,
            manifest.target,
            manifest.inputs,
            measurement=measured.to_json(),
            sha256=digests(draft / artifact.FILES),
        )
        again = evaluator.scores_of(draft, candidate)
    except CandidateError as error:
        return error.sentence
    problem = _reload(draft)
    if problem is None and float(again.mean()) != measured.accuracy:
        problem = f"its accuracy is {again.mean():.6f}; measured was {measured.accuracy}"
    if problem is not None:
        shutil.rmtree(draft, ignore_errors=True)
        return f"reloaded in a clean process it failed: {problem}"
    draft.rename(folder)
    return None


def _reload(folder: Path) -> str | None:
    command = [sys.executable, "-c", _RELOAD, str(folder)]
    try:
        checked = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"no answer within {_LIMIT_S:.0f} s"
    if checked.returncode == 0:
        return None
    lines = [line for line in checked.stderr.splitlines() if "Error" in line or "Mismatch" in line]
    return " ".join(line.strip() for line in lines[:2]) or f"exit code {checked.returncode}"


_RELOAD = """
import sys
from pathlib import Path
from typing import Any
import numpy as np
from tuner import artifact
folder = Path(sys.argv[1])
loaded = artifact.load(folder)
example = np.load(folder / artifact.EXAMPLE)
outputs = loaded.run({spec.name: example["input:" + spec.name] for spec in loaded.inputs})
for i, output in enumerate(outputs):
    np.testing.assert_allclose(output, example[f"output:{i}"], rtol=1e-4, atol=1e-4)
foreign = {"tuner.search", "optuna", "mlflow"} & set(sys.modules)
assert not foreign, f"loading it imported {foreign}"
"""
