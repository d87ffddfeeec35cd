"""The deliverable: packaged, then reloaded and checked in a process that has seen nothing else."""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner import artifact
from tuner.candidate import Candidate
from tuner.decide.reload import agreeing, answer_example
from tuner.errors import CandidateError
from tuner.evaluate.rig import Rig, size_mb
from tuner.goal import Goal
from tuner.measure import host
from tuner.system.deadline import Deadline
from tuner.system.digests import digests
from tuner.system.launcher import Launcher
from tuner.system.machine import cpu_name
from tuner.verdict import Finding

_LIMIT_S = 120.0
ROUNDING = 1e-4  # of an accuracy, relative, as of the answers to the example
_MOST_MB = 100.0  # of files that are kept up to three times
_KEPT_CALLS = 20_000  # 80 kB: of short calls, whole turns evenly spaced


@dataclass(frozen=True)
class Raced:
    """What was wanted of a winner, and how it ran in the race: its calls in ms by turn, and `Timing.evenness`."""

    goal: Goal
    turns: Sequence[NDArray[Any]]
    evenness: float


def deliver(rig: Rig, winner: Finding, folder: Path, raced: Raced | None = None) -> None:
    """Packages the winner's artifact as `folder`, and checks that what lies there is what was measured. What `raced`
    tells goes with it: whoever deploys it asks what it must hold, and for how many.

    Raises CandidateError where it must not be announced. Side effect: `folder` holds it, or is gone.
    """
    draft = folder.with_name(folder.name + ".draft")
    for path in (folder, draft):
        shutil.rmtree(path, ignore_errors=True)
    try:
        _write(rig, winner, draft)
        if raced is not None:
            _tell(rig, raced, draft)
        scores = rig.scores(draft, winner.candidate)
        _reload(rig.launcher, winner, draft, rig.log(winner.candidate))
        if rig.prepared.workload.judged and not as_measured(scores.value, winner.measurement.accuracy):
            raise _changed(f"its accuracy is {scores.value:.6f}; measured was {winner.measurement.accuracy}")
        if raced is None or "memory_mb" not in raced.goal.limits:  # whoever serves them holds all in memory
            _add_smaller(rig, winner, draft)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write(rig: Rig, winner: Finding, draft: Path) -> None:
    """The artifact as it was built, an example of its inputs and outputs, and a manifest that seals its files."""
    built = rig.built(winner.candidate)
    with rig.hosting(built, winner.candidate, Deadline(_LIMIT_S)) as worker:
        inputs, outputs = worker.run_for(_LIMIT_S, host.example)
    shutil.copytree(built, draft, ignore=shutil.ignore_patterns(".entry.json"))
    artifact.write_example(draft, inputs, outputs)
    artifact.extend_manifest(draft, measurement=winner.measurement.to_json(), sha256=digests(draft / artifact.FILES))
    if not rig.prepared.workload.judged:
        artifact.extend_manifest(draft, made_up_inputs=True)


def _tell(rig: Rig, raced: Raced, draft: Path) -> None:
    """Into the manifest: the goal, the machine and what of it a session had. The calls are a file of their own."""
    step = -(-sum(map(len, raced.turns)) // _KEPT_CALLS)
    np.save(draft / artifact.CALLS, np.concatenate(raced.turns[::step]).astype(np.float32))
    artifact.extend_manifest(
        draft,
        goal={**raced.goal.to_json(), "latency_percentile": raced.goal.percentile},
        machine={} if rig.target.hardware.far else {"cpu": cpu_name(), "cores": rig.target.cores},
        evenness=raced.evenness,
    )


def _reload(launcher: Launcher, winner: Finding, draft: Path, log: Path) -> None:
    """Has the artifact answer its example again in a process that has seen nothing else."""
    try:
        with launcher.with_libraries_of(winner.candidate.backend).open_anew(log) as worker:
            worker.run_for(_LIMIT_S, answer_example, draft)
    except CandidateError as error:
        raise _changed(error.sentence) from error


def _add_smaller(rig: Rig, winner: Finding, draft: Path) -> None:
    """The same recipe for one sample and for a middling batch, so that who asks for few need not pay for all. Left out
    where that takes long to build or much room, or where it does not answer alike."""
    candidate = winner.candidate
    sizes = smaller_sizes(candidate.batch_size)
    model, backend = rig.prepared.source.model, candidate.backend
    one_shape = model.batch_size is None and len(model.shapes) < 2  # the example has the first of several shapes only
    if not (one_shape and sizes) or backend.slow or backend.requirements or size_mb(draft) > _MOST_MB:
        return
    folders: dict[int, str] = {}
    whole = digests(draft / artifact.FILES)
    for size in sizes:
        try:
            files = rig.built(replace(candidate, batch_size=size)) / artifact.FILES
        except CandidateError:
            continue
        folders[size] = artifact.FILES
        if digests(files) != whole:
            folders[size] = f"{artifact.FILES}-{size}"
            shutil.copytree(files, draft / folders[size])
    artifact.extend_manifest(draft, smaller=folders)
    alike = _alike(rig, candidate, draft)
    for size in folders.keys() - {*alike}:
        if folders[size] != artifact.FILES:
            shutil.rmtree(draft / folders[size])
    kept = {size: folders[size] for size in alike}
    sums = {folder: digests(draft / folder) for folder in kept.values() if folder != artifact.FILES}
    artifact.extend_manifest(draft, smaller=kept, smaller_sha256=sums)


def _alike(rig: Rig, candidate: Candidate, draft: Path) -> list[int]:
    """The smaller batches that answer as the whole one; none where asking them ends in a crash."""
    try:
        with rig.launcher.with_libraries_of(candidate.backend).open(rig.log(candidate)) as worker:
            alike: list[int] = worker.run_for(_LIMIT_S, agreeing, draft)
            return alike
    except CandidateError:  # the log has why, and the champion does without
        return []


def as_measured(accuracy: float, before: float | None) -> bool:
    """Whether that is the accuracy before, give or take what kernels that add up in another order in each process do to
    a graded metric. One sample more or less that is right, of fewer than ten thousand, is not."""
    return before is not None and math.isclose(accuracy, before, rel_tol=ROUNDING, abs_tol=ROUNDING**2)


def smaller_sizes(batch_size: int) -> list[int]:
    """One, and the power of two in the middle between one and that, where it is another."""
    return sorted({1, 2 ** round(math.log2(batch_size) / 2)} - {batch_size})


def _changed(problem: str) -> CandidateError:
    return CandidateError("error", f"reloaded in a clean process it failed: {problem}")
