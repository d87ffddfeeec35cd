"""The deliverable: packaged, then reloaded and checked in a process that has seen nothing else."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tuner import artifact
from tuner.errors import CandidateError
from tuner.evaluate.evaluator import Evaluator
from tuner.measure import host
from tuner.system.deadline import Deadline
from tuner.system.digests import digests
from tuner.verdict import Finding

_LIMIT_S = 120.0


def deliver(evaluator: Evaluator, winner: Finding, folder: Path) -> None:
    """Packages the winner's artifact as `folder`, and checks that what lies there is what was measured.

    Raises CandidateError where it must not be announced. Side effect: `folder` holds it, or is gone.
    """
    draft = folder.with_name(folder.name + ".draft")
    for path in (folder, draft):
        shutil.rmtree(path, ignore_errors=True)
    try:
        _write(evaluator, winner, draft)
        scores = evaluator.scores_of(draft, winner.candidate)
        _reload(draft)
        if float(scores.mean()) != winner.measurement.accuracy:
            raise _changed(f"its accuracy is {scores.mean():.6f}; measured was {winner.measurement.accuracy}")
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write(evaluator: Evaluator, winner: Finding, draft: Path) -> None:
    """The artifact as it was built, an example of its inputs and outputs, and a manifest that seals its files."""
    built = evaluator.built(winner.candidate)
    with evaluator.hosting(built, evaluator.log(winner.candidate), Deadline(_LIMIT_S)) as worker:
        inputs, outputs = worker.run_for(_LIMIT_S, host.example)
    shutil.copytree(built, draft, ignore=shutil.ignore_patterns(".entry.json"))
    arrays: dict[str, Any] = {f"input:{name}": array for name, array in inputs.items()}
    arrays |= {f"output:{i}": array for i, array in enumerate(outputs)}
    np.savez(draft / artifact.EXAMPLE, **arrays)
    manifest = artifact.read_manifest(built)
    artifact.write_manifest(
        draft,
        winner.candidate,
        manifest.target,
        manifest.inputs,
        measurement=winner.measurement.to_json(),
        sha256=digests(draft / artifact.FILES),
    )


def _reload(folder: Path) -> None:
    """Loads the artifact in a process that has seen nothing else, and has it answer its example again."""
    command = [sys.executable, "-c", _RELOAD, str(folder)]
    target = artifact.read_manifest(folder).target
    variables = os.environ | target.hardware.variables(target)
    try:
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise _changed(f"no answer within {_LIMIT_S:.0f} s") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "Error" in line or "Mismatch" in line]
        raise _changed(" ".join(line.strip() for line in lines[:2]) or f"exit code {done.returncode}")


def _changed(problem: str) -> CandidateError:
    return CandidateError("error", f"reloaded in a clean process it failed: {problem}")


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
