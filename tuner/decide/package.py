"""The deliverable: packaged, then reloaded and checked in a process that has seen nothing else."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from tuner import artifact
from tuner.decide.reload import answer_example
from tuner.errors import CandidateError
from tuner.evaluate.rig import Rig
from tuner.measure import host
from tuner.system.deadline import Deadline
from tuner.system.digests import digests
from tuner.system.launcher import Launcher
from tuner.verdict import Finding

_LIMIT_S = 120.0


def deliver(rig: Rig, winner: Finding, folder: Path) -> None:
    """Packages the winner's artifact as `folder`, and checks that what lies there is what was measured.

    Raises CandidateError where it must not be announced. Side effect: `folder` holds it, or is gone.
    """
    draft = folder.with_name(folder.name + ".draft")
    for path in (folder, draft):
        shutil.rmtree(path, ignore_errors=True)
    try:
        _write(rig, winner, draft)
        scores = rig.scores(draft, winner.candidate)
        _reload(rig.launcher, winner, draft, rig.log(winner.candidate))
        if rig.prepared.workload.judged and scores.value != winner.measurement.accuracy:
            raise _changed(f"its accuracy is {scores.value:.6f}; measured was {winner.measurement.accuracy}")
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write(rig: Rig, winner: Finding, draft: Path) -> None:
    """The artifact as it was built, an example of its inputs and outputs, and a manifest that seals its files."""
    built = rig.built(winner.candidate)
    with rig.hosting(built, winner.candidate, Deadline(_LIMIT_S)) as worker:
        inputs, outputs = worker.run_for(_LIMIT_S, host.example)
    shutil.copytree(built, draft, ignore=shutil.ignore_patterns(".entry.json"))
    arrays: dict[str, Any] = {f"input:{name}": array for name, array in inputs.items()}
    arrays |= {f"output:{i}": array for i, array in enumerate(outputs)}
    np.savez(draft / artifact.EXAMPLE, **arrays)
    artifact.extend_manifest(draft, measurement=winner.measurement.to_json(), sha256=digests(draft / artifact.FILES))
    if not rig.prepared.workload.judged:
        artifact.extend_manifest(draft, made_up_inputs=True)


def _reload(launcher: Launcher, winner: Finding, draft: Path, log: Path) -> None:
    """Has the artifact answer its example again in a process that has seen nothing else."""
    try:
        with launcher.with_libraries_of(winner.candidate.backend).open_anew(log) as worker:
            worker.run_for(_LIMIT_S, answer_example, draft)
    except CandidateError as error:
        raise _changed(error.sentence) from error


def _changed(problem: str) -> CandidateError:
    return CandidateError("error", f"reloaded in a clean process it failed: {problem}")
